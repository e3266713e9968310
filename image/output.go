package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/image/qcow2"
)

// Preallocation is room in the image file for what is not written. The names are qemu-img's.
type Preallocation string

const (
	PreallocationOff      Preallocation = "off"
	PreallocationMetadata Preallocation = "metadata" // QCOW2: all clusters have their places; the file has holes
	PreallocationFalloc   Preallocation = "falloc"   // and the file system keeps room for them
	PreallocationFull     Preallocation = "full"     // and zeros are written there
)

// Output says what the image file is like. The zero Output is QCOW2 without preallocation.
type Output struct {
	Format        Format        // "" is QCOW2
	ClusterSize   int64         // of QCOW2; 0: qcow2.ClusterSize
	Preallocation Preallocation // "" is off
	// Fill writes the whole payload: nobody sees which of it the file system uses.
	Fill bool
	// Force writes over what a block device holds.
	Force bool
}

// ErrHolds says that a block device holds something, and that Output.Force is not set.
var ErrHolds = errors.New("something is on the block device")

// Validate says what is wrong with the Output.
func (o Output) Validate() error {
	switch {
	case o.Format != "" && o.Format != QCOW2 && o.Format != Raw:
		return fmt.Errorf("format %q: want %s or %s", o.Format, QCOW2, Raw)
	case o.Format == Raw && o.ClusterSize != 0:
		return errors.New("a raw disk has no clusters")
	case o.Format == Raw && o.Preallocation == PreallocationMetadata:
		return errors.New("a raw disk has no metadata to preallocate")
	}
	switch o.Preallocation {
	case "", PreallocationOff, PreallocationMetadata, PreallocationFalloc, PreallocationFull:
	default:
		return fmt.Errorf("preallocation %q: want %s, %s, %s or %s", o.Preallocation, PreallocationOff, PreallocationMetadata, PreallocationFalloc, PreallocationFull)
	}
	return nil
}

func (o Output) preallocates() bool {
	return o.Preallocation != "" && o.Preallocation != PreallocationOff
}

// target is a disk that is being written, from several goroutines.
type target interface {
	io.ReaderAt
	io.WriterAt
	Reserve(off, n int64) error // gives a range its place in the file
	Close() error               // ends the disk; the file stays open
}

// begin makes the target in out: an empty file, or a block device of the disk's size.
func (o Output) begin(out uncached, size int64) (target, error) {
	info, err := out.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		d := &device{file: out, size: size, written: make([]uint64, (size/pieceSize+64)/64)}
		if err := d.zero(0, partitionStart); err != nil { // what was there before is no disk any more either
			return nil, err
		}
		return d, out.Sync()
	}
	if o.Format == Raw {
		if err := out.Truncate(size); err != nil {
			return nil, err
		}
		return &rawFile{out}, o.falloc(out.File, size)
	}
	disk, err := qcow2.NewWriterWith(out, size, qcow2.Options{ClusterSize: o.ClusterSize, MapAll: o.preallocates()})
	if err != nil {
		return nil, err
	}
	return disk, o.falloc(out.File, disk.FileSize())
}

// falloc has the file system keep room before anything is written, so that too little of it shows at once.
func (o Output) falloc(out *os.File, size int64) error {
	if o.Preallocation != PreallocationFalloc && o.Preallocation != PreallocationFull {
		return nil
	}
	if err := unix.Fallocate(int(out.Fd()), 0, 0, size); err != nil {
		return fmt.Errorf("keep room for %d bytes in %s: %w", size, out.Name(), err)
	}
	return nil
}

// finish writes zeros where a file has holes, if it is to have none.
func (o Output) finish(ctx context.Context, out uncached, size int64) error {
	if o.Preallocation != PreallocationFull {
		return nil
	}
	zeros := make([]byte, chunkSize)
	fill := func(from, to int64) error {
		for ; from < to; from += chunkSize {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := out.WriteAt(zeros[:min(chunkSize, to-from)], from); err != nil {
				return fmt.Errorf("fill the file: %w", err)
			}
		}
		return nil
	}
	end := int64(0) // of the data before
	err := (&raw{out.File, size}).Allocated(func(off, n int64) error {
		from := end
		end = off + n
		return fill(from, off)
	})
	if err != nil {
		return err
	}
	return fill(end, size)
}

