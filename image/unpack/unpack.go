// Package unpack takes a tree of files out of a file system: to a folder of this machine, or to a tar archive.
//
// The tree is believed in nothing. Folder works inside an os.Root, so no name, symbolic link or hard link of the tree
// leads out of the folder, which is new and gets its name when it is whole. Of a file only what has blocks is written;
// together these cannot be more than the file system holds, so that files which claim the same blocks end in ErrTooMuch.
// A tar archive has no holes, so a file that says that it is longer than its file system is refused there.
package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sealboot/sealboot/image/source"
)

// Errors that callers tell apart.
var (
	ErrTooMuch = errors.New("the files hold more than the file system has: they claim the same blocks")
	ErrName    = errors.New("name that cannot be unpacked")
)

// sparse is content that knows its holes (fsys.Content).
type sparse interface {
	Stored() int64
	Runs(use func(off int64, data io.Reader) error) error
}

// budget is how many bytes of content may still come.
type budget struct{ left int64 }

func (b *budget) take(n int64) error {
	if b.left -= n; b.left < 0 {
		return ErrTooMuch
	}
	return nil
}

// content takes a file's stored bytes from the budget.
func (b *budget) content(e source.Entry, content io.Reader) error {
	if s, ok := content.(sparse); ok {
		return b.take(s.Stored())
	}
	return b.take(e.Size)
}

// copyContent writes a file's content, holes left out.
func copyContent(ctx context.Context, dst io.WriterAt, e source.Entry, content io.Reader, buf []byte) error {
	one := func(off int64, data io.Reader) error {
		for {
			n, err := (&interruptible{ctx, data}).Read(buf)
			if n > 0 {
				if off > e.Size || int64(n) > e.Size-off {
					return fmt.Errorf("content at %d of a file of %d bytes", off, e.Size)
				}
				if _, err := dst.WriteAt(buf[:n], off); err != nil {
					return err
				}
				off += int64(n)
			}
			if errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	if s, ok := content.(sparse); ok {
		return s.Runs(one)
	}
	return one(0, content)
}

// relative gives an entry's path within the folder; "." is the folder itself.
func relative(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return "", fmt.Errorf("%w: %q", ErrName, path)
	}
	if rest == "" {
		return ".", nil
	}
	for name := range strings.SplitSeq(rest, "/") {
		if name == "" || name == "." || name == ".." || strings.IndexByte(name, 0) >= 0 {
			return "", fmt.Errorf("%w: %q", ErrName, path)
		}
	}
	return rest, nil
}
