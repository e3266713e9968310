package source

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"time"
)

// File is a regular file that is added to a source; it belongs to root.
type File struct {
	Path    string
	Mode    uint32
	Content []byte
	ModTime time.Time
}

// With is src with the files after it. A file replaces what src has under its path; folders
// that lead to it and that src has not are made, root's, with mode 0755.
func With(src Source, files ...File) (Source, error) {
	for _, f := range files {
		if clean, err := cleanPath(f.Path); err != nil {
			return nil, err
		} else if clean != f.Path || clean == "/" {
			return nil, fmt.Errorf("%w %q: want an absolute path without empty and \".\" elements", ErrPath, f.Path)
		}
	}
	return &overlay{src, files}, nil
}

type overlay struct {
	src   Source
	files []File
}

func (o *overlay) Walk(ctx context.Context, f WalkFunc) error {
	have := map[string]Type{"/": Folder}
	err := o.src.Walk(ctx, func(e Entry, content io.Reader) error {
		have[e.Path] = e.Type
		return f(e, content)
	})
	if err != nil {
		return err
	}
	for _, file := range o.files {
		if err := makeParents(have, path.Dir(file.Path), file.ModTime, f); err != nil {
			return err
		}
		e := Entry{Path: file.Path, Type: Regular, Mode: file.Mode & 0o7777, Size: int64(len(file.Content)), ModTime: file.ModTime}
		if err := f(e, bytes.NewReader(file.Content)); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return nil
}

func makeParents(have map[string]Type, dir string, at time.Time, f WalkFunc) error {
	if is, ok := have[dir]; ok {
		if is != Folder {
			return fmt.Errorf("%w: a file is to be added in %s, which is a %v", ErrEntry, dir, is)
		}
		return nil
	}
	if err := makeParents(have, path.Dir(dir), at, f); err != nil {
		return err
	}
	have[dir] = Folder
	if err := f(Entry{Path: dir, Type: Folder, Mode: 0o755, ModTime: at}, nil); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// AllRoot is src with every entry belonging to root, as in a folder that an ordinary user unpacked.
func AllRoot(src Source) Source { return &allRoot{src} }

type allRoot struct{ src Source }

func (a *allRoot) Walk(ctx context.Context, f WalkFunc) error {
	return a.src.Walk(ctx, func(e Entry, content io.Reader) error {
		e.UID, e.GID = 0, 0
		return f(e, content)
	})
}
