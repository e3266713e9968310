package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/image"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/internal/progress"
	"github.com/sealboot/sealboot/luks"
)

const (
	// strongPassphrase is how many bytes a generated passphrase has: 256 bits, in whatever form.
	// A shorter one is taken for one that a person chose.
	strongPassphrase = 32
	// stretched is OWASP's advice of 2023 for PBKDF2-HMAC-SHA256 (Password Storage Cheat Sheet).
	stretched = 600_000
)

// builtDisk is what `image build --json` prints.
type builtDisk struct {
	DiskUUID      string       `json:"disk_uuid"`
	HeaderPin     luks.Pin     `json:"header_pin"`
	ContentDigest image.Digest `json:"content_digest"`
	DiskSize      int64        `json:"disk_size"`
	PayloadSize   int64        `json:"payload_size"`
	Written       int64        `json:"written"`
	FileSize      int64        `json:"file_size"`
	PartitionID   string       `json:"partition_id"`
	KernelWords   string       `json:"kernel_words,omitempty"`
}

func (a *app) imageBuildCommand() *cobra.Command {
	var spec image.Spec
	var size, bootSize cli.ByteSize
	var shape shapeFlags
	var keyFile, output string
	var iterations int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "build --source PATH --key-file FILE --size SIZE --output FILE",
		Short: "Make an encrypted disk from a folder, an archive, a container image or a disk image",
		Long: `build makes a QCOW2 disk with one LUKS2 partition, and in it the ext4 file system
that the folder, archive or container image (an OCI layout or archive, for linux/amd64) describes,
with owners, modes, times, links, devices and extended attributes; or the root's file system of a disk image, raw or QCOW2, or
of an image of its own, block for block as it is. Into ext4 is put what it mounts at /boot. Before XFS and Btrfs stands a boot volume, an
ext4 file system with what is in /boot, and with what is added to the root, in /sealboot/install: the agent copies that at the first boot. The
kernel's command line then has to say what kind of root it is, as sealboot build does. build needs neither root nor loop devices, and writes
only what is in use. The output appears when it is whole.

A raw disk may go to a block device that nobody uses: it then has the device's size, and the device's other bytes
become zeros. What is on the device is only written over with --force. Its partition table is written last.

The key file's exact bytes are the passphrase. GRUB opens the disk with it, so its key slot is
PBKDF2: with 1000 iterations for a passphrase of at least 32 bytes, which should be random
(head -c 32 /dev/urandom), with 600000 for a shorter one, which costs GRUB some 10 seconds.

The same source, size, --uuid and SOURCE_DATE_EPOCH (the time of the file system and of files that have
none; 0 if not set) give the same content digest.

With --json: disk_uuid, header_pin, content_digest, disk_size, payload_size, written, file_size, partition_id, and for XFS and Btrfs
kernel_words, what the kernel's command line has to say.`,
		Example: `  sealboot image build --source rootfs.tar --key-file passphrase --size 4G --output disk.qcow2
  sealboot image build --source root.ext4 --key-file passphrase --output disk.qcow2 --json
  sealboot image build --source disk.img --key-file passphrase --format raw --output /dev/vg/guest`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			passphrase, err := cli.ReadKeyFile(keyFile, a.stdin)
			if err != nil {
				return err
			}
			defer clear(passphrase)
			spec.Size, spec.BootSize = int64(size), int64(bootSize)
			spec.LUKS.KDF = a.kdfFor(passphrase, iterations)
			if spec.Time, err = sourceDate(); err != nil {
				return err
			}
			spec.Output = shape.output()
			result, err := a.buildImage(cmd.Context(), spec, passphrase, output)
			if err != nil {
				return err
			}
			built := builtDisk{
				DiskUUID: result.DiskUUID, HeaderPin: result.HeaderPin, ContentDigest: result.ContentDigest, DiskSize: result.DiskSize,
				PayloadSize: result.PayloadSize, Written: result.Written, FileSize: result.FileSize, PartitionID: result.PartitionID.String(),
				KernelWords: result.KernelWords,
			}
			if built.KernelWords != "" {
				fmt.Fprintf(a.stderr, "sealboot: the kernel has to be told: %s (sealboot grub build --append does)\n", built.KernelWords)
			}
			if asJSON {
				return printJSON(a.stdout, built)
			}
			fmt.Fprintf(a.stdout, "disk            %s, %s written, in a file of %s\nUUID            %s\nheader pin      %s\ncontent digest  %s\n",
				progress.Bytes(built.DiskSize), progress.Bytes(built.Written), progress.Bytes(built.FileSize), built.DiskUUID, built.HeaderPin, built.ContentDigest)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&spec.Source, "source", "", "folder, tar archive (plain, gzip, xz, zstd), container image, disk image (raw, QCOW2) or file system image (ext4, XFS, Btrfs)")
	flags.IntVar(&spec.RootPartition, "root-partition", 0, "number of a disk image's partition that is the root (default: found by type, label or content)")
	rootFlags(cmd, &spec.RootSubvolume, &bootSize)
	flags.StringArrayVar(&spec.Kernels, "kernel", nil, "add the kernel and modules of this Debian package, folder or archive; may be repeated")
	flags.StringVar(&keyFile, "key-file", "", "file with the passphrase (- for standard input)")
	flags.Var(&size, "size", "size of the disk, as 4G; may be left out for a disk or file system image")
	flags.StringVar(&output, "output", "", "disk image, or with --format raw block device, to write")
	shape.addRaw(cmd)
	shape.add(cmd)
	flags.StringVar(&spec.Label, "label", "", "label of the ext4 file system that is made")
	flags.BoolVar(&spec.AllRoot, "all-root", false, "give every file to root, as for a folder that an ordinary user unpacked")
	flags.StringVar(&spec.LUKS.UUID, "uuid", "", "UUID of the LUKS header (random)")
	flags.IntVar(&spec.LUKS.SectorSize, "sector-size", 4096, "sector size of the encryption: 512 or 4096")
	flags.IntVar(&iterations, "iterations", 0, "PBKDF2 iterations of the key slot (by the passphrase's length)")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	for _, name := range []string{"source", "key-file", "output"} {
		cmd.MarkFlagRequired(name)
	}
	cmd.RegisterFlagCompletionFunc("sector-size", cobra.FixedCompletions([]string{"512", "4096"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// buildImage builds under the output's name.
func (a *app) buildImage(ctx context.Context, spec image.Spec, passphrase []byte, output string) (*image.Result, error) {
	// A limit on file sizes (ulimit -f) then is an error of the write, not the process's end.
	signal.Ignore(syscall.SIGXFSZ)
	out, err := createDisk(output)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	line := progress.New(a.stderr)
	defer line.Clear()
	result, err := image.Build(ctx, spec, passphrase, out.file(), rand.Reader, line.Stage("encrypt"))
	if errors.Is(err, image.ErrHolds) {
		return nil, fmt.Errorf("%w: --force writes over it", err)
	} else if err != nil {
		return nil, fmt.Errorf("build %s: %w", output, err)
	}
	if r := result.Repairs; r.Transactions > 0 || r.Orphans > 0 || len(r.TurnedOff) > 0 {
		line.Clear()
		fmt.Fprintf(a.stderr, "sealboot: in the copy of the root's file system %d transactions were replayed, %d files deleted while open were freed, features were turned off: %s\n",
			r.Transactions, r.Orphans, cmp.Or(strings.Join(r.TurnedOff, ", "), "none"))
	}
	return result, out.Commit()
}

// kdfFor stretches a passphrase that a person may have chosen.
func (a *app) kdfFor(passphrase []byte, iterations int) luks.KDF {
	kdf := luks.MinimalPBKDF2
	switch {
	case iterations != 0:
		kdf.Iterations = iterations
	case len(passphrase) < strongPassphrase:
		kdf.Iterations = stretched
		fmt.Fprintf(a.stderr, "sealboot: the passphrase has only %d bytes: its key slot takes %d iterations, which GRUB spends some seconds on\n", len(passphrase), stretched)
	}
	return kdf
}

// sourceDate is SOURCE_DATE_EPOCH (reproducible-builds.org), or the zero Time.
func sourceDate() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, cli.Usagef("SOURCE_DATE_EPOCH=%q is not a number of seconds", text)
	}
	return time.Unix(seconds, 0), nil
}
