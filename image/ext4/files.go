package ext4

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sealboot/sealboot/image/source"
)

// namesMost bounds the names of one folder that are held in memory: more than ext4's hash trees hold without large_dir.
const namesMost = 16 << 20

// entries reads a folder without its dots, in the order of names.
func (f *Reader) entries(n *record) ([]folderEntry, error) {
	if n.kind() != kindFolder {
		return nil, fmt.Errorf("%w: inode %d is no folder", ErrNotFound, n.number)
	}
	blocks, err := f.folderBlocks(n)
	if err != nil {
		return nil, err
	}
	inner := map[int]bool{}
	if f.indexed(n) {
		tree, err := f.hashTree(n, blocks)
		if err != nil {
			return nil, err
		}
		inner = tree.inner
	}
	var list []folderEntry
	raw := make([]byte, f.blockSize)
	for place, block := range blocks {
		if err := f.readBlocks(raw, block); err != nil {
			return nil, err
		}
		kind := leafKind
		if inner[place] {
			kind = indexKind
		}
		err := f.parseFolder(n, place, raw, kind, func(e folderEntry) error {
			if e.name != "." && e.name != ".." {
				if len(list) == namesMost {
					return broken(n.where(), "more than %d names in a folder", namesMost)
				}
				list = append(list, e)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b folderEntry) int { return cmp.Compare(a.name, b.name) })
	return list, nil
}

// ReadDir gives the names in a folder, sorted. Symbolic links in the path are followed.
func (f *Reader) ReadDir(path string) ([]string, error) {
	n, err := f.find(path)
	if err != nil {
		return nil, err
	}
	entries, err := f.entries(n)
	if err != nil {
		return nil, err
	}
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.name
	}
	return list, nil
}

// Stat says what a path leads to. Symbolic links are followed.
func (f *Reader) Stat(path string) (source.Entry, error) { return f.stat(path, true) }

// Lstat is Stat but for a path that ends with a symbolic link: it says what that is.
func (f *Reader) Lstat(path string) (source.Entry, error) { return f.stat(path, false) }

func (f *Reader) stat(path string, follow bool) (source.Entry, error) {
	p, err := f.existing(path, follow)
	if err != nil {
		return source.Entry{}, err
	}
	return f.entry(path, p.n)
}

// ReadFile gives the content of a regular file of at most so many bytes. Symbolic links are followed.
func (f *Reader) ReadFile(path string, most int64) ([]byte, error) {
	n, err := f.find(path)
	if err != nil {
		return nil, err
	}
	if n.kind() != kindRegular {
		return nil, fmt.Errorf("%s: %w: not a regular file", path, ErrNotFound)
	}
	if n.size > uint64(max(most, 0)) {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", path, n.size, most)
	}
	content, err := f.open(n)
	if err != nil {
		return nil, err
	}
	data := make([]byte, n.size)
	if _, err := io.ReadFull(content, data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// OpenFile gives a regular file's content, from its beginning to its end. Symbolic links are followed.
func (f *Reader) OpenFile(path string) (source.Entry, io.Reader, error) {
	e, err := f.Stat(path)
	if err != nil {
		return source.Entry{}, nil, err
	}
	if e.Type != source.Regular {
		return source.Entry{}, nil, fmt.Errorf("%s: %w: not a regular file", path, ErrNotFound)
	}
	n, err := f.find(path)
	if err != nil {
		return source.Entry{}, nil, err
	}
	content, err := f.open(n)
	if err != nil {
		return source.Entry{}, nil, err
	}
	return e, content, nil
}

// content reads a file from its beginning to its end.
type content struct {
	f    *Reader
	runs []mapping
	size int64
	at   int64
}

func (f *Reader) open(n *record) (*content, error) {
	c := &content{f: f, size: int64(n.size)}
	err := f.blockMap(n, func(m mapping) error {
		if !m.metadata && !m.unwritten {
			c.runs = append(c.runs, m)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *content) Read(b []byte) (int, error) {
	if c.at >= c.size {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), c.size-c.at)]
	size := int64(c.f.blockSize)
	for len(c.runs) > 0 && int64(c.runs[0].logical+c.runs[0].blocks.count)*size <= c.at {
		c.runs = c.runs[1:]
	}
	if len(c.runs) == 0 || int64(c.runs[0].logical)*size > c.at {
		if len(c.runs) > 0 {
			b = b[:min(int64(len(b)), int64(c.runs[0].logical)*size-c.at)]
		}
		clear(b)
		c.at += int64(len(b))
		return len(b), nil
	}
	run := c.runs[0]
	into := c.at - int64(run.logical)*size
	b = b[:min(int64(len(b)), int64(run.blocks.count)*size-into)]
	n, err := readAt(c.f.r, b, int64(run.blocks.start)*size+into)
	c.at += int64(n)
	return n, err
}

var _ source.Source = (*Reader)(nil)

// Walk makes the file system a source: it calls use for each entry, parents first. Of names of one
// inode the first has the content, the others are hard links.
func (f *Reader) Walk(ctx context.Context, use source.WalkFunc) error {
	if err := f.clean(); err != nil {
		return err
	}
	w := &walker{f: f, ctx: ctx, use: use, seen: map[uint32]string{}}
	root, err := f.readInode(rootInode)
	if err != nil {
		return err
	}
	return w.visit("/", root)
}

// pathMost bounds how deep folders may lie: far deeper than any program can name (Linux PATH_MAX is 4096).
const pathMost = 64 << 10

type walker struct {
	f    *Reader
	ctx  context.Context
	use  source.WalkFunc
	seen map[uint32]string // inodes with several names, and folders
}

func (w *walker) visit(path string, n *record) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if len(path) > pathMost {
		return broken(n.where(), "path of more than %d bytes", pathMost)
	}
	if first, ok := w.seen[n.number]; ok {
		if n.kind() == kindFolder {
			return broken(n.where(), "folder with two names, %s and %s", first, path)
		}
		return w.use(source.Entry{Path: path, Type: source.HardLink, Link: first}, nil)
	}
	if n.links > 1 || n.kind() == kindFolder {
		w.seen[n.number] = path
	}
	if n.kind() == kindSocket {
		return nil
	}
	e, err := w.f.entry(path, n)
	if err != nil {
		return err
	}
	var from io.Reader
	if n.kind() == kindRegular {
		if from, err = w.f.open(n); err != nil {
			return err
		}
	}
	if err := w.use(e, from); err != nil || n.kind() != kindFolder {
		return err
	}
	children, err := w.f.entries(n)
	if err != nil {
		return err
	}
	for _, child := range children {
		to, err := w.f.readInode(child.number)
		if err != nil {
			return err
		}
		if err := w.visit(strings.TrimSuffix(path, "/")+"/"+child.name, to); err != nil {
			return err
		}
	}
	return nil
}

func (f *Reader) entry(path string, n *record) (source.Entry, error) {
	e := source.Entry{Path: path, Mode: uint32(n.mode & 0o7777), UID: n.uid, GID: n.gid, ModTime: n.modified}
	var err error
	if e.Xattrs, err = f.readXattrs(n); err != nil {
		return source.Entry{}, err
	}
	slices.SortFunc(e.Xattrs, func(a, b source.Xattr) int { return cmp.Compare(a.Name, b.Name) })
	switch n.kind() {
	case kindRegular:
		e.Type, e.Size = source.Regular, int64(n.size)
	case kindFolder:
		e.Type = source.Folder
	case kindSymlink:
		e.Type = source.Symlink
		if e.Link, err = f.readlink(n); err != nil {
			return source.Entry{}, err
		}
	case kindFIFO:
		e.Type = source.FIFO
	case kindChar, kindBlock:
		e.Type = source.CharDevice
		if n.kind() == kindBlock {
			e.Type = source.BlockDevice
		}
		e.Major, e.Minor = deviceNumbers(n.block)
	default:
		return source.Entry{}, broken(n.where(), "mode %#o", n.mode)
	}
	return e, nil
}
