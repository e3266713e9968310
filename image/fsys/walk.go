package fsys

import (
	"context"
	"io"
	"strings"

	"github.com/sealboot/sealboot/image/source"
)

var _ source.Source = (*Files)(nil)

// Walk makes the files a source: it calls use for each entry, parents first. Of names of one
// inode the first has the content, the others are hard links. Sockets are left out. What was not unmounted cleanly is refused with ErrUnclean.
func (f *Files) Walk(ctx context.Context, use source.WalkFunc) error {
	if err := f.Clean(); err != nil {
		return err
	}
	root, err := f.inode(f.root)
	if err != nil {
		return err
	}
	return root.Tree(ctx, use)
}

// Tree is the node, and all below it, as a source.
func (d *Node) Tree(ctx context.Context, use source.WalkFunc) error {
	first := map[place]string{}
	return d.Walk(ctx, func(path string, d *Node) error {
		kind := d.n.Entry.Type
		if kind == Socket {
			return nil
		}
		if known, ok := first[d.place()]; ok {
			return use(source.Entry{Path: path, Type: source.HardLink, Link: known}, nil)
		}
		if d.n.Links > 1 && kind != source.Folder {
			first[d.place()] = path
		}
		e, err := d.Stat(path)
		if err != nil {
			return err
		}
		var from io.Reader
		if kind == source.Regular {
			content, err := d.Open()
			if err != nil {
				return err
			}
			from = content
		}
		return use(e, from)
	})
}

// Walk calls use for a node under the path "/" and, if it is a folder, for all below it: parents first, names in order. It
// also walks a file system that was not unmounted cleanly.
func (d *Node) Walk(ctx context.Context, use func(path string, n *Node) error) error {
	w := &walk{ctx: ctx, use: use, left: d.f.room(), folders: map[place]string{}}
	return w.visit("/", d)
}

type walk struct {
	ctx     context.Context
	use     func(string, *Node) error
	left    int64 // names that the file system has room for
	folders map[place]string
}

// place is an inode among those of several file systems.
type place struct {
	files *Files
	id    ID
}

func (d *Node) place() place { return place{d.f, d.n.ID} }

// room is how many names there can be, with what is mounted.
func (f *Files) room() int64 {
	names := f.names
	for _, over := range f.mounts {
		names += over.room()
	}
	return names
}

func (w *walk) visit(path string, d *Node) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if w.left--; w.left < 0 {
		return d.broken("more names than the file system has room for")
	}
	if len(path) > pathMost {
		return d.broken("path of more than %d bytes", pathMost)
	}
	folder := d.n.Entry.Type == source.Folder
	if folder {
		if first, ok := w.folders[d.place()]; ok {
			return d.broken("folder with two names, %s and %s", first, path)
		}
		w.folders[d.place()] = path
	}
	if err := w.use(path, d); err != nil || !folder {
		return err
	}
	children, err := d.Children()
	if err != nil {
		return err
	}
	for _, c := range children {
		n, err := c.Node()
		if err != nil {
			return err
		}
		if err := w.visit(strings.TrimSuffix(path, "/")+"/"+c.Name, n); err != nil {
			return err
		}
	}
	return nil
}
