package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sealboot/sealboot/image/ext4"
)

// fileSystem is an ext4 image that is copied block by block, as far as its blocks are in use.
type fileSystem struct {
	file *os.File
	size int64
	fs   *ext4.Reader
}

// openFileSystem opens an ext4 image and looks whether GRUB can read it.
func openFileSystem(spec Spec) (content, error) {
	if len(spec.Files) > 0 {
		return nil, fmt.Errorf("%w: files cannot be added to %s, which is an ext4 image: give a folder or a tar archive", ErrSource, spec.Source)
	}
	if spec.AllRoot {
		return nil, fmt.Errorf("%w: owners cannot be changed in %s, which is an ext4 image", ErrSource, spec.Source)
	}
	f, err := os.Open(spec.Source)
	if err != nil {
		return nil, err
	}
	fs, err := openExt4(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	facts := fs.Facts()
	return &fileSystem{file: f, size: int64(facts.Blocks) * int64(facts.BlockSize), fs: fs}, nil
}

func openExt4(f *os.File) (*ext4.Reader, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	fs, err := ext4.Open(f, info.Size())
	if unknown := (*ext4.UnsupportedError)(nil); errors.As(err, &unknown) {
		return nil, &FeatureError{Features: unknown.Features, Image: f.Name()}
	} else if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if bad := fs.UnreadableByGRUB(); len(bad) > 0 {
		return nil, &FeatureError{Features: bad, Image: f.Name()}
	}
	return fs, nil
}

func (s *fileSystem) close() error { return s.file.Close() }

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

func (s *fileSystem) write(ctx context.Context, _ Spec, _ string, out io.WriterAt, _ int64, report func(int64)) error {
	if _, err := s.fs.Check(ctx, nil); err != nil {
		return fmt.Errorf("read %s: %w", s.file.Name(), err)
	}
	total := int64(0)
	if err := s.fs.Allocated(func(_, n int64) error { total += n; return nil }); err != nil {
		return err
	}
	buf := make([]byte, chunkSize)
	return s.fs.Allocated(func(off, n int64) error {
		for n > 0 {
			report(total)
			part := buf[:min(n, chunkSize-off%chunkSize)]
			if k, err := s.file.ReadAt(part, off); k < len(part) {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("read %s at %d: %w", s.file.Name(), off, err)
			}
			if _, err := out.WriteAt(part, off); err != nil {
				return err
			}
			off, n = off+int64(len(part)), n-int64(len(part))
		}
		return ctx.Err()
	})
}
