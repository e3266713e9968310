package btrfs

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/source"
)

// btrfs_inode_item.
const (
	inodeItemSize  = 160
	inodeNoSums    = 1 << 0 // BTRFS_INODE_NODATASUM
	kindMask       = 0o170000
	permissionMask = 0o7777
	folderItemHead = 30      // btrfs_dir_item
	attrsMost      = 4 << 20 // of one inode: what a reader holds
)

var kinds = map[uint32]source.Type{
	0o010000: source.FIFO, 0o020000: source.CharDevice, 0o040000: source.Folder, 0o060000: source.BlockDevice,
	0o100000: source.Regular, 0o120000: source.Symlink, 0o140000: fsys.Socket,
}

// missing marks a folder that stands where a subvolume was when a snapshot was taken: the snapshot has its name, not its files. Linux
// shows an empty folder.
const missing = 1 << 63

// record is the form of an inode.
type record struct {
	root pointer
	size int64
	sums bool // its content has checksums
}

// tree is the file system as package fsys wants it.
type tree struct{ f *Reader }

func (t *tree) Clean() error { return t.f.unclean() }

func (t *tree) Broken(id fsys.ID, problem string) error { return brokenInode(id, "%s", problem) }

func brokenInode(id fsys.ID, format string, args ...any) error {
	return broken(fmt.Sprintf("tree %d, inode %d", id.Tree, id.Number), format, args...)
}

// Inode reads an inode.
func (t *tree) Inode(id fsys.ID) (*fsys.Inode, error) {
	if id.Tree&missing != 0 {
		return &fsys.Inode{ID: id, Links: 1, Entry: source.Entry{Type: source.Folder, Mode: 0o755, ModTime: time.Unix(0, 0).UTC()}, Form: &record{}}, nil
	}
	root, err := t.f.root(id.Tree)
	if err != nil {
		return nil, err
	}
	b, _, err := t.f.one(root, key{object: id.Number, kind: itemInode})
	if err != nil {
		return nil, err
	}
	if len(b) < inodeItemSize {
		return nil, brokenInode(id, "there is none")
	}
	mode, size := le.Uint32(b[52:]), le.Uint64(b[16:])
	kind, known := kinds[mode&kindMask]
	if !known || size > math.MaxInt64 {
		return nil, brokenInode(id, "mode %#o, %d bytes", mode, size)
	}
	n := &fsys.Inode{ID: id, Links: uint64(le.Uint32(b[40:]))}
	n.Form = &record{root: root, size: int64(size), sums: le.Uint64(b[64:])&inodeNoSums == 0}
	n.Entry = source.Entry{Type: kind, Mode: mode & permissionMask, UID: le.Uint32(b[44:]), GID: le.Uint32(b[48:])}
	n.Entry.ModTime = time.Unix(int64(le.Uint64(b[136:])), int64(le.Uint32(b[144:]))).UTC()
	switch kind {
	case source.Regular:
		n.Entry.Size = int64(size)
	case source.CharDevice, source.BlockDevice:
		number := le.Uint64(b[56:]) // MAJOR and MINOR of linux/kdev_t.h
		n.Entry.Major, n.Entry.Minor = uint32(number>>20), uint32(number&(1<<20-1))
	}
	return n, nil
}

// folderItem is btrfs_dir_item: a name and where it leads, or an attribute.
type folderItem struct {
	location   key
	name, data []byte
}

// decodeFolderItems reads the items that lie one behind the other in b.
func decodeFolderItems(b []byte, where string, use func(folderItem) error) error {
	for len(b) > 0 {
		if len(b) < folderItemHead {
			return broken(where, "%d bytes behind a name", len(b))
		}
		k, _ := decodeKey(b)
		data, name := int(le.Uint16(b[25:])), int(le.Uint16(b[27:]))
		if name == 0 || folderItemHead+name+data > len(b) {
			return broken(where, "a name of %d bytes with %d of data, in %d", name, data, len(b))
		}
		rest := b[folderItemHead:]
		if err := use(folderItem{k, rest[:name], rest[name:][:data]}); err != nil {
			return err
		}
		b = rest[name+data:]
	}
	return nil
}

// items calls use for the items of one type of an inode.
func (t *tree) items(n *fsys.Inode, kind uint8, use func(offset uint64, b []byte) error) error {
	if n.ID.Tree&missing != 0 {
		return nil
	}
	return t.f.walk(n.Form.(*record).root, key{object: n.ID.Number, kind: kind}, func(k key, b []byte) (bool, error) {
		if k.object != n.ID.Number || k.kind != kind {
			return false, nil
		}
		return true, use(k.offset, b)
	})
}

// Names reads a folder. A name may lead to the root of another subvolume.
func (t *tree) Names(n *fsys.Inode) ([]fsys.Name, error) {
	var list fsys.List
	where := fmt.Sprintf("tree %d, inode %d", n.ID.Tree, n.ID.Number)
	var subvolumes []int
	err := t.items(n, itemFolderIndex, func(_ uint64, b []byte) error {
		return decodeFolderItems(b, where, func(d folderItem) error {
			id := fsys.ID{Tree: n.ID.Tree, Number: d.location.object}
			switch d.location.kind {
			case itemInode:
			case itemRoot:
				id = fsys.ID{Tree: d.location.object, Number: firstFree}
				subvolumes = append(subvolumes, len(list.Names))
			default:
				return broken(where, "name %q leads to an item of type %d", d.name, d.location.kind)
			}
			if id.Tree&missing != 0 {
				return broken(where, "name %q leads to tree %d", d.name, id.Tree)
			}
			if err := list.Add(d.name, id); err != nil {
				return fmt.Errorf("btrfs %s: %w", where, err)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	for _, i := range subvolumes {
		b, at, err := t.f.one(t.f.super.root, key{n.ID.Tree, itemRootRef, list.Names[i].ID.Tree})
		if err != nil {
			return nil, fmt.Errorf("root tree: %w", err)
		}
		if b == nil || at.offset != list.Names[i].ID.Tree {
			list.Names[i].ID = fsys.ID{Tree: n.ID.Tree | missing, Number: list.Names[i].ID.Tree}
		}
	}
	return list.Names, nil
}

// Xattrs reads an inode's attributes. They have their full names, and access control lists the form in which Linux hands them out.
func (t *tree) Xattrs(n *fsys.Inode) ([]source.Xattr, error) {
	var list []source.Xattr
	left := attrsMost
	err := t.items(n, itemXattr, func(_ uint64, b []byte) error {
		return decodeFolderItems(b, fmt.Sprintf("tree %d, inode %d, attributes", n.ID.Tree, n.ID.Number), func(d folderItem) error {
			if left -= len(d.name) + len(d.data) + 64; left < 0 {
				return fmt.Errorf("btrfs tree %d, inode %d: its attributes are %w", n.ID.Tree, n.ID.Number, fsys.ErrTooLarge)
			}
			list = append(list, source.Xattr{Name: string(d.name), Value: append([]byte{}, d.data...)})
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Readlink gives a symbolic link's target, which is its content.
func (t *tree) Readlink(n *fsys.Inode) (string, error) {
	r := n.Form.(*record)
	if r.size == 0 || r.size > fsys.LinkMost {
		return "", brokenInode(n.ID, "a symbolic link of %d bytes", r.size)
	}
	content, err := t.Content(n)
	if err != nil {
		return "", err
	}
	target, err := io.ReadAll(content)
	if err != nil {
		return "", err
	}
	if strings.ContainsRune(string(target), 0) {
		return "", brokenInode(n.ID, "a symbolic link with a zero byte")
	}
	return string(target), nil
}
