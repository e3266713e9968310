package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/luks"
)

func (a *app) luksCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "luks",
		Short: "Make, look at and change the headers of encrypted disks",
		Long: `Make LUKS2 headers on plain files or devices, look at them, and change their passphrases.
No root, loop device or device-mapper is needed for a file.

Passphrases come from files, as exact bytes: a line end at the end of the file counts.
A dash stands for standard input.

Changes are crash-safe: whenever they are interrupted, the disk opens with the old
passphrase or with the new one. Argon2 key slots that ask for more than 1 GiB of memory
or 16 lanes, and PBKDF2 key slots of more than 100,000,000 iterations, are refused.`,
	}
	cmd.AddCommand(a.luksFormatCommand(), a.luksDumpCommand(), a.luksOpenCommand(),
		a.luksAddKeyCommand(), a.luksChangeKeyCommand(), a.luksRemoveKeyCommand())
	return cmd
}

// luksFile is a file or device in which a LUKS disk begins at some offset.
type luksFile struct {
	file *os.File
	base int64 // where the disk begins
	size int64 // from there
}

// openLUKSFile opens a file or device with the flags of os.OpenFile, and locks it for
// itself if it is to be written.
func openLUKSFile(path string, base int64, mode int) (*luksFile, error) {
	f, err := os.OpenFile(path, mode|syscall.O_NONBLOCK, 0) // a pipe without its other end would wait for it
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil {
		f.Close()
		return nil, err
	} else if info.Mode()&(os.ModeNamedPipe|os.ModeCharDevice|os.ModeDir) != 0 {
		f.Close()
		return nil, fmt.Errorf("%s is neither a file nor a disk", path)
	}
	l := &luksFile{file: f, base: base}
	if mode&os.O_RDWR != 0 {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: somebody else is changing it: %w", path, err)
		}
	}
	end, err := f.Seek(0, io.SeekEnd) // of a device too
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: size: %w", path, err)
	}
	if base < 0 || base > end {
		f.Close()
		return nil, cli.Usagef("--offset %d is outside %s, which has %d bytes", base, path, end)
	}
	l.size = end - base
	return l, nil
}

func (l *luksFile) ReadAt(p []byte, at int64) (int, error)  { return l.file.ReadAt(p, l.base+at) }
func (l *luksFile) WriteAt(p []byte, at int64) (int, error) { return l.file.WriteAt(p, l.base+at) }
func (l *luksFile) Sync() error                             { return l.file.Sync() }
func (l *luksFile) Close() error                            { return l.file.Close() }

// openHeader opens the file and reads the header, and warns when only one copy of it is whole.
func (a *app) openHeader(path string, offset cli.ByteSize, change bool) (*luksFile, *luks.Header, error) {
	mode := os.O_RDONLY
	if change {
		mode = os.O_RDWR
	}
	f, err := openLUKSFile(path, int64(offset), mode)
	if err != nil {
		return nil, nil, err
	}
	h, err := luks.Read(f, f.size)
	if err != nil {
		if errors.Is(err, luks.ErrNotLUKS) {
			err = fmt.Errorf("%w%s", err, f.advice())
		}
		f.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if s := h.Status(); s.Other != nil {
		fmt.Fprintf(a.stderr, "sealboot: warning: %s: used the %v copy of the header, the other one: %v\n", path, s.Used, s.Other)
	}
	return f, h, nil
}

// advice says what to do with a file that is not LUKS but something else that is known.
func (l *luksFile) advice() string {
	start := make([]byte, 520)
	n, _ := l.ReadAt(start, 0) // what cannot be read is not known
	switch start = start[:n]; {
	case bytes.HasPrefix(start, []byte("QFI\xfb")): // QEMU: docs/interop/qcow2.rst
		return " but a QCOW2 image: see sealboot image inspect"
	case n == 520 && bytes.Equal(start[512:], []byte("EFI PART")): // UEFI 2.10, section 5.3.2
		return " but a disk with partitions: say where the encrypted one begins, such as --offset 1M"
	}
	return ""
}

// luksErr gives a refusal by the disk the exit code of a clear no.
func luksErr(path string, err error) error {
	for _, no := range []error{luks.ErrNoKey, luks.ErrLastKey} {
		if errors.Is(err, no) {
			return cli.Refusef("%s: %w", path, err)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