// rawFile is a disk whose bytes are the file's.
type rawFile struct{ uncached }

func (*rawFile) Reserve(int64, int64) error { return nil }
func (*rawFile) Close() error               { return nil } // the file stays open

// device is a block device. What is not written reads as zeros afterwards, whatever was there
// before. The first bytes, with the partition table, are written last of all, after the rest is on the disk:
// until then nothing boots from it.
type device struct {
	file uncached
	size int64

	mu      sync.Mutex
	written []uint64 // a bit for each piece of the disk
	head    []byte   // of the disk
}

func (d *device) ReadAt(p []byte, off int64) (int, error) { return d.file.ReadAt(p, off) }

func (d *device) Reserve(int64, int64) error { return nil }

// WriteAt keeps what it is given for the first bytes of the disk.
func (d *device) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > d.size || int64(len(p)) > d.size-off {
		return 0, fmt.Errorf("write %d bytes at %d of a device of %d", len(p), off, d.size)
	}
	if off < partitionStart && off+int64(len(p)) <= partitionStart {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.head == nil {
			d.head = make([]byte, partitionStart)
		}
		return copy(d.head[off:], p), nil
	}
	if err := d.mark(off, off+int64(len(p))); err != nil {
		return 0, err
	}
	return d.file.WriteAt(p, off)
}

// mark notes a write. A piece that is begun and not written whole becomes zeros first.
func (d *device) mark(from, to int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for piece := from / pieceSize; piece*pieceSize < to; piece++ {
		start, end := piece*pieceSize, min((piece+1)*pieceSize, d.size)
		if d.has(piece) {
			continue
		}
		d.written[piece/64] |= 1 << (piece % 64)
		if from > start || to < end {
			if err := d.zero(start, end); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *device) has(piece int64) bool { return d.written[piece/64]&(1<<(piece%64)) != 0 }

// zero has the kernel write zeros, or the device take them for written (Linux, block/fops.c, blkdev_fallocate).
func (d *device) zero(from, to int64) error {
	err := unix.Fallocate(int(d.file.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	if err != nil {
		return fmt.Errorf("write zeros to %s: %w", d.file.Name(), err)
	}
	return nil
}

// Close writes zeros where nothing was written, and then the beginning.
func (d *device) Close() error {
	const most = 1 << 30 / pieceSize // at a time
	for piece, end := int64(0), (d.size+pieceSize-1)/pieceSize; piece < end; {
		run := piece
		for run < end && run < piece+most && !d.has(run) {
			run++
		}
		if run > piece {
			if err := d.zero(piece*pieceSize, min(run*pieceSize, d.size)); err != nil {
				return err
			}
		}
		piece = max(run, piece+1)
	}
	if err := d.file.Sync(); err != nil {
		return err
	}
	_, err := d.file.WriteAt(d.head, 0)
	return err
}

// checkOut says whether out suits: an empty file, or, for a raw disk, a block device on which nothing is.
func (o Output) checkOut(out *os.File) (deviceSize int64, err error) {
	info, err := out.Stat()
	switch {
	case err != nil:
		return 0, err
	case info.Mode().IsRegular() && info.Size() == 0:
		return 0, nil
	case info.Mode().Type() != os.ModeDevice:
		return 0, fmt.Errorf("%s is not an empty file", out.Name())
	case o.Format != Raw:
		return 0, fmt.Errorf("%s is a block device: it takes the format %s", out.Name(), Raw)
	case o.preallocates():
		return 0, fmt.Errorf("%s is a block device: nothing of it can be preallocated", out.Name())
	}
	size, err := out.Seek(0, io.SeekEnd)
	if err != nil || o.Force {
		return size, err
	}
	for _, at := range []int64{0, max(0, size-mib)} {
		b := make([]byte, min(size, mib))
		if _, err := out.ReadAt(b, at); err != nil {
			return 0, fmt.Errorf("look what is on %s: %w", out.Name(), err)
		}
		if !allZero(b) {
			return 0, fmt.Errorf("%s: %w", out.Name(), ErrHolds)
		}
	}
	return size, nil
}
