package ext4

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/sealboot/sealboot/image/fsys"
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

// open reads a file: what is unwritten of it reads as zeros.
func (f *Reader) open(n *record) (*fsys.Content, error) {
	var extents []fsys.Extent
	size := int64(f.blockSize)
	err := f.blockMap(n, func(m mapping) error {
		if !m.metadata && !m.unwritten {
			extents = append(extents, fsys.Extent{Off: int64(m.logical) * size, Len: int64(m.blocks.count) * size, Data: f.r, At: int64(m.blocks.start) * size})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return fsys.NewContent(int64(n.size), extents), nil
}

// entry describes an inode under a path.
func (f *Reader) entry(path string, n *record) (source.Entry, error) {
	e, err := facts(n)
	if err != nil {
		return source.Entry{}, err
	}
	e.Path = path
	if e.Xattrs, err = f.readXattrs(n); err != nil {
		return source.Entry{}, err
	}
	slices.SortFunc(e.Xattrs, func(a, b source.Xattr) int { return cmp.Compare(a.Name, b.Name) })
	if e.Type == source.Symlink {
		if e.Link, err = f.readlink(n); err != nil {
			return source.Entry{}, err
		}
	}
	return e, nil
}
