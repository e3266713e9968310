package ext4

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/sealboot/sealboot/image/source"
)

// Node is what stands under a path.
type Node struct {
	f *Reader
	n *record
}

// Node follows a path, and symbolic links in it, the last name's too; they lead nowhere but into the file system.
// What does not exist is ErrNotFound.
func (f *Reader) Node(path string) (*Node, error) {
	n, err := f.find(path)
	if err != nil {
		return nil, err
	}
	return &Node{f, n}, nil
}

// Clean says whether the file system was unmounted cleanly; the error is ErrUnclean with what is left to do. What
// changed last in one that was not may be in its journal alone: NewEditor replays that.
func (f *Reader) Clean() error { return f.clean() }

// Sockets are no entries elsewhere, since they mean nothing on a disk; but a listing shows what is there.
const Socket source.Type = 0xff

// Stat describes the node under a path of the caller's.
func (d *Node) Stat(path string) (source.Entry, error) {
	if d.n.kind() == kindSocket {
		n := d.n
		return source.Entry{Path: path, Type: Socket, Mode: uint32(n.mode & 0o7777), UID: n.uid, GID: n.gid, ModTime: n.modified}, nil
	}
	return d.f.entry(path, d.n)
}

// Inode gives its number, and Links how many names it has.
func (d *Node) Inode() uint32 { return d.n.number }
func (d *Node) Links() int    { return int(d.n.links) }

// Child is a name in a folder.
type Child struct {
	Name   string
	f      *Reader
	number uint32
}

// Node gives what the name leads to, be it a symbolic link.
func (c Child) Node() (*Node, error) {
	n, err := c.f.readInode(c.number)
	if err != nil {
		return nil, err
	}
	return &Node{c.f, n}, nil
}

// Children lists a folder in the order of its names.
func (d *Node) Children() ([]Child, error) {
	entries, err := d.f.entries(d.n)
	if err != nil {
		return nil, err
	}
	list := make([]Child, len(entries))
	for i, e := range entries {
		list[i] = Child{e.name, d.f, e.number}
	}
	return list, nil
}

// Open reads a regular file. The reader is a Content.
func (d *Node) Open() (io.Reader, error) {
	if d.n.kind() != kindRegular {
		return nil, fmt.Errorf("%w: not a regular file", ErrNotFound)
	}
	return d.f.open(d.n)
}

// Content is what the readers of this package's files are: they know their holes. It is read by Read or by Runs, once.
type Content interface {
	io.Reader
	Stored() int64 // bytes that have blocks
	// Runs calls use for each run of bytes that has blocks, in ascending order. The rest reads as zeros.
	Runs(use func(off int64, data io.Reader) error) error
}

// Runs reads what has blocks.
func (c *content) Runs(use func(off int64, data io.Reader) error) error {
	size := int64(c.f.blockSize)
	for _, run := range c.runs {
		off := int64(run.logical) * size
		if off >= c.size {
			return nil
		}
		n := min(int64(run.blocks.count)*size, c.size-off)
		if err := use(off, io.NewSectionReader(c.f.r, int64(run.blocks.start)*size, n)); err != nil {
			return err
		}
	}
	return nil
}

// Stored gives how many bytes have blocks.
func (c *content) Stored() int64 {
	total, size := int64(0), int64(c.f.blockSize)
	for _, run := range c.runs {
		total += max(0, min(int64(run.blocks.count)*size, c.size-int64(run.logical)*size))
	}
	return total
}

// Walk calls use for a node under the path "/" and, if it is a folder, for all below it: parents first, names in order.
// It also walks a file system that was not unmounted cleanly.
func (d *Node) Walk(ctx context.Context, use func(path string, n *Node) error) error {
	t := &nodeWalk{ctx: ctx, use: use, left: int64(d.f.blocks) * int64(d.f.blockSize) / entryLeast, folders: map[uint32]string{}}
	return t.visit("/", d)
}

// entryLeast is how many bytes of a folder a name takes at least.
const entryLeast = entryHead + 4

type nodeWalk struct {
	ctx     context.Context
	use     func(string, *Node) error
	left    int64 // names that the file system has room for
	folders map[uint32]string
}

func (t *nodeWalk) visit(path string, d *Node) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if t.left--; t.left < 0 {
		return broken(d.n.where(), "more names than the file system has room for: folders share their blocks")
	}
	if len(path) > pathMost {
		return broken(d.n.where(), "path of more than %d bytes", pathMost)
	}
	folder := d.n.kind() == kindFolder
	if folder {
		if first, ok := t.folders[d.n.number]; ok {
			return broken(d.n.where(), "folder with two names, %s and %s", first, path)
		}
		t.folders[d.n.number] = path
	}
	if err := t.use(path, d); err != nil || !folder {
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
		if err := t.visit(strings.TrimSuffix(path, "/")+"/"+c.Name, n); err != nil {
			return err
		}
	}
	return nil
}

// Tree is the node, and all below it, as a source: of several names of one file the first has the content. Sockets are
// left out.
func (d *Node) Tree(ctx context.Context, use source.WalkFunc) error {
	first := map[uint32]string{}
	return d.Walk(ctx, func(path string, d *Node) error {
		kind := d.n.kind()
		if kind == kindSocket {
			return nil
		}
		if known, ok := first[d.n.number]; ok {
			return use(source.Entry{Path: path, Type: source.HardLink, Link: known}, nil)
		}
		if d.n.links > 1 && kind != kindFolder {
			first[d.n.number] = path
		}
		e, err := d.Stat(path)
		if err != nil {
			return err
		}
		var from io.Reader
		if kind == kindRegular {
			if from, err = d.f.open(d.n); err != nil {
				return err
			}
		}
		return use(e, from)
	})
}
