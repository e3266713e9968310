package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/grub"
	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
)

func (a *app) grubCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "grub",
		Short: "Build the GRUB that unlocks the disk",
	}
	cmd.AddCommand(a.grubBuildCommand())
	return cmd
}

func (a *app) grubBuildCommand() *cobra.Command {
	var (
		output, tools string
		asJSON        bool
		config        grub.Config
	)
	cmd := &cobra.Command{
		Use:   "build --output FILE",
		Short: "Build the EFI application that goes into the firmware",
		Long: `Build GRUB as an EFI application that takes the disk's passphrase from the secret
area of the firmware, unlocks the disk, and starts the newest kernel in it that has an
initramfs of sealboot's. It asks nobody anything: on a failure it says why and turns
the machine off. The same settings, GRUB and compiler give the same bytes.

GRUB's own modules (2.12 or newer) and grub-mkimage are the distribution's: those under
--tools, laid out as the root of a file system, or the machine's. gcc compiles the one
module of ours.

With --json, what went in is printed: grub_version, compiler_version, modules,
modules_sha256, config_sha256, sha256, size.`,
		Example: `  sealboot grub build --output grub.efi --append console=ttyS0
  sealboot grub build --output grub.efi --disk-uuid 0d5a1f4e-55c5-4e0e-9a5e-0f2b7a6a3c11`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == "" {
				return cli.Usagef("no output: give --output FILE")
			}
			if err := config.Validate(); err != nil {
				return cli.Usagef("%w", err)
			}
			var roots []string
			if tools != "" {
				roots = append(roots, tools)
			}
			found, err := grub.FindTools(roots...)
			if err != nil {
				return err
			}
			efi, info, err := grub.Build(cmd.Context(), config, found)
			if err != nil {
				return err
			}
			if err := atomicfile.WriteFile(output, efi, 0o644); err != nil {
				return err
			}
			if asJSON {
				out := json.NewEncoder(a.stdout)
				out.SetIndent("", "  ")
				return out.Encode(info)
			}
			fmt.Fprintf(a.stderr, "%s: %d bytes, GRUB %s, SHA-256 %s\n", output, info.Size, info.GRUBVersion, info.SHA256)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&output, "output", "", "the EFI application to write")
	flags.StringVar(&config.DiskUUID, "disk-uuid", "", "LUKS UUID of the disk to unlock (default: the only LUKS2 disk there is)")
	flags.StringVar(&config.Append, "append", "", "words to add to the kernel's command line, such as console=ttyS0")
	flags.BoolVar(&config.Serial, "serial", false, "write to the first serial port, for firmware whose console does not reach it (OVMF's does)")
	flags.StringVar(&tools, "tools", "", "folder with GRUB's tools, laid out as the root of a file system")
	flags.BoolVar(&asJSON, "json", false, "print what went in")
	return cmd
}
