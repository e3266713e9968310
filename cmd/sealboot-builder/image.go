package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/image"
	"github.com/sealboot/sealboot/internal/progress"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build, verify and inspect encrypted disks",
	}
	cmd.AddCommand(a.imageBuildCommand(), a.imageVerifyCommand(), a.imageInspectCommand())
	return cmd
}

func (a *app) imageInspectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what a disk says of itself, without its passphrase",
		Long: `inspect shows a disk's sizes, partitions and LUKS header. It checks the structure
of the image and both partition tables on the way.

With --json: disk_size, file_size, allocated, cluster_size, partitions [{type, id, name, offset, size, root}],
luks {version, uuid, label, header_pin, cipher, key_bits, sector_size, data_offset, payload_size, copy_used, other_copy,
key_slots [{id, kdf, hash, iterations, time, memory_kib, parallel}]}.`,
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
			if asJSON {
				return printJSON(a.stdout, report)
			}
			printReport(a.stdout, report)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printReport(w io.Writer, r *image.Report) {
	fmt.Fprintf(w, "disk        %s, %s of it in use, in a file of %s\n", progress.Bytes(r.DiskSize), progress.Bytes(r.Allocated), progress.Bytes(r.FileSize))
	for i, p := range r.Partitions {
		fmt.Fprintf(w, "partition %d %s at %s, %q, type %s\n", i+1, progress.Bytes(p.Size), progress.Bytes(p.Offset), p.Name, p.Type)
	}
	l := r.LUKS
	fmt.Fprintf(w, "LUKS%d       %s, key of %d bits, sectors of %d bytes, data from %s, payload %s\n",
		l.Version, l.Cipher, l.KeyBits, l.SectorSize, progress.Bytes(l.DataOffset), progress.Bytes(l.PayloadSize))
	fmt.Fprintf(w, "UUID        %s\nheader pin  %s\n", l.UUID, l.HeaderPin)
	if l.OtherCopy != "good" {
		fmt.Fprintf(w, "header      taken from the %s copy; the other: %s\n", l.CopyUsed, l.OtherCopy)
	}
	for _, s := range l.KeySlots {
		cost := fmt.Sprintf("%s, %d iterations", s.Hash, s.Iterations)
		if s.MemoryKiB > 0 {
			cost = fmt.Sprintf("%d passes, %s, %d lanes", s.Time, progress.Bytes(int64(s.MemoryKiB)<<10), s.Parallel)
		}
		fmt.Fprintf(w, "key slot %d  %s (%s)\n", s.ID, s.KDF, cost)
	}
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
