package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/image"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/luks"
)

// rekeyedDisk is what `image rekey --json` and `image add-recovery-key --json` print.
type rekeyedDisk struct {
	DiskUUID     string        `json:"disk_uuid"`
	HeaderPin    luks.Pin      `json:"header_pin"`
	KeySlot      int           `json:"key_slot"`
	OldHeaderPin *luks.Pin     `json:"old_header_pin,omitempty"` // this and what follows: with --reencrypt
	Content      *image.Digest `json:"content_digest,omitempty"`
	Written      int64         `json:"written,omitempty"`
	FileSize     int64         `json:"file_size,omitempty"`
	LeftOut      []int         `json:"left_out_key_slots,omitempty"`
}

// rekeyFlags are the flags of image rekey.
type rekeyFlags struct {
	keyFile, newKeyFile string
	iterations          int
	reencrypt           bool
	output              string
	record, newRecord   string
	asJSON              bool
}

func (a *app) imageRekeyCommand() *cobra.Command {
	var f rekeyFlags
	cmd := &cobra.Command{
		Use:   "rekey DISK --key-file FILE --new-key-file FILE",
		Short: "Change a finished disk's passphrase, or its volume key",
		Long: `rekey replaces the passphrase in --key-file by the one in --new-key-file, in place: in a QCOW2 image, a
raw image or a block device that nothing else has open. Killed at any moment, the disk opens with the old passphrase or
with the new one; run it again then. The boot record holds on, since the header pin does not cover key slots. From then on
the key server must hand out the new passphrase.

With --reencrypt, rekey leaves DISK as it is and writes the same disk with a new volume key to --output, a QCOW2 image
that appears when it is whole. The disk's UUID stays, since the firmware asks for it, so that firmware and launch
digests hold on. The header pin changes: the key server needs a new boot record, which --record and --new-record
make. Key slots of other passphrases are not carried over. What was free in the old image takes no room in the new one.
Without --new-key-file the passphrase stays the same; then an old copy of the disk still opens with it, and so does any
disk that somebody makes who knows the old volume key. Give a new one if that could be known.

The slot is made as by image build: with 1000 PBKDF2 iterations for a passphrase of at least 32 bytes, 600000 for a shorter one.

Exit code 3: the passphrase does not open the disk, or the record is of another one.

With --json: disk_uuid, header_pin, key_slot; with --reencrypt also old_header_pin, content_digest, written, file_size,
left_out_key_slots.`,
		Example: `  head -c 32 /dev/urandom > new
  sealboot image rekey disk.qcow2 --key-file passphrase --new-key-file new
  sealboot image rekey /dev/sdx --key-file passphrase --new-key-file new
  sealboot image rekey disk.qcow2 --key-file passphrase --new-key-file new --reencrypt --output new.qcow2 \
      --record record.json --new-record new-record.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.rekey(cmd.Context(), args[0], f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.keyFile, "key-file", "", "file with a passphrase that opens the disk (- for standard input)")
	flags.StringVar(&f.newKeyFile, "new-key-file", "", "file with the new passphrase (- for standard input)")
	flags.IntVar(&f.iterations, "iterations", 0, "PBKDF2 iterations of the key slot (by the passphrase's length)")
	flags.BoolVar(&f.reencrypt, "reencrypt", false, "write the disk anew, with another volume key, to --output")
	flags.StringVar(&f.output, "output", "", "disk image to write, with --reencrypt")
	flags.StringVar(&f.record, "record", "", "boot record of the disk, to make a new one from, with --reencrypt")
	flags.StringVar(&f.newRecord, "new-record", "", "boot record to write, with --record")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	cmd.MarkFlagRequired("key-file")
	cmd.MarkFlagsRequiredTogether("record", "new-record")
	cmd.MarkFlagsRequiredTogether("reencrypt", "output")
	return cmd
}

func (a *app) rekey(ctx context.Context, path string, f rekeyFlags) error {
	switch {
	case f.keyFile == "-" && f.newKeyFile == "-":
		return cli.Usagef("only one passphrase can come from standard input")
	case !f.reencrypt && f.newKeyFile == "":
		return cli.Usagef("no new passphrase: give --new-key-file FILE, or - for standard input")
	case f.record != "" && !f.reencrypt:
		return cli.Usagef("--record is for --reencrypt: a change of passphrase leaves the boot record as it is")
	}
	passphrase, err := cli.ReadKeyFile(f.keyFile, a.stdin)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	added := passphrase
	if f.newKeyFile != "" {
		if added, err = cli.ReadKeyFile(f.newKeyFile, a.stdin); err != nil {
			return err
		}
		defer clear(added)
	}
	kdf := a.kdfFor(added, f.iterations)
	if err := kdf.Validate(); err != nil {
		return cli.Usagef("--iterations: %w", err)
	}
	if f.reencrypt {
		return a.reencrypt(ctx, path, f, passphrase, added, kdf)
	}
	if bytes.Equal(passphrase, added) {
		return cli.Usagef("the new passphrase is the old one")
	}
	done, err := changeImage(path, func(file *os.File, size int64) (*image.KeyChange, error) {
		done, err := image.ChangeKey(ctx, file, size, passphrase, added, kdf, rand.Reader)
		if errors.Is(err, luks.ErrNoKey) && opensWith(ctx, file, size, added) == nil {
			err = fmt.Errorf("%w, but with the new one: it was changed already", err)
		}
		return done, err
	})
	if err != nil {
		return err
	}
	return a.printKeyChange(done, f.asJSON)
}

// opensWith tries a passphrase on a disk, and changes nothing.
func opensWith(ctx context.Context, file io.ReaderAt, size int64, passphrase []byte) error {
	d, err := image.Open(ctx, file, size)
	if err != nil {
		return err
	}
	_, key, err := d.Header.Unlock(passphrase)
	if err == nil {
		key.Wipe()
	}
	return err
}

func (a *app) printKeyChange(done *image.KeyChange, asJSON bool) error {
	if asJSON {
		return printJSON(a.stdout, rekeyedDisk{DiskUUID: done.DiskUUID, HeaderPin: done.HeaderPin, KeySlot: done.KeySlot})
	}
	_, err := fmt.Fprintf(a.stdout, "key slot    %d\nUUID        %s\nheader pin  %s, as before\n", done.KeySlot, done.DiskUUID, done.HeaderPin)
	return err
}

// changeImage opens a disk that nothing else may have open, and changes it in place.
func changeImage(path string, change func(*os.File, int64) (*image.KeyChange, error)) (*image.KeyChange, error) {
	signal.Ignore(syscall.SIGXFSZ) // as in buildImage
	f, size, err := openAlone(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	done, err := change(f, size)
	if err != nil {
		return nil, imageErr(path, err)
	}
	return done, nil
}

// imageErr gives a wrong passphrase the exit code of a clear no.
func imageErr(path string, err error) error {
	if errors.Is(err, luks.ErrNoKey) {
		return cli.Refusef("%s: %w", path, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}
