package unpack

import (
	"archive/tar"
	"context"
	"fmt"
	"io"

	"github.com/sealboot/sealboot/image/source"
)

// paxXattr is the pax record of an extended attribute (GNU tar, star).
const paxXattr = "SCHILY.xattr."

// Tar writes the tree as a tar archive (POSIX pax) with all that a file system keeps: owners, modes, times, links,
// devices and extended attributes. Paths begin with "./"; a tree that is one file has that name in it. most is as in
// Options. After an error the archive has no end mark.
func Tar(ctx context.Context, out io.Writer, walk Walk, most int64, name string) error {
	w := tar.NewWriter(out)
	left := &budget{most}
	buf := make([]byte, 1<<20)
	err := walk(ctx, func(e source.Entry, content io.Reader) error {
		if e.Path == "/" && e.Type != source.Folder {
			e.Path = "/" + name
		}
		h, err := header(e)
		if err != nil {
			return err
		}
		if e.Size > most {
			return fmt.Errorf("%s: %w: %d bytes, nearly all of them holes, which an archive does not have: extract it to a file", e.Path, ErrTooMuch, e.Size)
		}
		if content != nil {
			if err := left.content(e, content); err != nil {
				return fmt.Errorf("%s: %w", e.Path, err)
			}
		}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		if content == nil {
			return nil
		}
		if n, err := io.CopyBuffer(w, &interruptible{ctx, content}, buf); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		} else if n != e.Size {
			return fmt.Errorf("%s: %w after %d of %d bytes", e.Path, io.ErrUnexpectedEOF, n, e.Size)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.Close()
}

func header(e source.Entry) (*tar.Header, error) {
	name, err := relative(e.Path)
	if err != nil {
		return nil, err
	}
	h := &tar.Header{
		Name: "./" + name, Mode: int64(e.Mode), Uid: int(e.UID), Gid: int(e.GID), ModTime: e.ModTime, Format: tar.FormatPAX,
		Devmajor: int64(e.Major), Devminor: int64(e.Minor), PAXRecords: map[string]string{},
	}
	if name == "." {
		h.Name = "./"
	}
	switch e.Type {
	case source.Regular:
		h.Typeflag, h.Size = tar.TypeReg, e.Size
	case source.Folder:
		h.Typeflag = tar.TypeDir
		if name != "." {
			h.Name += "/"
		}
	case source.Symlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
	case source.HardLink:
		first, err := relative(e.Link)
		if err != nil {
			return nil, err
		}
		h.Typeflag, h.Linkname = tar.TypeLink, "./"+first
	case source.CharDevice:
		h.Typeflag = tar.TypeChar
	case source.BlockDevice:
		h.Typeflag = tar.TypeBlock
	case source.FIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return nil, fmt.Errorf("%w: %s is of %v", ErrName, e.Path, e.Type)
	}
	for _, x := range e.Xattrs {
		h.PAXRecords[paxXattr+x.Name] = string(x.Value)
	}
	return h, nil
}

// interruptible ends when its context does.
type interruptible struct {
	ctx context.Context
	io.Reader
}

func (r *interruptible) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
