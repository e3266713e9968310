package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sealboot/sealboot/image/disk"
	"github.com/sealboot/sealboot/image/ext4"
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

// openFileSystem opens a disk image or an ext4 image and looks whether GRUB can read the root's file system.
// Where something is put into it, the folder scratch has room for that.
func openFileSystem(ctx context.Context, spec Spec, scratch string) (content, error) {
	d, err := disk.Open(spec.Source)
	if err != nil {
		return nil, err
	}
	s := &fileSystem{disk: d, name: spec.Source}
	if err := s.open(ctx, spec, scratch); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *fileSystem) open(ctx context.Context, spec Spec, scratch string) error {
	if spec.AllRoot {
		return fmt.Errorf("%w: owners cannot be changed in %s, which is a disk or ext4 image", ErrSource, spec.Source)
	}
	if spec.Label != "" {
		return fmt.Errorf("%w: the label of %s, which is a disk or ext4 image, stays", ErrSource, spec.Source)
	}
	d := s.disk
	system, err := d.System(spec.RootPartition, "")
	if err != nil {
		return fmt.Errorf("%s: %w", spec.Source, err)
	}
	root := system.Root
	if !root.FileSystem.Ext() {
		return fmt.Errorf("%w: the root of %s is %v; only ext4 is taken as it is", ErrSource, spec.Source, root)
	}
	s.root = d.Section(root)
	if root.Number != 0 {
		s.name = fmt.Sprintf("partition %d of %s", root.Number, spec.Source)
	}
	doing := "read"
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
	s.size = int64(facts.Blocks) * int64(facts.BlockSize)
	return nil
}

func (s *fileSystem) close() error {
	err := s.disk.Close()
	if s.scratch != nil {
		err = errors.Join(err, s.scratch.Close())
	}
	return err
}

func (s *fileSystem) diskSize(_ context.Context, spec Spec) (int64, error) {
	needed := diskSize(s.size, spec.LUKS.DataOffset)
	if spec.Size == 0 {
		return needed, nil
	}
	if payloadSize(spec.Size, spec.LUKS.DataOffset) < s.size {
		return 0, &SizeError{Size: spec.Size, Needed: needed}
	}
	return spec.Size, nil
}

func (s *fileSystem) write(ctx context.Context, _ Spec, _ string, out sink, _ int64, report func(int64)) error {
	if _, err := s.fs.Check(ctx, nil); err != nil {
		return fmt.Errorf("read %s: %w", s.name, err)
	}
	total := int64(0)
	if err := s.fs.Allocated(func(_, n int64) error { total += n; return nil }); err != nil {
		return err
	}
	return s.fs.Allocated(func(off, n int64) error {
		for n > 0 {
			report(total)
			part := min(n, chunkSize-off%chunkSize)
			if err := out.CopyAt(s, off, part); err != nil {
				return err
			}
			off, n = off+part, n-part
		}
		return ctx.Err()
	})
}

// ReadAt reads the file system as changed, for several goroutines.
func (s *fileSystem) ReadAt(b []byte, off int64) (int, error) {
	n, err := s.root.ReadAt(b, off)
	if n == len(b) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("read %s at %d: %w", s.name, off, err)
}

func (s *fileSystem) unchanged() error { return s.disk.Unchanged() }
