package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"syscall"

	"github.com/sealboot/sealboot/image/qcow2"
)

// container is the disk in an image file: QCOW2, or raw, where the disk's bytes are the file's.
type container interface {
	io.ReaderAt
	Size() int64
	// Allocated calls f for every run of bytes that may hold something, in ascending order.
	Allocated(f func(off, n int64) error) error
}

// Format is the kind of an image file.
type Format string

const (
	QCOW2 Format = "qcow2"
	Raw   Format = "raw"
)

// openContainer tells the kinds apart by the file's first bytes, never by its name. QCOW2's magic number cannot begin a
// disk that boots: code that a PC's firmware would start has other bytes there, and ours has zeros.
func openContainer(ctx context.Context, file io.ReaderAt, size int64) (container, Format, *qcow2.Summary, error) {
	head := make([]byte, min(4, max(size, 0)))
	if n, err := file.ReadAt(head, 0); err != nil && (!errors.Is(err, io.EOF) || n < len(head)) {
		return nil, "", nil, err
	}
	if !bytes.Equal(head, []byte("QFI\xfb")) { // QEMU: docs/interop/qcow2.rst
		disk := &raw{file, size}
		summary := &qcow2.Summary{DiskSize: size}
		err := disk.Allocated(func(_, n int64) error { summary.Allocated += n; return nil })
		return disk, Raw, summary, err
	}
	disk, err := qcow2.Open(file, size)
	if err != nil {
		return nil, "", nil, err
	}
	summary, err := disk.Check(ctx)
	if err != nil {
		return nil, "", nil, err
	}
	return disk, QCOW2, summary, nil
}

// raw is a disk as it is: a file with holes, or a block device.
type raw struct {
	io.ReaderAt
	size int64
}

func (r *raw) Size() int64 { return r.size }

// From lseek(2): Linux, include/uapi/linux/fs.h.
const (
	seekData = 3
	seekHole = 4
)

// Allocated leaves a file's holes out. Where holes cannot be told, all may hold something.
func (r *raw) Allocated(f func(off, n int64) error) error {
	file, ok := r.ReaderAt.(*os.File)
	for at := int64(0); at < r.size; {
		from, to := at, r.size
		if ok {
			var err error
			if from, to, err = nextData(file, at); errors.Is(err, syscall.ENXIO) {
				return nil // nothing but a hole follows
			} else if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
				from, to = at, r.size // a device, or a file system that does not know
			} else if err != nil {
				return fmt.Errorf("look for holes: %w", err)
			}
		}
		to = min(to, r.size)
		if from >= to {
			return nil
		}
		if err := f(from, to-from); err != nil {
			return err
		}
		at = to
	}
	return nil
}

func nextData(file *os.File, at int64) (from, to int64, err error) {
	if from, err = file.Seek(at, seekData); err != nil {
		return 0, 0, err
	}
	if to, err = file.Seek(from, seekHole); err != nil {
		return 0, 0, err
	}
	if from < at || to <= from || to > math.MaxInt64-1 {
		return 0, 0, syscall.EINVAL
	}
	return from, to, nil
}
