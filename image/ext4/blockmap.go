package ext4

import "fmt"

// mapping is a run of blocks that an inode owns.
type mapping struct {
	logical   uint64 // place of content, in blocks; of metadata the first place that it is about
	blocks    span
	metadata  bool // of the tree itself
	unwritten bool // reserved: reads as zeros
}

// blockMap calls visit for all blocks of an inode: content in ascending order, each tree block before
// what it leads to. Blocks are within the file system's groups. A file without blocks calls nothing.
func (f *Reader) blockMap(n *record, visit func(mapping) error) error {
	switch n.kind() {
	case kindRegular, kindFolder:
	case kindSymlink:
		if n.fast() {
			return nil
		}
	default:
		return nil
	}
	w := &mapWalk{f: f, n: n, visit: visit}
	if n.flags&inodeExtents != 0 {
		depth := le.Uint16(n.block[6:])
		if depth > extentDepthMax {
			return broken(n.where(), "extent tree of depth %d", depth)
		}
		return w.extents(n.block[:], depth, 0, 1<<32, true)
	}
	for i := range directBlocks {
		if err := w.indirect(le.Uint32(n.block[4*i:]), 0); err != nil {
			return err
		}
	}
	for levels := 1; levels <= 3; levels++ {
		if err := w.indirect(le.Uint32(n.block[4*(directBlocks+levels-1):]), levels); err != nil {
			return err
		}
	}
	return nil
}

const extentDepthMax = 5 // EXT4_MAX_EXTENT_DEPTH

// mapWalk goes through one inode's tree.
type mapWalk struct {
	f     *Reader
	n     *record
	visit func(mapping) error
	nodes uint64 // tree blocks read: no more than the file system has blocks
	next  uint64 // next place of content in an indirect map
}

// node reads a tree block.
func (w *mapWalk) node(block uint64, logical uint64) ([]byte, error) {
	if err := w.f.within(span{block, 1}); err != nil {
		return nil, broken(w.n.where(), "tree %v", err)
	}
	if w.nodes++; w.nodes > w.f.blocks {
		return nil, broken(w.n.where(), "tree larger than the file system")
	}
	if err := w.visit(mapping{logical: logical, blocks: span{block, 1}, metadata: true}); err != nil {
		return nil, err
	}
	raw := make([]byte, w.f.blockSize)
	return raw, w.f.readBlocks(raw, block)
}

// within checks that blocks belong to groups.
func (f *Reader) within(s span) error {
	if s.start < f.firstBlock() || s.start >= f.blocks || s.count > f.blocks-s.start {
		return fmt.Errorf("blocks %d+%d outside the file system of %d", s.start, s.count, f.blocks)
	}
	return nil
}

// extents goes through a node of the tree, whose content must be within [low, high).
func (w *mapWalk) extents(raw []byte, depth uint16, low, high uint64, root bool) error {
	problem := func(format string, args ...any) error { return broken(w.n.where(), format, args...) }
	count, most := int(le.Uint16(raw[2:])), int(le.Uint16(raw[4:]))
	if le.Uint16(raw[0:]) != extentMagic || le.Uint16(raw[6:]) != depth {
		return problem("extent node with magic number %#x and depth %d, %d expected", le.Uint16(raw[0:]), le.Uint16(raw[6:]), depth)
	}
	if most != (len(raw)-extentEntry)/extentEntry || count > most || count == 0 && (!root || depth > 0) {
		return problem("extent node with %d of %d entries", count, most)
	}
	if !root && w.f.checksums {
		tail := extentEntry * (1 + most)
		if got, want := le.Uint32(raw[tail:]), crc32c(w.n.seed, raw[:tail]); got != want {
			return problem("extent node with checksum %#x, not %#x", got, want)
		}
	}
	for i := range count {
		entry := raw[extentEntry*(1+i):][:extentEntry]
		logical := uint64(le.Uint32(entry))
		if logical < low || logical >= high {
			return problem("extent at block %d of the file, not within %d to %d", logical, low, high)
		}
		if depth == 0 {
			m := mapping{logical: logical, blocks: span{uint64(le.Uint32(entry[8:])) | uint64(le.Uint16(entry[6:]))<<32, uint64(le.Uint16(entry[4:]))}}
			if m.blocks.count > extentMaxLen {
				m.blocks.count -= extentMaxLen
				m.unwritten = true
			}
			if m.blocks.count == 0 || m.blocks.count > high-logical {
				return problem("extent of %d blocks at %d, not within %d to %d", m.blocks.count, logical, low, high)
			}
			if err := w.f.within(m.blocks); err != nil {
				return problem("extent of %v", err)
			}
			if err := w.visit(m); err != nil {
				return err
			}
			low = logical + m.blocks.count
			continue
		}
		end := high
		if i+1 < count {
			end = uint64(le.Uint32(raw[extentEntry*(2+i):]))
		}
		child, err := w.node(uint64(le.Uint32(entry[4:]))|uint64(le.Uint16(entry[8:]))<<32, logical)
		if err != nil {
			return err
		}
		if first := uint64(le.Uint32(child[extentEntry:])); first != logical {
			return problem("extent node of block %d begins with %d", logical, first)
		}
		if end <= logical || end > high {
			return problem("extent nodes out of order at %d", logical)
		}
		if err := w.extents(child, depth-1, logical, end, false); err != nil {
			return err
		}
		low = end
	}
	return nil
}

// indirect goes through a block of an older map: levels of blocks of addresses above content.
func (w *mapWalk) indirect(block uint32, levels int) error {
	covered := uint64(1)
	for range levels {
		covered *= uint64(w.f.blockSize / 4)
	}
	if block == 0 {
		w.next += covered
		return nil
	}
	if levels == 0 {
		m := mapping{logical: w.next, blocks: span{uint64(block), 1}}
		w.next++
		if err := w.f.within(m.blocks); err != nil {
			return broken(w.n.where(), "content in %v", err)
		}
		return w.visit(m)
	}
	raw, err := w.node(uint64(block), w.next)
	if err != nil {
		return err
	}
	for ; len(raw) > 0; raw = raw[4:] {
		if err := w.indirect(le.Uint32(raw), levels-1); err != nil {
			return err
		}
	}
	return nil
}
