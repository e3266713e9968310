package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/image"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/internal/progress"
	"github.com/sealboot/sealboot/luks"
	"github.com/sealboot/sealboot/measure"
)

// verifiedDisk is what `image verify --json` prints.
type verifiedDisk struct {
	DiskUUID      string       `json:"disk_uuid"`
	HeaderPin     luks.Pin     `json:"header_pin"`
	ContentDigest image.Digest `json:"content_digest"`
	KeySlot       int          `json:"key_slot"`
	DiskSize      int64        `json:"disk_size"`
	PayloadSize   int64        `json:"payload_size"`
	Written       int64        `json:"written"`
	Kind          string       `json:"kind"`
	BootVolume    bool         `json:"boot_volume"`
	Files         uint64       `json:"files"`
	Folders       uint64       `json:"folders"`
	FreeBytes     int64        `json:"free_bytes"`
	Compared      []string     `json:"compared"`
}

func (a *app) imageVerifyCommand() *cobra.Command {
	var keyFile, record, content, pin string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify FILE --key-file FILE",
		Short: "Decrypt a disk and check all of it",
		Long: `verify reads all of a disk: the image's structure and reference counts, both partition
tables, the LUKS header, the metadata of the decrypted file systems with their checksums, and whether every
block in use was really written. With --record or --content-digest it also compares the content with
what was built, byte for byte; the first boot changes the content.

Exit code 3: the disk is not in order, not the one that is expected, or the key does not open it.

With --json: disk_uuid, header_pin, content_digest, key_slot, disk_size, payload_size, written, kind (of the root's file
system: ext4, xfs or btrfs), boot_volume (whether one stands before the root), files, folders, free_bytes, compared (what was given to compare with: "uuid", "header_pin", "content_digest").`,
		Example: `  sealboot image verify disk.qcow2 --key-file passphrase
  sealboot image verify disk.qcow2 --key-file passphrase --record record.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			want, compared, err := expectedDisk(record, content, pin)
			if err != nil {
				return err
			}
			passphrase, err := cli.ReadKeyFile(keyFile, a.stdin)
			if err != nil {
				return err
			}
			defer clear(passphrase)
			found, err := a.verifyImage(cmd.Context(), args[0], passphrase, want)
			if err != nil {
				return err
			}
			v := verifiedDisk{
				DiskUUID: found.DiskUUID, HeaderPin: found.HeaderPin, ContentDigest: found.ContentDigest, KeySlot: found.KeySlot,
				DiskSize: found.DiskSize, PayloadSize: found.PayloadSize, Written: found.Written,
				Kind: found.FileSystem.Kind, BootVolume: found.FileSystem.BootVolume, Files: found.FileSystem.Files, Folders: found.FileSystem.Folders, FreeBytes: found.FileSystem.Free,
				Compared: compared,
			}
			if asJSON {
				return printJSON(a.stdout, v)
			}
			fmt.Fprintf(a.stdout, "%s is in order: %d files in %d folders, %s written, %s free; key slot %d opens it\n",
				args[0], v.Files, v.Folders, progress.Bytes(v.Written), progress.Bytes(v.FreeBytes), v.KeySlot)
			for _, what := range v.Compared {
				fmt.Fprintf(a.stdout, "%s as expected\n", what)
			}
			fmt.Fprintf(a.stdout, "content digest  %s\n", v.ContentDigest)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&keyFile, "key-file", "", "file with the passphrase (- for standard input)")
	flags.StringVar(&record, "record", "", "boot record to compare UUID, header pin and content digest with")
	flags.StringVar(&content, "content-digest", "", "content digest to compare with, as image build prints it")
	flags.StringVar(&pin, "header-pin", "", "header pin to compare with, as image build prints it")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagRequired("key-file")
	cmd.MarkFlagsMutuallyExclusive("record", "content-digest")
	cmd.MarkFlagsMutuallyExclusive("record", "header-pin")
	return cmd
}

func (a *app) verifyImage(ctx context.Context, path string, passphrase []byte, want image.Expected) (*image.Verified, error) {
	f, size, err := openImage(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	line := progress.New(a.stderr)
	defer line.Clear()
	found, err := image.Verify(ctx, f, size, passphrase, want, line.Stage("verify"))
	if err == nil {
		return found, nil
	}
	if io := (*fs.PathError)(nil); errors.As(err, &io) || ctx.Err() != nil {
		return nil, fmt.Errorf("verify %s: %w", path, err)
	}
	return nil, cli.Refusef("verify %s: %w", path, err)
}

// expectedDisk collects what the disk is to be compared with.
func expectedDisk(record, content, pin string) (want image.Expected, compared []string, err error) {
	compared = []string{}
	if record != "" {
		f, err := os.Open(record)
		if err != nil {
			return image.Expected{}, nil, err
		}
		defer f.Close()
		r, err := measure.ReadRecord(f)
		if err != nil {
			return image.Expected{}, nil, fmt.Errorf("read %s: %w", record, err)
		}
		header, digest := luks.Pin(r.Disk.HeaderPin), image.Digest(r.Disk.ContentDigest)
		want = image.Expected{DiskUUID: r.Disk.UUID, HeaderPin: &header}
		compared = []string{"uuid", "header_pin"}
		if digest != (image.Digest{}) {
			want.ContentDigest, compared = &digest, append(compared, "content_digest")
		}
		return want, compared, nil
	}
	if pin != "" {
		parsed, err := luks.ParsePin(pin)
		if err != nil {
			return image.Expected{}, nil, cli.Usagef("--header-pin: %w", err)
		}
		want.HeaderPin, compared = &parsed, append(compared, "header_pin")
	}
	if content != "" {
		parsed, err := image.ParseDigest(content)
		if err != nil {
			return image.Expected{}, nil, cli.Usagef("--content-digest: %w", err)
		}
		want.ContentDigest, compared = &parsed, append(compared, "content_digest")
	}
	return want, compared, nil
}
