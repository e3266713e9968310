package ext4

import (
	"slices"
	"strings"
)

// lostFoundBlocks is kept ready for e2fsck, as mke2fs does it (16 KiB).
const lostFoundBlocks = 4

const entryHead = 8 // of struct ext4_dir_entry_2 before the name

func entrySize(name string) int { return entryHead + (len(name)+3)&^3 }

// folderEntry is a name on its way to the disk.
type folderEntry struct {
	name        string
	hash, minor uint32
	number      uint32
	kind        uint8
}

// writeFolder writes a folder's blocks: one block as a list in the order of names; more as a
// hash tree over full leaf blocks.
func (w *Writer) writeFolder(n *node) error {
	form := folderForm{size: blockSize, checksums: true, seed: w.inodeSeed(n.inode)}
	entries := make([]folderEntry, 0, len(n.children))
	used := 2 * entrySize("..")
	for name, child := range n.children {
		entries = append(entries, folderEntry{name: name, number: child.inode.number, kind: child.inode.kind()})
		used += entrySize(name)
	}
	slices.SortFunc(entries, func(a, b folderEntry) int { return strings.Compare(a.name, b.name) })
	dots := []folderEntry{
		{name: ".", number: n.inode.number, kind: kindFolder},
		{name: "..", number: n.parent.inode.number, kind: kindFolder},
	}
	var blocks [][]byte
	switch {
	case used <= form.room():
		blocks = append(blocks, form.leaf(append(dots, entries...)))
	case n == w.lostFound: // kept a list, so that e2fsck finds its spare blocks in any kernel's view
		blocks = form.list(append(dots, entries...))
	default:
		var err error
		hash := nameHashing{version: hashHalfMD4, unsigned: true, seed: w.hashSeed, levels: 1}
		if blocks, err = form.tree(dots, entries, hash, form.room()); err != nil {
			return err
		}
		n.inode.flags |= inodeIndexed
	}
	for n == w.lostFound && len(blocks) < lostFoundBlocks {
		blocks = append(blocks, form.leaf(nil))
	}
	return w.writeBlocks(n.inode, blocks)
}

// writeBlocks stores an inode's whole content.
func (w *Writer) writeBlocks(n *inode, blocks [][]byte) error {
	var list []extent
	for i := 0; i < len(blocks); {
		got := w.alloc.take(uint64(len(blocks) - i))
		list = addExtent(list, uint32(i), got)
		for j := range got.count {
			if err := w.out.write(got.start+j, blocks[i]); err != nil {
				return err
			}
			i++
		}
	}
	n.size = int64(len(blocks)) * blockSize
	return w.mapBlocks(n, list)
}
