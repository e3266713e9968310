package btrfs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sealboot/sealboot/image/fsys"
)

// rootItemLeast is the length of btrfs_root_item before its second generation.
const rootItemLeast = 239

// root gives a tree by its number: of a subvolume, or one of the file system's own. The error is fsys.ErrNotFound where there is none.
func (f *Reader) root(number uint64) (pointer, error) {
	f.mutex.Lock()
	p, known := f.roots[number]
	f.mutex.Unlock()
	if known {
		return p, nil
	}
	b, _, err := f.one(f.super.root, key{object: number, kind: itemRoot})
	if err != nil {
		return pointer{}, fmt.Errorf("root tree: %w", err)
	}
	if b == nil {
		return pointer{}, fmt.Errorf("%w: tree %d", fsys.ErrNotFound, number)
	}
	if len(b) < rootItemLeast || b[238] >= levelsMost {
		return pointer{}, broken(fmt.Sprintf("tree %d", number), "a root of %d bytes", len(b))
	}
	p = pointer{le.Uint64(b[176:]), le.Uint64(b[160:]), int(b[238])}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if len(f.roots) >= subvolumesMost {
		clear(f.roots)
	}
	f.roots[number] = p
	return p, nil
}

// defaultSubvolume gives the subvolume that is mounted when no other is named (btrfs subvolume set-default).
func (f *Reader) defaultSubvolume() (uint64, error) {
	number := uint64(topLevel)
	object := f.super.rootFolder
	err := f.walk(f.super.root, key{object: object, kind: itemFolder}, func(k key, b []byte) (bool, error) {
		if k.object != object || k.kind != itemFolder {
			return false, nil
		}
		return true, decodeFolderItems(b, fmt.Sprintf("root tree's folder %d", object), func(d folderItem) error {
			if string(d.name) == "default" && d.location.kind == itemRoot {
				number = d.location.object
			}
			return nil
		})
	})
	if err != nil {
		return 0, fmt.Errorf("root tree: %w", err)
	}
	if _, err := f.root(number); err != nil {
		return 0, fmt.Errorf("default subvolume: %w", err)
	}
	return number, nil
}

// Subvolume is a tree of files of its own, which a mount may begin at.
type Subvolume struct {
	Number uint64
	Path   string // from the top-level subvolume, whose own is "/"
}

const subvolumesMost = 1 << 12

// Subvolumes lists all subvolumes and snapshots, in the order of their paths.
func (f *Reader) Subvolumes() ([]Subvolume, error) {
	type parent struct {
		number, folder uint64
		name           string
	}
	parents := map[uint64]parent{}
	err := f.walk(f.super.root, key{object: firstFree}, func(k key, b []byte) (bool, error) {
		if k.kind != itemRootBack {
			return true, nil
		}
		if len(b) < 18 || len(b) != 18+int(le.Uint16(b[16:])) { // btrfs_root_ref
			return false, broken(fmt.Sprintf("subvolume %d", k.object), "a name in %d bytes", len(b))
		}
		if parents[k.object] = (parent{k.offset, le.Uint64(b), string(b[18:])}); len(parents) > subvolumesMost {
			return false, fmt.Errorf("btrfs: its subvolumes are %w", fsys.ErrTooLarge)
		}
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("root tree: %w", err)
	}
	list := []Subvolume{{topLevel, "/"}}
	for number := range parents {
		path := ""
		at := number
		for steps := 0; at != topLevel; steps++ {
			p, ok := parents[at]
			if !ok || steps > len(parents) {
				return nil, broken(fmt.Sprintf("subvolume %d", number), "is not below the top-level one")
			}
			folder, err := f.folderPath(p.number, p.folder)
			if err != nil {
				return nil, err
			}
			if path = folder + "/" + p.name + path; len(path) > pathMost {
				return nil, broken(fmt.Sprintf("subvolume %d", number), "path of more than %d bytes", pathMost)
			}
			at = p.number
		}
		list = append(list, Subvolume{number, path})
	}
	slices.SortFunc(list, func(a, b Subvolume) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

// pathMost is the longest path of a subvolume (Linux PATH_MAX).
const pathMost = 4096

// folderPath gives a folder's path in its subvolume: "" for the root folder.
func (f *Reader) folderPath(tree, number uint64) (string, error) {
	root, err := f.root(tree)
	if err != nil {
		return "", err
	}
	path := ""
	for number != firstFree {
		b, at, err := f.one(root, key{object: number, kind: itemInodeRef})
		if err != nil {
			return "", err
		}
		if len(b) < 10 || len(b) < 10+int(le.Uint16(b[8:])) || len(path) > pathMost { // btrfs_inode_ref
			return "", broken(fmt.Sprintf("tree %d, inode %d", tree, number), "no name, or too deep a folder")
		}
		path = "/" + string(b[10:][:le.Uint16(b[8:])]) + path
		number = at.offset
	}
	return path, nil
}

// Subvolume gives the files of a subvolume by its path from the top-level one, as in the mount option subvol= ("/@", "@").
func (f *Reader) Subvolume(path string) (*fsys.Files, error) {
	n, err := f.files(topLevel).Node(path)
	if err != nil {
		return nil, err
	}
	if n.ID().Number != firstFree || n.ID().Tree&missing != 0 {
		return nil, fmt.Errorf("%s: %w: not a subvolume", path, fsys.ErrNotFound)
	}
	return f.files(n.ID().Tree), nil
}
