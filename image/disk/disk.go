// Package disk takes other people's disk images apart: raw or QCOW2 (told apart by content, never by
// name), partitioned with a GPT or an MBR, or one bare file system. It finds the root file system
// and what is mounted in it at /boot and for EFI, and reads them in place. Nothing is mounted or
// written, and no other file is opened, whatever the image says.
package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/image/partition"
	"github.com/sealboot/sealboot/image/qcow2"
	"github.com/sealboot/sealboot/image/source"
)

// Errors that callers tell apart.
var (
	ErrNoDisk = errors.New("not a disk image: it has neither a partition table nor a known file system")
	ErrNoRoot = errors.New("no root file system")
	ErrMount  = errors.New("a file system that the root mounts is not on the disk")
	ErrKind   = errors.New("kind of file system that is not read")
)

// Volume is a partition and what is on it.
type Volume struct {
	partition.Partition // Number 0: the whole disk is one file system
	FileSystem          Kind
	Label, UUID         string // of the file system, as blkid gives them
}

// String describes the volume in a line, for people.
func (v Volume) String() string {
	kind := string(v.FileSystem)
	if kind == "" {
		kind = "unknown content"
	}
	s := fmt.Sprintf("partition %d (%s", v.Number, kind)
	if v.Number == 0 {
		s = "the whole disk (" + kind
	}
	if v.Label != "" {
		s += fmt.Sprintf(", label %q", v.Label)
	}
	if v.Name != "" {
		s += fmt.Sprintf(", named %q", v.Name)
	}
	return s + fmt.Sprintf(", %d MiB)", v.Size>>20)
}

// Disk is an open image. Its file must not change meanwhile.
type Disk struct {
	Format  string // "raw" or "qcow2"
	Size    int64  // of the disk
	Scheme  string // partition.GPT, partition.MBR, or empty for a bare file system
	Volumes []Volume

	file  *os.File
	info  os.FileInfo // when it was opened
	image io.ReaderAt
	runs  func(use func(off, n int64) error) error // what the container does not leave out
}

// Open opens the image, or the block device, at path. ErrNoDisk says that it is something else.
func Open(path string) (*Disk, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	d, err := open(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

func open(f *os.File) (*Disk, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); !mode.IsRegular() && mode.Type() != os.ModeDevice {
		return nil, ErrNoDisk
	}
	size, err := f.Seek(0, io.SeekEnd) // of a block device too
	if err != nil {
		return nil, err
	}
	d := &Disk{Format: "raw", Size: size, file: f, info: info, image: f}
	d.runs = func(use func(off, n int64) error) error { return dataRuns(f, size, use) }
	q, err := qcow2.Open(f, size)
	if err == nil {
		d.Format, d.Size, d.image, d.runs = "qcow2", q.Size(), q, q.Allocated
	} else if !errors.Is(err, qcow2.ErrNotQCOW2) {
		return nil, err
	}
	return d, d.look()
}

// look finds the partitions and what is on them. A partition table counts before a file
// system at the disk's beginning, as for Linux.
func (d *Disk) look() error {
	table, err := partition.Read(d.image, d.Size)
	if errors.Is(err, partition.ErrNone) {
		bare := Volume{Partition: partition.Partition{Size: d.Size}}
		if err := d.probe(&bare); err != nil {
			return err
		}
		if bare.FileSystem == "" {
			return ErrNoDisk
		}
		d.Volumes = []Volume{bare}
		return nil
	}
	if err != nil {
		return err
	}
	d.Scheme = table.Scheme
	for _, p := range table.Partitions {
		v := Volume{Partition: p}
		if err := d.probe(&v); err != nil {
			return err
		}
		d.Volumes = append(d.Volumes, v)
	}
	return nil
}

// Close closes the image's file.
func (d *Disk) Close() error { return d.file.Close() }

// Unchanged says whether the image's file is as it was when it was opened, by size and time; if not, ErrChanged.
func (d *Disk) Unchanged() error {
	info, err := d.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != d.info.Size() || !info.ModTime().Equal(d.info.ModTime()) {
		return fmt.Errorf("%s: %w: shut the machine that uses it down first", d.file.Name(), source.ErrChanged)
	}
	return nil
}

// Section gives a volume's bytes.
func (d *Disk) Section(v Volume) *io.SectionReader {
	return io.NewSectionReader(d.image, v.Offset, v.Size)
}

// Allocated calls use for the runs of a volume's bytes that the image holds, in ascending order;
// offsets count from the volume's start. What lies between reads as zeros: holes of a raw
// file, clusters that a QCOW2 image does not have.
func (d *Disk) Allocated(v Volume, use func(off, n int64) error) error {
	end := v.Offset + v.Size
	err := d.runs(func(off, n int64) error {
		from, to := max(off, v.Offset), min(off+n, end)
		if off >= end {
			return errEnough
		}
		if from >= to {
			return nil
		}
		return use(from-v.Offset, to-from)
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

var errEnough = errors.New("enough")

// dataRuns gives the parts of a file that are no holes. A file system or device that knows no
// holes has one run.
func dataRuns(f *os.File, size int64, use func(off, n int64) error) error {
	for at := int64(0); at < size; {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // no data behind at
			return nil
		case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP):
			return use(at, size-at)
		case err != nil:
			return fmt.Errorf("look for data in %s: %w", f.Name(), err)
		}
		to, err := unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("look for holes in %s: %w", f.Name(), err)
		}
		to = min(to, size)
		if to <= from { // it became shorter
			return nil
		}
		if err := use(from, to-from); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// volume gives the one with a number.
func (d *Disk) volume(number int) (Volume, bool) {
	i := slices.IndexFunc(d.Volumes, func(v Volume) bool { return v.Number == number })
	if i < 0 {
		return Volume{}, false
	}
	return d.Volumes[i], true
}

func list(volumes []Volume) string {
	var lines []string
	for _, v := range volumes {
		lines = append(lines, v.String())
	}
	return strings.Join(lines, ", ")
}
