package ext4

import (
	"context"

	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/source"
)

// Files gives the files, for paths, walks and content (package fsys).
func (f *Reader) Files() *fsys.Files {
	return fsys.New(&tree{f}, fsys.ID{Number: rootInode}, int64(f.blocks)*int64(f.blockSize)/entryLeast)
}

// entryLeast is how many bytes of a folder a name takes at least.
const entryLeast = entryHead + 4

// Clean says whether the file system was unmounted cleanly; the error is ErrUnclean with what is left to do. What
// changed last in one that was not may be in its journal alone: NewEditor replays that.
func (f *Reader) Clean() error { return f.clean() }

var _ source.Source = (*Reader)(nil)

// Walk makes the file system a source: it calls use for each entry, parents first. Of names of one
// inode the first has the content, the others are hard links.
func (f *Reader) Walk(ctx context.Context, use source.WalkFunc) error {
	return f.Files().Walk(ctx, use)
}

// tree is the file system as package fsys wants it.
type tree struct{ f *Reader }

func (t *tree) Clean() error { return t.f.clean() }

func (t *tree) Broken(id fsys.ID, problem string) error {
	return broken((&record{number: uint32(id.Number)}).where(), "%s", problem)
}

func (t *tree) Inode(id fsys.ID) (*fsys.Inode, error) {
	n, err := t.f.readInode(uint32(id.Number))
	if err != nil {
		return nil, err
	}
	e, err := facts(n)
	if err != nil {
		return nil, err
	}
	return &fsys.Inode{ID: id, Links: uint64(n.links), Entry: e, Form: n}, nil
}

func (t *tree) Names(n *fsys.Inode) ([]fsys.Name, error) {
	entries, err := t.f.entries(n.Form.(*record))
	if err != nil {
		return nil, err
	}
	list := make([]fsys.Name, len(entries))
	for i, e := range entries {
		list[i] = fsys.Name{Name: e.name, ID: fsys.ID{Number: uint64(e.number)}}
	}
	return list, nil
}

func (t *tree) Readlink(n *fsys.Inode) (string, error) { return t.f.readlink(n.Form.(*record)) }

func (t *tree) Xattrs(n *fsys.Inode) ([]source.Xattr, error) {
	return t.f.readXattrs(n.Form.(*record))
}

func (t *tree) Content(n *fsys.Inode) (*fsys.Content, error) { return t.f.open(n.Form.(*record)) }

// facts are what an inode itself says.
func facts(n *record) (source.Entry, error) {
	e := source.Entry{Mode: uint32(n.mode & 0o7777), UID: n.uid, GID: n.gid, ModTime: n.modified}
	switch n.kind() {
	case kindRegular:
		e.Type, e.Size = source.Regular, int64(n.size)
	case kindFolder:
		e.Type = source.Folder
	case kindSymlink:
		e.Type = source.Symlink
	case kindFIFO:
		e.Type = source.FIFO
	case kindChar, kindBlock:
		e.Type = source.CharDevice
		if n.kind() == kindBlock {
			e.Type = source.BlockDevice
		}
		e.Major, e.Minor = deviceNumbers(n.block)
	case kindSocket:
		e.Type = fsys.Socket
	default:
		return source.Entry{}, broken(n.where(), "mode %#o", n.mode)
	}
	return e, nil
}
