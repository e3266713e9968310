package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/luks"
)

// minimalPassphrase is the least length of a passphrase that is not stretched: 256 bits, if
// they are random.
const minimalPassphrase = 32

// kdfFlags choose how a passphrase is stretched.
type kdfFlags struct {
	kind                       string
	memory                     cli.ByteSize
	time, parallel, iterations int
}

func (k *kdfFlags) addTo(cmd *cobra.Command) {
	d := luks.DefaultArgon2id
	k.memory = cli.ByteSize(d.MemoryKiB) << 10
	flags := cmd.Flags()
	flags.StringVar(&k.kind, "kdf", "argon2id", "how the passphrase is stretched: argon2id, pbkdf2, or minimal (for 32 random bytes or more; opens at once in GRUB)")
	flags.Var(&k.memory, "kdf-memory", "memory of argon2id, up to 1G")
	flags.IntVar(&k.time, "kdf-time", d.Time, "passes of argon2id")
	flags.IntVar(&k.parallel, "kdf-parallel", d.Parallel, "lanes of argon2id")
	flags.IntVar(&k.iterations, "kdf-iterations", 1_000_000, "iterations of pbkdf2")
	_ = cmd.RegisterFlagCompletionFunc("kdf", cobra.FixedCompletions([]string{"argon2id", "pbkdf2", "minimal"}, cobra.ShellCompDirectiveNoFileComp))
}

// choose gives the KDF for a passphrase.
func (k *kdfFlags) choose(passphrase []byte) (luks.KDF, error) {
	switch k.kind {
	case "argon2id":
		return luks.KDF{Type: luks.Argon2id, Time: k.time, MemoryKiB: int(k.memory >> 10), Parallel: k.parallel}, nil
	case "pbkdf2":
		return luks.KDF{Type: luks.PBKDF2, Hash: "sha256", Iterations: k.iterations}, nil
	case "minimal":
		if len(passphrase) < minimalPassphrase {
			return luks.KDF{}, cli.Usagef("--kdf minimal does not stretch: the passphrase must have at least %d random bytes, this one has %d (head -c 32 /dev/urandom makes one)",
				minimalPassphrase, len(passphrase))
		}
		return luks.MinimalPBKDF2, nil
	}
	return luks.KDF{}, cli.Usagef("--kdf %q: want argon2id, pbkdf2 or minimal", k.kind)
}

func (a *app) luksFormatCommand() *cobra.Command {
	var (
		spec             luks.Spec
		kdf              kdfFlags
		keyFile          string
		offset           cli.ByteSize
		size, dataOffset cli.ByteSize
		force            bool
	)
	cmd := &cobra.Command{
		Use:   "format FILE --key-file FILE",
		Short: "Make an encrypted disk",
		Long: `Make a LUKS2 header with a new volume key in key slot 0, and print the disk's UUID. The data
behind it is not written.

FILE is a device or a file. One that does not exist is made, of --size bytes. One that
exists is refused (exit code 3) if it holds anything where the header goes, unless --force is given: then
all that was there is lost.`,
		Example: `  sealboot luks format disk --size 4G --key-file passphrase
  head -c 32 /dev/urandom > key && sealboot luks format /dev/sdx --key-file key --kdf minimal`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			passphrase, err := cli.ReadKeyFile(keyFile, a.stdin)
			if err != nil {
				return err
			}
			defer clear(passphrase)
			spec.DataOffset = int64(dataOffset)
			if spec.KDF, err = kdf.choose(passphrase); err != nil {
				return err
			}
			if err := spec.Validate(); err != nil {
				return cli.Usagef("%w", err)
			}
			h, key, err := luks.Format(spec, passphrase, rand.Reader)
			if err != nil {
				return err
			}
			key.Wipe()
			if _, err := os.Lstat(args[0]); errors.Is(err, os.ErrNotExist) && size > 0 {
				err = makeDisk(args[0], h, int64(offset), int64(size))
				if err != nil {
					return err
				}
			} else if size > 0 {
				return cli.Usagef("--size is for a new file: %s exists", args[0])
			} else if err := installHeader(args[0], h, int64(offset), force); err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, h.UUID())
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&keyFile, "key-file", "", "file with the passphrase, - for standard input")
	flags.Var(&size, "size", "make FILE, of this size, such as 4G")
	flags.StringVar(&spec.Label, "label", "", "label of the disk")
	flags.StringVar(&spec.UUID, "uuid", "", "UUID of the disk (default: a random one)")
	flags.IntVar(&spec.SectorSize, "sector-size", 4096, "bytes that are encrypted at a time: 512 or 4096")
	flags.Var(&dataOffset, "data-offset", "where the data begins (default: 16M)")
	flags.BoolVar(&force, "force", false, "overwrite what FILE holds")
	offset.AddOffset(cmd)
	kdf.addTo(cmd)
	_ = cmd.RegisterFlagCompletionFunc("sector-size", cobra.FixedCompletions([]string{"512", "4096"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// makeDisk makes a file, sparse behind the header.
func makeDisk(path string, h *luks.Header, offset, size int64) error {
	if need := offset + h.Segment().Offset; size < need {
		return cli.Usagef("--size %d: the data begins only at %d", size, need)
	}
	image, err := h.Encode()
	if err != nil {
		return err
	}
	f, err := atomicfile.Create(path, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	if _, err := f.WriteAt(image, offset); err != nil {
		return err
	}
	return f.Commit()
}

// installHeader writes the header in place.
func installHeader(path string, h *luks.Header, offset int64, force bool) error {
	f, err := openLUKSFile(path, offset, os.O_RDWR|os.O_EXCL) // O_EXCL: no device that is in use
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: give --size to make it", err)
	} else if err != nil {
		return err
	}
	defer f.Close()
	data := h.Segment().Offset
	if f.size < data {
		return fmt.Errorf("%s: the data begins only at %d of %d bytes", path, data, f.size)
	}
	if !force {
		empty, err := isEmpty(io.NewSectionReader(f, 0, data))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if !empty {
			return cli.Refusef("%s holds something in the first %d bytes: --force overwrites it", path, data)
		}
	}
	if err := h.Install(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func isEmpty(r io.Reader) (bool, error) {
	b := make([]byte, 1<<16)
	for {
		n, err := r.Read(b)
		for _, c := range b[:n] {
			if c != 0 {
				return false, nil
			}
		}
		if err == io.EOF {
			return true, nil
		} else if err != nil {
			return false, err
		}
	}
}
