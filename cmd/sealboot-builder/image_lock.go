package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Where QEMU locks an image file that it has open (block/file-posix.c: RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE): a byte
// for each right that it uses, and one for each that it grants to nobody else.
const (
	qemuUses   = 100
	qemuKeeps  = 200
	qemuRights = 100 // room for them
	qemuWrite  = 1   // the right to write (include/block/block-common.h: BLK_PERM_WRITE is bit 1)
)

var errInUse = errors.New("another program, such as QEMU, has it open for writing: shut the machine down first")

// openAlone opens an image for writing and locks it, for other runs of ours and for QEMU.
func openAlone(path string) (*os.File, int64, error) {
	// O_EXCL: no device that is in use. O_NONBLOCK: a pipe without its other end would be waited for.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_EXCL|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	size, err := lockAlone(f)
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	return f, size, nil
}

func lockAlone(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Mode()&(os.ModeNamedPipe|os.ModeCharDevice|os.ModeDir) != 0 {
		return 0, errors.New("neither a file nor a disk")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return 0, fmt.Errorf("somebody else is changing it: %w", err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: qemuUses, Len: qemuKeeps + qemuRights - qemuUses}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return 0, errors.New("another program, such as QEMU, has it open: shut the machine down first")
	} else if err != nil {
		return 0, fmt.Errorf("lock: %w", err)
	}
	return f.Seek(0, io.SeekEnd) // of a device too
}

// lockReading keeps QEMU from writing while an image is read, and refuses one that it writes to.
func lockReading(f *os.File) error {
	keep := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: qemuKeeps + qemuWrite, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &keep); errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return errInUse
	} else if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	writer := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: qemuUses + qemuWrite, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &writer); err != nil {
		return fmt.Errorf("look for locks: %w", err)
	}
	if writer.Type != unix.F_UNLCK {
		return errInUse
	}
	return nil
}
