package main

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/image"
	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/luks"
)

func (a *app) imageAddRecoveryKeyCommand() *cobra.Command {
	var keyFile, newKeyFile, output string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "add-recovery-key DISK --key-file FILE (--output FILE | --new-key-file FILE)",
		Short: "Let a passphrase for people open a finished disk too",
		Long: `add-recovery-key puts a second passphrase into a free key slot, in place, as crash-safe as rekey. The slot is made
for people: Argon2id with 256 MiB of memory, which GRUB cannot open; the machine goes on to start with the passphrase that
it has. cryptsetup and sealboot open the disk with it. The boot record holds on.

With --output the passphrase is made: 160 random bits as 32 letters and digits, in groups of four. It is written to the
file, which must not exist, and shown nowhere else. Type it with the dashes, in lower case: the exact bytes of the file are
the passphrase. With --new-key-file it is yours.

sealboot image inspect lists the key slots. Exit code 3: the passphrase in --key-file does not open the disk.

With --json: disk_uuid, header_pin, key_slot.`,
		Example: `  sealboot image add-recovery-key disk.qcow2 --key-file passphrase --output recovery
  sealboot image cat disk.qcow2 --key-file recovery /etc/fstab`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if keyFile == "-" && newKeyFile == "-" {
				return cli.Usagef("only one passphrase can come from standard input")
			}
			passphrase, err := cli.ReadKeyFile(keyFile, a.stdin)
			if err != nil {
				return err
			}
			defer clear(passphrase)
			done, err := changeImage(args[0], func(f *os.File, size int64) (*image.KeyChange, error) {
				// Looked at first, so that no passphrase is made that opens nothing.
				if err := opensWith(cmd.Context(), f, size, passphrase); err != nil {
					return nil, err
				}
				added, err := a.recoveryKey(output, newKeyFile)
				if err != nil {
					return nil, err
				}
				defer clear(added)
				done, err := image.AddKey(cmd.Context(), f, size, passphrase, added, luks.DefaultArgon2id, rand.Reader)
				if err != nil && output != "" {
					err = fmt.Errorf("%w: the passphrase in %s may open it all the same", err, output)
				}
				return done, err
			})
			if err != nil {
				return err
			}
			return a.printKeyChange(done, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&keyFile, "key-file", "", "file with a passphrase that opens the disk (- for standard input)")
	flags.StringVar(&newKeyFile, "new-key-file", "", "file with the recovery passphrase (- for standard input)")
	flags.StringVar(&output, "output", "", "new file for a recovery passphrase that is made")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagRequired("key-file")
	cmd.MarkFlagsOneRequired("new-key-file", "output")
	cmd.MarkFlagsMutuallyExclusive("new-key-file", "output")
	return cmd
}

// recoveryKey makes a passphrase, or reads the one that is given.
func (a *app) recoveryKey(output, newKeyFile string) ([]byte, error) {
	if output != "" {
		return newRecoveryKey(output, rand.Reader)
	}
	return cli.ReadKeyFile(newKeyFile, a.stdin)
}

const (
	recoveryBytes = 20 // 160 bits: 32 digits of base32, without a rest
	recoveryGroup = 4
)

// lowerBase32 is RFC 4648's alphabet, which has no digits that look like letters, in lower case.
var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567")

// newRecoveryKey makes a passphrase that people can read and type, and writes it to a new file before anything opens
// with it.
func newRecoveryKey(output string, random io.Reader) ([]byte, error) {
	if _, err := os.Lstat(output); err == nil {
		return nil, fmt.Errorf("%s is already there: give a name that is free", output)
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	raw := make([]byte, recoveryBytes)
	defer clear(raw)
	if _, err := io.ReadFull(random, raw); err != nil {
		return nil, fmt.Errorf("make recovery passphrase: %w", err)
	}
	digits := make([]byte, lowerBase32.EncodedLen(len(raw)))
	defer clear(digits)
	lowerBase32.Encode(digits, raw)
	var key []byte
	for i := 0; i < len(digits); i += recoveryGroup {
		if i > 0 {
			key = append(key, '-')
		}
		key = append(key, digits[i:i+recoveryGroup]...)
	}
	return key, atomicfile.WriteFile(output, key, 0o600)
}
