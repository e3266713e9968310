package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sealboot/sealboot/image/disk"
	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/luks/layout"
)

// fileSystem is an ext4 file system, on a disk or in an image of its own, that is copied block by
// block, as far as its blocks are in use. A block in use that the image leaves out is written too, as
// zeros: qemu-img and cp leave out zeros that are some file's content.
type fileSystem struct {
	disk *disk.Disk
	name string      // for errors
	root io.ReaderAt // the file system's bytes, as changed
	size int64

	scratch *os.File // what was changed; nil: nothing
	repairs ext4.Repairs
	fs      *ext4.Reader
}

// openFileSystem opens a disk image or a file system's image. Where something is put into an ext4 root, the folder scratch has
// room for that.
func openFileSystem(ctx context.Context, spec Spec, scratch string) (content, error) {
	d, err := disk.Open(spec.Source)
	if err != nil {
		return nil, err
	}
	made, err := openRoot(ctx, d, spec, scratch)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return made, nil
}

func openRoot(ctx context.Context, d *disk.Disk, spec Spec, scratch string) (content, error) {
	if spec.AllRoot {
		return nil, fmt.Errorf("%w: owners cannot be changed in %s, which is a disk or file system image", ErrSource, spec.Source)
	}
	if spec.Label != "" {
		return nil, fmt.Errorf("%w: the label of %s, which is a disk or file system image, stays", ErrSource, spec.Source)
	}
	system, err := d.System(spec.RootPartition, spec.RootSubvolume)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spec.Source, err)
	}
	name := spec.Source // for errors
	if number := system.Root.Number; number != 0 {
		name = fmt.Sprintf("partition %d of %s", number, spec.Source)
	}
	if system.BootVolume() {
		return openVolumes(d, system, spec, name)
	}
	if spec.BootSize != 0 {
		return nil, fmt.Errorf("%w: %s is ext4, which GRUB reads: it gets no boot volume", ErrSource, name)
	}
	s := &fileSystem{disk: d, name: name}
	if err := s.open(ctx, spec, system, scratch); err != nil {
		if s.scratch != nil {
			s.scratch.Close()
		}
		return nil, err
	}
	return s, nil
}

// open looks whether GRUB can read the root's file system.
func (s *fileSystem) open(ctx context.Context, spec Spec, system *disk.System, scratch string) error {
	root := system.Root
	s.root = s.disk.Section(root)
	doing, err := "read", error(nil)
	if len(system.Mounts) > 0 || len(spec.Kernels) > 0 || len(spec.Files) > 0 {
		doing = "add to the content of"
		err = s.edit(ctx, spec, system, scratch)
	} else {
		s.fs, err = ext4.Open(s.root, root.Size)
	}
	if unknown := (*ext4.UnsupportedError)(nil); errors.As(err, &unknown) {
		return &FeatureError{Features: unknown.Features, Image: spec.Source, Partition: root.Number}
	} else if err != nil {
		return fmt.Errorf("%s %s: %w", doing, s.name, err)
	}
	if bad := s.fs.UnreadableByGRUB(); len(bad) > 0 {
		return &FeatureError{Features: bad, Image: spec.Source, Partition: root.Number}
	}
	facts := s.fs.Facts()
	if facts.Label == layout.Label {
		return fmt.Errorf("%w: %s has the label %s, which is for boot volumes: change it with e2label", ErrSource, s.name, layout.Label)
	}
	s.size = int64(facts.Blocks) * int64(facts.BlockSize)
	return nil
}

func (s *fileSystem) sectorSize() int { return s.fs.Facts().BlockSize }

func (s *fileSystem) close() error {
	err := s.disk.Close()
	if s.scratch != nil {
		err = errors.Join(err, s.scratch.Close())
	}
	return err
}

func (s *fileSystem) diskSize(_ context.Context, spec Spec) (int64, error) {
	return roomFor(s.size, spec)
}

// roomFor gives the size of the disk for a payload of so many bytes, or a *SizeError.
func roomFor(payload int64, spec Spec) (int64, error) {
	needed := diskSize(payload, spec.LUKS.DataOffset)
	if spec.Size == 0 {
		return needed, nil
	}
	if payloadSize(spec.Size, spec.LUKS.DataOffset) < payload {
		return 0, &SizeError{Size: spec.Size, Needed: needed}
	}
	return spec.Size, nil
}

func (s *fileSystem) write(ctx context.Context, _ Spec, _ string, out sink, _ int64, report func(int64)) error {
	if _, err := s.fs.Check(ctx, nil); err != nil {
		return fmt.Errorf("read %s: %w", s.name, err)
	}
	return copyAllocated(ctx, s.fs, s, 0, out, report)
}

// copyAllocated hands over the ranges of a file system that are in use, to lie in the payload from a place on.
func copyAllocated(ctx context.Context, fs allocated, from io.ReaderAt, place int64, out sink, report func(int64)) error {
	total := int64(0)
	if err := fs.Allocated(func(_, n int64) error { total += n; return nil }); err != nil {
		return err
	}
	if place != 0 {
		from = &moved{from, place}
	}
	return fs.Allocated(func(off, n int64) error {
		for off += place; n > 0; {
			report(total)
			part := min(n, chunkSize-off%chunkSize)
			if err := out.CopyAt(from, off, part); err != nil {
				return err
			}
			off, n = off+part, n-part
		}
		return ctx.Err()
	})
}

// allocated is a file system that knows what of it is in use.
type allocated interface {
	Allocated(use func(off, n int64) error) error
}

// moved has at a place what another begins with.
type moved struct {
	io.ReaderAt
	place int64
}

func (m *moved) ReadAt(b []byte, off int64) (int, error) { return m.ReaderAt.ReadAt(b, off-m.place) }

// ReadAt reads the file system as changed, for several goroutines.
func (s *fileSystem) ReadAt(b []byte, off int64) (int, error) {
	return readSource(s.root, b, off, s.name)
}

// readSource reads all of b.
func readSource(r io.ReaderAt, b []byte, off int64, name string) (int, error) {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("read %s at %d: %w", name, off, err)
}

func (s *fileSystem) unchanged() error { return s.disk.Unchanged() }
