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
	hashing nameHashing
	leaves  map[int]hashRange
	inner   map[int]bool
}

// hashTree gives the ranges of all leaves; inner are the places of the other blocks.
func (f *Reader) hashTree(n *record, blocks []uint64) (*treeWalk, error) {
	w, root, levels, err := f.treeRoot(n, blocks)
	if err != nil {
		return nil, err
	}
	if err := w.node(0, root, rootEntries, levels, hashRange{0, 1 << 32}); err != nil {
		return nil, err
	}
	if len(w.leaves)+len(w.inner) != len(blocks) {
		return nil, w.problem(0, "tree of %d blocks, of %d in the folder", len(w.leaves)+len(w.inner), len(blocks))
	}
	return w, nil
}

// treeRoot reads a tree's root, which leads down by so many levels.
func (f *Reader) treeRoot(n *record, blocks []uint64) (w *treeWalk, root []byte, levels uint8, err error) {
	w = &treeWalk{f: f, n: n, blocks: blocks, leaves: map[int]hashRange{}, inner: map[int]bool{0: true}}
	root = make([]byte, f.blockSize)
	if err := f.readBlocks(root, blocks[0]); err != nil {
		return nil, nil, 0, err
	}
	info := root[rootInfo:]
	version, levels := info[4], info[6]
	levelsMost := uint8(1)
	if f.super.FeatureIncompat&incompatLargeDir != 0 {
		levelsMost = 2
	}
	if le.Uint32(info) != 0 || version > hashTEA || info[5] != rootEntries-rootInfo || levels > levelsMost || info[7] != 0 {
		return nil, nil, 0, w.problem(0, "root with hash version %d and %d levels", version, levels)
	}
	if f.recordLength(le.Uint16(root[rootDotDot+4:])) != f.blockSize-rootDotDot {
		return nil, nil, 0, w.problem(0, "root within entries")
	}
	w.hashing = nameHashing{version: version, unsigned: f.super.Flags&flagUnsignedHash != 0, seed: f.hashSeed(), levels: levelsMost}
	return w, root, levels, nil
}

func (w *treeWalk) problem(place int, format string, args ...any) error {
	return broken(fmt.Sprintf("folder inode %d, block %d", w.n.number, place), "hash tree: "+format, args...)
}

// nodeEntries gives the entries of a block that begin at a byte: at least one. The first one's hash counts as 0.
func (w *treeWalk) nodeEntries(place int, raw []byte, at int) ([]indexed, error) {
	tailSize := 0
	if w.f.checksums {
		tailSize = indexTailSize
	}
	most := (len(raw) - at - tailSize) / indexEntry
	limit, count := int(le.Uint16(raw[at:])), int(le.Uint16(raw[at+2:]))
	if limit != most || count == 0 || count > limit {
		return nil, w.problem(place, "%d of %d entries", count, limit)
	}
	if w.f.checksums {
		tail := raw[at+indexEntry*limit:]
		if got, want := le.Uint32(tail[4:]), indexChecksum(w.n.seed, raw, at+indexEntry*count, tail); got != want {
			return nil, w.problem(place, "checksum %#x, not %#x", got, want)
		}
	}
	list := make([]indexed, count)
	for i := range list {
		entry := raw[at+indexEntry*i:]
		list[i] = indexed{le.Uint32(entry), le.Uint32(entry[4:]) & 0x0fffffff} // the kernel masks the rest (dx_get_block)
	}
	list[0].hash = 0
	return list, nil
}

// inside reads the block of a node below the root.
func (w *treeWalk) inside(place int) ([]byte, error) {
	raw := make([]byte, w.f.blockSize)
	if err := w.f.readBlocks(raw, w.blocks[place]); err != nil {
		return nil, err
	}
	if le.Uint32(raw) != 0 || w.f.recordLength(le.Uint16(raw[4:])) != w.f.blockSize {
		return nil, w.problem(place, "node within entries")
	}
	return raw, nil
}

// node checks a block whose entries begin at a byte and lead down by so many levels.
func (w *treeWalk) node(place int, raw []byte, at int, levels uint8, within hashRange) error {
	entries, err := w.nodeEntries(place, raw, at)
	if err != nil {
		return err
	}
	low := within.low
	for i, x := range entries {
		if i > 0 {
			low = uint64(x.hash)
		}
		high := within.high
		if i+1 < len(entries) {
			high = uint64(entries[i+1].hash)
		}
		if low > high || low < within.low || high > within.high {
			return w.problem(place, "hashes out of order at entry %d", i)
		}
		child := int(x.block)
		_, leaf := w.leaves[child]
		if child >= len(w.blocks) || leaf || w.inner[child] {
			return w.problem(place, "entry %d leads to block %d of %d, or does so twice", i, child, len(w.blocks))
		}
		if levels == 0 {
			w.leaves[child] = hashRange{low, high}
			continue
		}
		w.inner[child] = true
		block, err := w.inside(child)
		if err != nil {
			return err
		}
		if err := w.node(child, block, nodeEntries, levels-1, hashRange{low, high}); err != nil {
			return err
		}
	}
	return nil
}

// hashStep is a block on the way down a hash tree.
type hashStep struct {
	place   int
	raw     []byte
	at      int // where its entries begin
	entries []indexed
	i       int // the entry that leads on
}

// hashWay follows a name's hash to the leaf that it belongs into. more says that names of the same hash may be
// in the next leaf, too. Only what is on the way is read and checked.
func (f *Reader) hashWay(n *record, blocks []uint64, name string) (w *treeWalk, way []hashStep, hash uint32, more bool, err error) {
	w, raw, levels, err := f.treeRoot(n, blocks)
	if err != nil {
		return nil, nil, 0, false, err
	}
	hash, _ = w.hashing.hash(name)
	for place, at := 0, rootEntries; ; at = nodeEntries {
		s := hashStep{place: place, raw: raw, at: at}
		if s.entries, err = w.nodeEntries(place, raw, at); err != nil {
			return nil, nil, 0, false, err
		}
		for i, x := range s.entries {
			if i > 0 && x.hash <= hash {
				s.i = i
			}
			more = more || i > 0 && x.hash == hash|1
		}
		way = append(way, s)
		if place = int(s.entries[s.i].block); place >= len(blocks) || place == 0 {
			return nil, nil, 0, false, w.problem(s.place, "entry %d leads to block %d of %d", s.i, place, len(blocks))
		}
		if levels == 0 {
			return w, way, hash, more, nil
		}
		levels--
		if raw, err = w.inside(place); err != nil {
			return nil, nil, 0, false, err
		}
	}
}

// leaf is the place that the way leads to.
func (s hashStep) leaf() int { return int(s.entries[s.i].block) }

// holds says whether a name belongs into a leaf.
func (w *treeWalk) holds(place int, name string) bool {
	r := w.leaves[place]
	hash, _ := w.hashing.hash(name)
	// An odd bound marks a run of equal hashes that goes on across it.
	return uint64(hash) >= r.low&^1 && (uint64(hash) < r.high || r.high&1 != 0 && uint64(hash) == r.high&^1)
}

func (f *Reader) hashSeed() (seed [4]uint32) {
	for i := range seed {
		seed[i] = le.Uint32(f.super.HashSeed[4*i:])
	}
	return seed
}
