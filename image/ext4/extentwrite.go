package ext4

// extent is a run of a file's blocks.
type extent struct {
	logical uint32
	length  uint32
	start   uint64

	unwritten bool // reserved: reads as zeros
}

// addExtent appends blocks, making the last extent longer where they follow it.
func addExtent(list []extent, logical uint32, s span) []extent {
	for s.count > 0 {
		n := uint32(min(s.count, extentMaxLen))
		if last := len(list) - 1; last >= 0 {
			e := &list[last]
			if e.logical+e.length == logical && e.start+uint64(e.length) == s.start && e.length < extentMaxLen && !e.unwritten {
				n = min(n, extentMaxLen-e.length)
				e.length += n
				logical, s.start, s.count = logical+n, s.start+uint64(n), s.count-uint64(n)
				continue
			}
		}
		list = append(list, extent{logical: logical, length: n, start: s.start})
		logical, s.start, s.count = logical+n, s.start+uint64(n), s.count-uint64(n)
	}
	return list
}

const (
	extentEntry  = 12                                      // of header, leaf and index entries alike
	extentsRoot  = (60 - extentEntry) / extentEntry        // entries in the inode
	extentsBlock = (blockSize - extentEntry) / extentEntry // entries in a block, its checksum behind them
	extentTail   = extentEntry + extentsBlock*extentEntry  // place of that checksum
)

// mapBlocks makes an inode own blocks: the tree goes to the inode, and to blocks of its own
// where it does not fit.
func (w *Writer) mapBlocks(n *inode, list []extent) error {
	n.flags |= inodeExtents
	for _, e := range list {
		n.own(span{e.start, uint64(e.length)})
	}
	tree := extentTree{size: blockSize, checksums: true, seed: w.inodeSeed(n),
		take: func() (uint64, error) {
			block := w.alloc.take(1)
			n.own(block)
			return block.start, nil
		},
		put: w.out.write}
	var err error
	n.block, err = tree.build(list)
	return err
}

// extentTree makes the tree over a file's extents.
type extentTree struct {
	size      int // of a block
	checksums bool
	seed      uint32
	take      func() (uint64, error) // gives a block for a node
	put       func(block uint64, raw []byte) error
}

func (t *extentTree) build(list []extent) (root [60]byte, err error) {
	depth := uint16(0)
	level := make([][extentEntry]byte, len(list))
	for i, e := range list {
		length := e.length
		if e.unwritten {
			length += extentMaxLen
		}
		le.PutUint32(level[i][0:], e.logical)
		le.PutUint16(level[i][4:], uint16(length))
		le.PutUint16(level[i][6:], uint16(e.start>>32))
		le.PutUint32(level[i][8:], uint32(e.start))
	}
	most := (t.size - extentEntry) / extentEntry
	for len(level) > extentsRoot {
		var above [][extentEntry]byte
		for len(level) > 0 {
			count := min(len(level), most)
			block, err := t.take()
			if err != nil {
				return [60]byte{}, err
			}
			raw := make([]byte, t.size)
			putExtentNode(raw, level[:count], most, depth)
			if t.checksums {
				tail := extentEntry * (1 + most)
				le.PutUint32(raw[tail:], crc32c(t.seed, raw[:tail]))
			}
			if err := t.put(block, raw); err != nil {
				return [60]byte{}, err
			}
			var entry [extentEntry]byte
			copy(entry[:4], level[0][:4])
			le.PutUint32(entry[4:], uint32(block))
			le.PutUint16(entry[8:], uint16(block>>32))
			above = append(above, entry)
			level = level[count:]
		}
		level = above
		depth++
	}
	putExtentNode(root[:], level, extentsRoot, depth)
	return root, nil
}

func putExtentNode(b []byte, entries [][extentEntry]byte, most int, depth uint16) {
	le.PutUint16(b[0:], extentMagic)
	le.PutUint16(b[2:], uint16(len(entries)))
	le.PutUint16(b[4:], uint16(most))
	le.PutUint16(b[6:], depth)
	for i := range entries {
		copy(b[extentEntry*(1+i):], entries[i][:])
	}
}
