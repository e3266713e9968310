package ext4

import (
	"fmt"
	"maps"
	"slices"
)

// tree goes through all folders.
func (c *checker) tree() error {
	if state := c.state(rootInode); state == nil || state.kind != kindFolder {
		return broken("root", "no folder")
	}
	for _, number := range c.folders {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.folder(number); err != nil {
			return err
		}
	}
	return c.connected()
}

func (c *checker) folder(number uint32) error {
	f := c.f
	n, err := f.readInode(number)
	if err != nil {
		return err
	}
	blocks, err := f.folderBlocks(n)
	if err != nil {
		return err
	}
	var tree *treeWalk
	if f.indexed(n) {
		if tree, err = f.hashTree(n, blocks); err != nil {
			return err
		}
	}
	seen := map[string]struct{}{}
	raw := make([]byte, f.blockSize)
	for place, block := range blocks {
		if err := f.readBlocks(raw, block); err != nil {
			return err
		}
		kind := leafKind
		if tree != nil && tree.inner[place] {
			kind = indexKind
		}
		err := f.parseFolder(n, place, raw, kind, func(e folderEntry) error {
			if _, twice := seen[e.name]; twice {
				return broken(n.where(), "folder with %q twice", e.name)
			}
			seen[e.name] = struct{}{}
			if tree != nil && kind == leafKind && !tree.holds(place, e.name) {
				return tree.problem(place, "%q is in the wrong leaf", e.name)
			}
			return c.entry(n, e)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// entry counts a name.
func (c *checker) entry(n *record, e folderEntry) error {
	to := c.state(e.number)
	if to == nil || to.kind == 0 {
		return broken(n.where(), "%q leads to inode %d, which is not in use", e.name, e.number)
	}
	want := to.kind
	if c.f.super.FeatureIncompat&incompatFileType == 0 {
		want = 0
	}
	if e.kind != want {
		return broken(n.where(), "%q is of kind %d, its inode %d of kind %d", e.name, e.kind, e.number, to.kind)
	}
	switch {
	case e.name == ".":
	case e.name == "..":
		if to.kind != kindFolder {
			return broken(n.where(), "\"..\" is inode %d, no folder", e.number)
		}
		if known, ok := c.parents[n.number]; ok && known != e.number {
			return broken(n.where(), "\"..\" is inode %d, but it is in %d", e.number, known)
		}
		c.parents[n.number] = e.number
	case to.kind == kindFolder:
		if known, ok := c.parents[e.number]; ok && known != n.number {
			return broken(n.where(), "%q is folder inode %d, whose \"..\" is %d", e.name, e.number, known)
		}
		if to.found > 0 || e.number == rootInode {
			return broken(n.where(), "%q is a second name of folder inode %d", e.name, e.number)
		}
		c.parents[e.number] = n.number
		to.found++
	default:
		to.found++
	}
	return nil
}

// connected checks that every folder leads up to the root.
func (c *checker) connected() error {
	if c.parents[rootInode] != rootInode {
		return broken("root", "its parent is inode %d", c.parents[rootInode])
	}
	reached := map[uint32]bool{rootInode: true}
	for _, number := range c.folders {
		var path []uint32
		for at := number; !reached[at]; at = c.parents[at] {
			state := c.state(at)
			if len(path) > len(c.folders) || state == nil || state.found == 0 {
				return broken(fmt.Sprintf("inode %d", number), "folder that the root does not lead to")
			}
			path = append(path, at)
		}
		for _, at := range path {
			reached[at] = true
		}
	}
	return nil
}

// links compares the names found with those that inodes say they have.
func (c *checker) links() error {
	folders := map[uint32]uint32{} // sub-folders
	for number, parent := range c.parents {
		if number != rootInode {
			folders[parent]++
		}
	}
	for group, states := range c.inodes {
		for i, s := range states {
			if s.kind == 0 {
				continue
			}
			number := uint32(group)*c.f.inodesPerGroup + uint32(i) + 1
			want := s.found
			if s.kind == kindFolder {
				want = 2 + folders[number]
				if s.links == 1 && c.f.super.FeatureROCompat&roDirNlink != 0 {
					want = 1 // too many to count, now or once
				}
			}
			if uint32(s.links) != want || want == 0 {
				return broken(fmt.Sprintf("inode %d", number), "%d links, %d counted", s.links, want)
			}
		}
	}
	for _, block := range slices.Sorted(maps.Keys(c.shared)) {
		if s := c.shared[block]; s.says != s.found {
			return broken(fmt.Sprintf("block %d", block), "attributes of %d inodes, %d counted", s.says, s.found)
		}
	}
	return nil
}
