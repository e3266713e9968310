package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/ovmf"
)

func (a *app) ovmfCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ovmf",
		Short: "Put GRUB into a firmware image, look into one, and judge it",
	}
	cmd.AddCommand(a.ovmfBundleCommand(), a.ovmfInspectCommand(), a.ovmfLintCommand())
	return cmd
}

func (a *app) ovmfBundleCommand() *cobra.Command {
	var firmware, grub, output string
	cmd := &cobra.Command{
		Use:   "bundle --firmware FILE --grub FILE --output FILE",
		Short: "Put a GRUB EFI application into a firmware image",
		Long: `bundle puts a GRUB EFI application into a firmware image for AMD SEV, in place of the
one that is there. The same files in give the same bytes out. Firmware that could boot
anything but GRUB is refused.`,
		Example: `  sealboot ovmf bundle --firmware OVMF.amdsev.fd --grub grub.efi --output firmware.fd`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			image, err := cli.ReadBounded(firmware, ovmf.MaxSize)
			if err != nil {
				return fmt.Errorf("read firmware: %w", err)
			}
			application, err := cli.ReadBounded(grub, ovmf.MaxSize)
			if err != nil {
				return fmt.Errorf("read GRUB: %w", err)
			}
			bundled, err := ovmf.Bundle(image, application)
			if err != nil {
				return fmt.Errorf("bundle %s: %w", firmware, err)
			}
			return atomicfile.WriteFile(output, bundled, 0o644)
		},
	}
	cmd.Flags().StringVar(&firmware, "firmware", "", "firmware image, a build of OVMF for AMD SEV")
	cmd.Flags().StringVar(&grub, "grub", "", "GRUB as an EFI application (sealboot grub build)")
	cmd.Flags().StringVar(&output, "output", "", "firmware image to write")
	for _, name := range []string{"firmware", "grub", "output"} {
		cmd.MarkFlagRequired(name)
	}
	return cmd
}

func (a *app) ovmfInspectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show a firmware image's tables, volumes and GRUB",
		Long: `inspect shows what a firmware image sets aside in guest memory, its volumes and the GRUB
in it, and what would keep bundle from using it.

With --json: sha256, size, base, secret_area and hashes_area {base, size} or null,
reset_vector, table (GUIDs), metadata [{gpa, size, type}], volumes [{name, packed, offset,
size, files, free}], grub {size, sha256, room, packed} or null, problems (none: bundle would take it).`,
		Example: `  sealboot ovmf inspect firmware.fd
  sealboot ovmf inspect --json firmware.fd | jq .grub.sha256`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			image, err := cli.ReadBounded(args[0], ovmf.MaxSize)
			if err != nil {
				return fmt.Errorf("read firmware: %w", err)
			}
			report, err := ovmf.Inspect(image)
			if err != nil {
				return fmt.Errorf("inspect %s: %w", args[0], err)
			}
			if asJSON {
				e := json.NewEncoder(a.stdout)
				e.SetIndent("", "  ")
				return e.Encode(report)
			}
			printFirmware(a.stdout, report)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printFirmware(w io.Writer, r *ovmf.Report) {
	area := func(a *ovmf.Area) string {
		if a == nil {
			return "none"
		}
		return fmt.Sprintf("%d bytes at %#x", a.Size, a.Base)
	}
	fmt.Fprintf(w, "firmware     %d bytes at %#x, SHA-256 %s\n", r.Size, r.Base, r.SHA256)
	fmt.Fprintf(w, "secret area  %s\n", area(r.SecretArea))
	fmt.Fprintf(w, "hashes area  %s\n", area(r.HashesArea))
	if r.ResetVector != nil {
		fmt.Fprintf(w, "second vCPU  starts at %#x\n", *r.ResetVector)
	}
	for _, s := range r.Metadata {
		fmt.Fprintf(w, "metadata     %-13v %#8x bytes at %#x\n", s.Type, s.Size, s.GPA)
	}
	for _, v := range r.Volumes {
		place := "image"
		if v.Packed {
			place = "packed"
		}
		fmt.Fprintf(w, "volume       %v %s %#x: %d bytes, %d files, %d bytes free\n", v.Name, place, v.Offset, v.Size, v.Files, v.Free)
	}
	switch {
	case r.GRUB == nil:
		fmt.Fprintln(w, "GRUB         no place for it")
	case r.GRUB.Size == 0:
		fmt.Fprintf(w, "GRUB         empty, room for %d bytes\n", r.GRUB.Room)
	default:
		fmt.Fprintf(w, "GRUB         %d bytes of at most %d, SHA-256 %s\n", r.GRUB.Size, r.GRUB.Room, r.GRUB.SHA256)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "problem      %s\n", p)
	}
}
