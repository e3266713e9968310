package ext4

import (
	"cmp"
	"fmt"
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
	entries := make([]folderEntry, 0, len(n.children))
	room := blockSize - dirTailSize
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
	seed := w.inodeSeed(n.inode)
	var blocks [][]byte
	switch {
	case used <= room:
		blocks = append(blocks, leafBlock(append(dots, entries...), seed))
	case n == w.lostFound: // kept a list, so that e2fsck finds its spare blocks in any kernel's view
		blocks = listBlocks(append(dots, entries...), seed)
	default:
		var err error
		if blocks, err = w.hashTree(n, entries, seed); err != nil {
			return err
		}
		n.inode.flags |= inodeIndexed
	}
	for n == w.lostFound && len(blocks) < lostFoundBlocks {
		blocks = append(blocks, leafBlock(nil, seed))
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

// listBlocks fills leaf blocks with entries in their order.
func listBlocks(entries []folderEntry, seed uint32) (blocks [][]byte) {
	for len(entries) > 0 {
		count := fitting(entries)
		blocks = append(blocks, leafBlock(entries[:count], seed))
		entries = entries[count:]
	}
	return blocks
}

// fitting is the number of leading entries that one leaf block holds.
func fitting(entries []folderEntry) int {
	room := blockSize - dirTailSize
	for i, e := range entries {
		if room -= entrySize(e.name); room < 0 {
			return i
		}
	}
	return len(entries)
}

// leafBlock lays entries out; the last takes the room that is left. Without entries the block
// is one empty entry.
func leafBlock(entries []folderEntry, seed uint32) []byte {
	b := make([]byte, blockSize)
	end := blockSize - dirTailSize
	if len(entries) == 0 {
		putEntry(b, folderEntry{}, end)
	}
	at := 0
	for i, e := range entries {
		size := entrySize(e.name)
		if i == len(entries)-1 {
			size = end - at
		}
		putEntry(b[at:], e, size)
		at += size
	}
	tail := b[end:]
	le.PutUint16(tail[4:], dirTailSize)
	tail[7] = kindTail
	le.PutUint32(tail[8:], crc32c(seed, b[:end]))
	return b
}

func putEntry(b []byte, e folderEntry, size int) {
	le.PutUint32(b[0:], e.number)
	le.PutUint16(b[4:], uint16(size))
	b[6] = uint8(len(e.name))
	b[7] = e.kind
	copy(b[entryHead:], e.name)
}

// Places within hash tree blocks (struct dx_root, struct dx_node).
const (
	rootDotDot  = 12
	rootInfo    = 24
	rootEntries = 32
	nodeEntries = 8
	indexEntry  = 8 // u32 hash, u32 block; the first's hash is u16 limit, u16 count instead
)

// indexed is a block of the tree with the lowest hash in it.
type indexed struct {
	hash  uint32
	block uint32
}

// hashTree makes a folder's blocks: the root, leaves sorted by hash, and nodes between them
// where the root is too small.
func (w *Writer) hashTree(n *node, entries []folderEntry, seed uint32) ([][]byte, error) {
	for i := range entries {
		e := &entries[i]
		e.hash, e.minor = nameHash(e.name, hashHalfMD4Unsigned, w.hashSeed)
	}
	slices.SortStableFunc(entries, func(a, b folderEntry) int {
		if a.hash != b.hash {
			return cmp.Compare(a.hash, b.hash)
		}
		return cmp.Compare(a.minor, b.minor)
	})
	blocks := [][]byte{nil} // the root, filled in last
	var leaves []indexed
	previous := uint32(1) // no hash is odd
	for len(entries) > 0 {
		count := fitting(entries)
		hash := entries[0].hash
		if hash == previous {
			hash |= 1 // goes on from the block before
		}
		leaves = append(leaves, indexed{hash, uint32(len(blocks))})
		blocks = append(blocks, leafBlock(entries[:count], seed))
		previous = entries[count-1].hash
		entries = entries[count:]
	}
	const rootMost = (blockSize - rootEntries - indexTailSize) / indexEntry
	const nodeMost = (blockSize - nodeEntries - indexTailSize) / indexEntry
	levels := uint8(0)
	if len(leaves) > rootMost {
		levels = 1
		var above []indexed
		for len(leaves) > 0 {
			count := min(len(leaves), nodeMost)
			node := make([]byte, blockSize)
			putEntry(node, folderEntry{}, blockSize)
			putIndex(node, nodeEntries, nodeMost, leaves[:count], seed)
			above = append(above, indexed{leaves[0].hash, uint32(len(blocks))})
			blocks = append(blocks, node)
			leaves = leaves[count:]
		}
		leaves = above
	}
	if len(leaves) > rootMost {
		return nil, fmt.Errorf("%w: a folder of %d entries", ErrTree, len(n.children))
	}
	root := make([]byte, blockSize)
	putEntry(root, folderEntry{name: ".", number: n.inode.number, kind: kindFolder}, rootDotDot)
	putEntry(root[rootDotDot:], folderEntry{name: "..", number: n.parent.inode.number, kind: kindFolder}, blockSize-rootDotDot)
	root[rootInfo+4] = hashHalfMD4 // signedness is the superblock's
	root[rootInfo+5] = rootEntries - rootInfo
	root[rootInfo+6] = levels
	putIndex(root, rootEntries, rootMost, leaves, seed)
	blocks[0] = root
	return blocks, nil
}

func putIndex(b []byte, at, most int, entries []indexed, seed uint32) {

	for i, e := range entries {
		le.PutUint32(b[at+indexEntry*i:], e.hash)
		le.PutUint32(b[at+indexEntry*i+4:], e.block)
	}
	le.PutUint16(b[at:], uint16(most))
	le.PutUint16(b[at+2:], uint16(len(entries)))
	tail := b[at+indexEntry*most:]
	le.PutUint32(tail[4:], indexChecksum(seed, b, at+indexEntry*len(entries), tail))
}
