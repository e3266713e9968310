package ext4

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// place is where a path leads: a name in a folder.
type place struct {
	folder *record
	name   string
	n      *record // nil where the name is missing
}

// find follows a path, and symbolic links within it.
func (f *Reader) find(path string) (*record, error) {
	p, err := f.existing(path, true)
	return p.n, err
}

// existing is resolve for a name that must be there.
func (f *Reader) existing(path string, follow bool) (place, error) {
	p, err := f.resolve(path, follow, nil)
	if err == nil && p.n == nil {
		err = fmt.Errorf("%w: %q", ErrNotFound, p.name)
	}
	if err != nil {
		return place{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// resolve follows a path, and symbolic links within the root; a link as the path's last name only if follow
// says so. The last name may be missing. For another that is, missing is called, if given, to make a folder.
func (f *Reader) resolve(path string, follow bool, missing func(folder *record, name string) (*record, error)) (place, error) {
	root, err := f.readInode(rootInode)
	if err != nil {
		return place{}, err
	}
	at := place{folder: root, n: root}
	above := []place{}
	rest, hops := elements(path), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			if last := len(above) - 1; last >= 0 {
				at, above = above[last], above[:last]
				if at.n, err = f.readInode(at.n.number); err != nil { // missing may have changed it
					return place{}, err
				}
			}
			continue
		}
		child, err := f.child(at.n, name)
		if errors.Is(err, errNoName) && len(rest) == 0 {
			return place{folder: at.n, name: name}, nil
		}
		if errors.Is(err, errNoName) && missing != nil {
			child, err = missing(at.n, name)
		}
		if err != nil {
			return place{}, err
		}
		if child.kind() == kindSymlink && (follow || len(rest) > 0) {
			target, err := f.readlink(child)
			if err != nil {
				return place{}, err
			}
			if hops++; hops > linkHops {
				return place{}, fmt.Errorf("%w: too many symbolic links", ErrNotFound)
			}
			if strings.HasPrefix(target, "/") && len(above) > 0 {
				at, above = above[0], nil
			}
			rest = append(elements(target), rest...)
			continue
		}
		above = append(above, at)
		at = place{at.n, name, child}
	}
	return at, nil
}

// elements gives the names of a path.
func elements(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}

// errNoName is ErrNotFound for a name that a folder does not have.
var errNoName = fmt.Errorf("%w", ErrNotFound)

// child looks a name up.
func (f *Reader) child(folder *record, name string) (*record, error) {
	number, err := f.lookup(folder, name)
	if err != nil {
		return nil, err
	}
	if number == 0 {
		return nil, fmt.Errorf("%w: %q", errNoName, name)
	}
	return f.readInode(number)
}

// lookup gives the inode of a name, 0 where it is missing.
func (f *Reader) lookup(folder *record, name string) (number uint32, err error) {
	if folder.kind() != kindFolder {
		return 0, fmt.Errorf("%w: inode %d is no folder", ErrNotFound, folder.number)
	}
	blocks, err := f.folderBlocks(folder)
	if err != nil {
		return 0, err
	}
	if f.indexed(folder) {
		_, way, _, more, err := f.hashWay(folder, blocks, name)
		if err != nil {
			return 0, err
		}
		if !more {
			return f.lookupIn(folder, blocks, way[len(way)-1].leaf(), name)
		}
		list, err := f.entries(folder)
		for _, e := range list {
			if e.name == name {
				number = e.number
			}
		}
		return number, err
	}
	for place := range blocks {
		if number, err = f.lookupIn(folder, blocks, place, name); number != 0 || err != nil {
			return number, err
		}
	}
	return 0, nil
}

// lookupIn looks a name up in a leaf.
func (f *Reader) lookupIn(folder *record, blocks []uint64, place int, name string) (number uint32, err error) {
	raw := make([]byte, f.blockSize)
	if err := f.readBlocks(raw, blocks[place]); err != nil {
		return 0, err
	}
	err = f.parseFolder(folder, place, raw, leafKind, func(e folderEntry) error {
		if e.name == name {
			number = e.number
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return number, nil
}

// indexed says whether a folder has a hash tree.
func (f *Reader) indexed(n *record) bool {
	return n.flags&inodeIndexed != 0 && f.super.FeatureCompat&compatDirIndex != 0
}
