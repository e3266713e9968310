package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/sealboot/sealboot/image"
	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/internal/progress"
	"github.com/sealboot/sealboot/luks"
	"github.com/sealboot/sealboot/measure"
)

func (a *app) reencrypt(ctx context.Context, path string, f rekeyFlags, passphrase, added []byte, kdf luks.KDF) error {
	var record *measure.Record
	if f.record != "" {
		var err error
		if record, err = cli.ReadRecord(f.record); err != nil {
			return err
		}
	}
	made, err := a.reencryptImage(ctx, path, f.output, image.Rekeying{Passphrase: passphrase, NewPassphrase: added, KDF: kdf}, record)
	if err != nil {
		return err
	}
	if record != nil {
		record.Disk = measure.Disk{
			UUID: made.DiskUUID, HeaderPin: measure.Hash(made.HeaderPin), ContentDigest: measure.Hash(made.ContentDigest),
		}
		encoded, err := record.Encode()
		if err == nil {
			err = atomicfile.WriteFile(f.newRecord, encoded, 0o644)
		}
		if err != nil {
			return fmt.Errorf("%s is whole, but its boot record could not be written: %w", f.output, err)
		}
	}
	if len(made.LeftOut) > 0 {
		fmt.Fprintf(a.stderr, "sealboot: the passphrases of key slots %v of %s do not open the new disk: give it a recovery key again (sealboot image add-recovery-key)\n", made.LeftOut, path)
	}
	if bytes.Equal(passphrase, added) {
		fmt.Fprintf(a.stderr, "sealboot: the passphrase is the same: whoever knows the old volume key can still make a disk that opens with it; --new-key-file changes it\n")
	}
	if f.asJSON {
		return printJSON(a.stdout, rekeyedDisk{
			DiskUUID: made.DiskUUID, HeaderPin: made.HeaderPin, OldHeaderPin: &made.OldHeaderPin, Content: &made.ContentDigest,
			Written: made.Written, FileSize: made.FileSize, LeftOut: made.LeftOut,
		})
	}
	fmt.Fprintf(a.stdout, "disk            %s, %s written, in a file of %s\nUUID            %s, as before\nheader pin      %s\n  it was        %s\ncontent digest  %s\n",
		progress.Bytes(made.DiskSize), progress.Bytes(made.Written), progress.Bytes(made.FileSize), made.DiskUUID, made.HeaderPin, made.OldHeaderPin, made.ContentDigest)
	if record == nil {
		fmt.Fprintf(a.stderr, "next: a boot record with the new header pin (--record and --new-record make one, sealboot measure does), and sealboot keyserver register\n")
	}
	return nil
}

// reencryptImage writes the new disk under the output's name. A record, if there is one, must be of the old disk.
func (a *app) reencryptImage(ctx context.Context, path, output string, r image.Rekeying, record *measure.Record) (*image.Reencrypted, error) {
	signal.Ignore(syscall.SIGXFSZ)
	f, size, err := openImage(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := lockReading(f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if record != nil {
		d, err := image.Open(ctx, f, size)
		if err != nil {
			return nil, imageErr(path, err)
		}
		if d.Header.UUID() != record.Disk.UUID || !d.Header.Pin().Equal(luks.Pin(record.Disk.HeaderPin)) {
			return nil, cli.Refusef("the boot record is of another disk than %s: UUID %s, header pin %s", path, record.Disk.UUID, luks.Pin(record.Disk.HeaderPin))
		}
	}
	out, err := atomicfile.Create(output, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	line := progress.New(a.stderr)
	defer line.Clear()
	made, err := image.Reencrypt(ctx, f, size, r, out.File, rand.Reader, line.Stage("reencrypt"))
	if err != nil {
		return nil, imageErr(path, err)
	}
	return made, out.Commit()
}
