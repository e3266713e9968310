package ext4

import (
	"cmp"
	"fmt"
	"slices"
)

// folderForm is how the blocks of a folder are laid out.
type folderForm struct {
	size      int // of a block
	checksums bool
	seed      uint32 // of the folder's checksums
}

// nameHashing is how a folder's tree hashes names.
type nameHashing struct {
	version  uint8 // as the tree's root has it; signedness is the superblock's
	unsigned bool
	seed     [4]uint32
	levels   uint8 // most levels of nodes below the root
}

func (h nameHashing) hash(name string) (hash, minor uint32) {
	version := h.version
	if h.unsigned {
		version += hashLegacyUnsigned
	}
	return nameHash(name, version, h.seed)
}

// room is what entries may take of a leaf block.
func (f folderForm) room() int {
	if f.checksums {
		return f.size - dirTailSize
	}
	return f.size
}

// list fills leaf blocks with entries in their order.
func (f folderForm) list(entries []folderEntry) (blocks [][]byte) {
	for len(entries) > 0 {
		count := fitting(entries, f.room())
		blocks = append(blocks, f.leaf(entries[:count]))
		entries = entries[count:]
	}
	return blocks
}

// fitting is the number of leading entries that so many bytes hold.
func fitting(entries []folderEntry, room int) int {
	for i, e := range entries {
		if room -= entrySize(e.name); room < 0 {
			return i
		}
	}
	return len(entries)
}

// leaf lays entries out; the last takes the room that is left. Without entries the block
// is one empty entry.
func (f folderForm) leaf(entries []folderEntry) []byte {
	b := make([]byte, f.size)
	end := f.room()
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
	f.seal(b)
	return b
}

// seal puts the checksum behind a leaf block's entries.
func (f folderForm) seal(b []byte) {
	if !f.checksums {
		return
	}
	end := f.room()
	tail := b[end:]
	clear(tail)
	le.PutUint16(tail[4:], dirTailSize)
	tail[7] = kindTail
	le.PutUint32(tail[8:], crc32c(f.seed, b[:end]))
}

// putEntry writes an entry. Of a size of 64 KiB, in a block of as much, 0 is what the format has.
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

// tree makes a folder's blocks: the root, leaves sorted by hash and filled up to so many bytes, and
// nodes between them where the root is too small.
func (f folderForm) tree(dots, entries []folderEntry, h nameHashing, fill int) ([][]byte, error) {
	count := len(entries)
	h.sort(entries)
	blocks := [][]byte{nil} // the root, filled in last
	var leaves []indexed
	previous := uint32(1) // no hash is odd
	for len(entries) > 0 {
		count := fitting(entries, fill)
		hash := entries[0].hash
		if hash == previous {
			hash |= 1 // goes on from the block before
		}
		leaves = append(leaves, indexed{hash, uint32(len(blocks))})
		blocks = append(blocks, f.leaf(entries[:count]))
		previous = entries[count-1].hash
		entries = entries[count:]
	}
	rootMost, nodeMost := f.indexMost(rootEntries), f.indexMost(nodeEntries)
	levels := uint8(0)
	for len(leaves) > rootMost && levels < h.levels {
		levels++
		var above []indexed
		for len(leaves) > 0 {
			count := min(len(leaves), nodeMost)
			node := make([]byte, f.size)
			putEntry(node, folderEntry{}, f.size)
			f.putIndex(node, nodeEntries, leaves[:count])
			above = append(above, indexed{leaves[0].hash, uint32(len(blocks))})
			blocks = append(blocks, node)
			leaves = leaves[count:]
		}
		leaves = above
	}
	if len(leaves) > rootMost {
		return nil, fmt.Errorf("%w: a folder of %d entries", ErrTree, count)
	}
	root := make([]byte, f.size)
	putEntry(root, dots[0], rootDotDot)
	putEntry(root[rootDotDot:], dots[1], f.size-rootDotDot)
	root[rootInfo+4] = h.version
	root[rootInfo+5] = rootEntries - rootInfo
	root[rootInfo+6] = levels
	f.putIndex(root, rootEntries, leaves)
	blocks[0] = root
	return blocks, nil
}

// sort gives entries the order of the tree.
func (h nameHashing) sort(entries []folderEntry) {
	for i := range entries {
		e := &entries[i]
		e.hash, e.minor = h.hash(e.name)
	}
	slices.SortStableFunc(entries, func(a, b folderEntry) int {
		if a.hash != b.hash {
			return cmp.Compare(a.hash, b.hash)
		}
		return cmp.Compare(a.minor, b.minor)
	})
}

// indexMost is how many entries a block of the tree has whose entries begin at a byte.
func (f folderForm) indexMost(at int) int {
	if f.checksums {
		return (f.size - at - indexTailSize) / indexEntry
	}
	return (f.size - at) / indexEntry
}

func (f folderForm) putIndex(b []byte, at int, entries []indexed) {
	for i, e := range entries {
		le.PutUint32(b[at+indexEntry*i:], e.hash)
		le.PutUint32(b[at+indexEntry*i+4:], e.block)
	}
	most := f.indexMost(at)
	le.PutUint16(b[at:], uint16(most))
	le.PutUint16(b[at+2:], uint16(len(entries)))
	if f.checksums {
		tail := b[at+indexEntry*most:]
		le.PutUint32(tail[4:], indexChecksum(f.seed, b, at+indexEntry*len(entries), tail))
	}
}
