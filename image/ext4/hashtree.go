package ext4

import "fmt"

// hashRange is what names a leaf block of a hash tree may have: hashes from low up to high,
// high itself only where a run of equal ones goes on in the next leaf.
type hashRange struct {
	low, high uint64
}

// treeWalk checks a folder's hash tree, the blocks of which are given by place.
type treeWalk struct {
	f       *Reader
	n       *record
	blocks  []uint64
	version uint8
	leaves  map[int]hashRange
	inner   map[int]bool
}

// hashTree gives the ranges of all leaves; inner are the places of the other blocks.
func (f *Reader) hashTree(n *record, blocks []uint64) (*treeWalk, error) {
	w := &treeWalk{f: f, n: n, blocks: blocks, leaves: map[int]hashRange{}, inner: map[int]bool{0: true}}
	root := make([]byte, f.blockSize)
	if err := f.readBlocks(root, blocks[0]); err != nil {
		return nil, err
	}
	info := root[rootInfo:]
	version, levels := info[4], info[6]
	levelsMost := uint8(1)
	if f.super.FeatureIncompat&incompatLargeDir != 0 {
		levelsMost = 2
	}
	if le.Uint32(info) != 0 || version > hashTEA || info[5] != rootEntries-rootInfo || levels > levelsMost || info[7] != 0 {
		return nil, w.problem(0, "root with hash version %d and %d levels", version, levels)
	}
	if f.recordLength(le.Uint16(root[rootDotDot+4:])) != f.blockSize-rootDotDot {
		return nil, w.problem(0, "root within entries")
	}
	w.version = version
	if f.super.Flags&flagUnsignedHash != 0 {
		w.version += hashLegacyUnsigned
	}
	if err := w.node(0, root, rootEntries, levels, hashRange{0, 1 << 32}); err != nil {
		return nil, err
	}
	if len(w.leaves)+len(w.inner) != len(blocks) {
		return nil, w.problem(0, "tree of %d blocks, of %d in the folder", len(w.leaves)+len(w.inner), len(blocks))
	}
	return w, nil
}

func (w *treeWalk) problem(place int, format string, args ...any) error {
	return broken(fmt.Sprintf("folder inode %d, block %d", w.n.number, place), "hash tree: "+format, args...)
}

// node checks a block whose entries begin at a byte and lead down by so many levels.
func (w *treeWalk) node(place int, raw []byte, at int, levels uint8, within hashRange) error {
	tailSize := 0
	if w.f.checksums {
		tailSize = indexTailSize
	}
	most := (len(raw) - at - tailSize) / indexEntry
	limit, count := int(le.Uint16(raw[at:])), int(le.Uint16(raw[at+2:]))
	if limit != most || count == 0 || count > limit {
		return w.problem(place, "%d of %d entries", count, limit)
	}
	if w.f.checksums {
		tail := raw[at+indexEntry*limit:]
		if got, want := le.Uint32(tail[4:]), indexChecksum(w.n.seed, raw, at+indexEntry*count, tail); got != want {
			return w.problem(place, "checksum %#x, not %#x", got, want)
		}
	}
	low := within.low
	for i := range count {
		if i > 0 {
			low = uint64(le.Uint32(raw[at+indexEntry*i:]))
		}
		high := within.high
		if i+1 < count {
			high = uint64(le.Uint32(raw[at+indexEntry*(i+1):]))
		}
		if low > high || low < within.low || high > within.high {
			return w.problem(place, "hashes out of order at entry %d", i)
		}
		child := int(le.Uint32(raw[at+indexEntry*i+4:]) & 0x0fffffff) // the kernel masks the rest (dx_get_block)
		_, leaf := w.leaves[child]
		if child >= len(w.blocks) || leaf || w.inner[child] {
			return w.problem(place, "entry %d leads to block %d of %d, or does so twice", i, child, len(w.blocks))
		}
		if levels == 0 {
			w.leaves[child] = hashRange{low, high}
			continue
		}
		w.inner[child] = true
		block := make([]byte, w.f.blockSize)
		if err := w.f.readBlocks(block, w.blocks[child]); err != nil {
			return err
		}
		if le.Uint32(block) != 0 || w.f.recordLength(le.Uint16(block[4:])) != w.f.blockSize {
			return w.problem(child, "node within entries")
		}
		if err := w.node(child, block, nodeEntries, levels-1, hashRange{low, high}); err != nil {
			return err
		}
	}
	return nil
}

// holds says whether a name belongs into a leaf.
func (w *treeWalk) holds(place int, name string) bool {
	r := w.leaves[place]
	hash, _ := nameHash(name, w.version, w.f.hashSeed())
	// An odd bound marks a run of equal hashes that goes on across it.
	return uint64(hash) >= r.low&^1 && (uint64(hash) < r.high || r.high&1 != 0 && uint64(hash) == r.high&^1)
}

func (f *Reader) hashSeed() (seed [4]uint32) {
	for i := range seed {
		seed[i] = le.Uint32(f.super.HashSeed[4*i:])
	}
	return seed
}
