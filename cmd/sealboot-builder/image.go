package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/image"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build, verify, inspect, rekey and read encrypted disks",
	}
	cmd.AddCommand(a.imageBuildCommand(), a.imageVerifyCommand(), a.imageInspectCommand(), a.imageRekeyCommand(), a.imageAddRecoveryKeyCommand(),
		a.imageLsCommand(), a.imageCatCommand(), a.imageExtractCommand())
	return cmd
}

func (a *app) imageInspectCommand() *cobra.Command {
	var keyFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Draw a disk: partitions, key slots, sizes",
		Long: `inspect draws a disk, QCOW2 or raw: partitions and what is between them, LUKS header and encrypted data, how much of
each has a place in the file, and the key slots; with --key-file also how full the file system is. It checks the structure of the image and both partition tables on the way.

With --json: format ("qcow2", "raw"), disk_size, file_size, allocated, cluster_size (0 for raw), leaked (clusters that are counted but
not used), partitions [{type, id, name, offset, size, root}], regions [{kind ("partition_table", "partition", "luks_header",
"encrypted_data", "free"), number, name, offset, size, used}], payload_used, luks {version, uuid, label, header_pin, cipher, key_bits, sector_size, data_offset, payload_size, copy_used, other_copy,
key_slots [{id, kdf, hash, iterations, time, memory_kib, parallel}]}, and with --key-file file_system {kind, uuid, label, block_size, size, free, inodes,
free_inodes (both 0 but for ext4), clean, features} of the root, and boot_volume, the same, where there is one.`,
		Example: `  sealboot image inspect disk.qcow2
  sealboot image inspect --json disk.qcow2 | jq -r .luks.header_pin`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, size, err := openImage(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			report, err := image.Inspect(cmd.Context(), f, size)
			if err != nil {
				return fmt.Errorf("inspect %s: %w", args[0], err)
			}
			shown := inspectedDisk{Report: report}
			if keyFile != "" {
				b, err := a.browse(cmd.Context(), args[0], browseFlags{keyFile: keyFile})
				if err != nil {
					return err
				}
				defer b.Close()
				shown.FileSystem = reportOf(b.Root, b.Unclean == nil)
				if b.Boot != nil {
					shown.BootVolume = reportOf(*b.Boot, b.Unclean == nil)
				}
			}
			if asJSON {
				return printJSON(a.stdout, shown)
			}
			printReport(a.stdout, report)
			for _, f := range []*fileSystemReport{shown.BootVolume, shown.FileSystem} {
				if f != nil {
					printFileSystem(a.stdout, f)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&keyFile, "key-file", "", "file with a passphrase, to show the file systems too (- for standard input)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// inspectedDisk is what `image inspect --json` prints.
type inspectedDisk struct {
	*image.Report
	FileSystem *fileSystemReport `json:"file_system,omitempty"`
	BootVolume *fileSystemReport `json:"boot_volume,omitempty"`
}

// openImage opens an image file for reading.
func openImage(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	size, err := f.Seek(0, io.SeekEnd) // of a device too
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}

func printJSON(w io.Writer, v any) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(v)
}
