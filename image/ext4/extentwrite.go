package ext4

// extent is a run of a file's blocks.
type extent struct {
	logical uint32
	length  uint32
	start   uint64
}

// addExtent appends blocks, making the last extent longer where they follow it.
func addExtent(list []extent, logical uint32, s span) []extent {
	for s.count > 0 {
		n := uint32(min(s.count, extentMaxLen))
		if last := len(list) - 1; last >= 0 {
			e := &list[last]
			if e.logical+e.length == logical && e.start+uint64(e.length) == s.start && e.length < extentMaxLen {
				n = min(n, extentMaxLen-e.length)
				e.length += n
				logical, s.start, s.count = logical+n, s.start+uint64(n), s.count-uint64(n)
				continue
			}
		}
		list = append(list, extent{logical, n, s.start})
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
	depth := uint16(0)
	level := make([][extentEntry]byte, len(list))
	firsts := make([]uint32, len(list))
	for i, e := range list {
		le.PutUint32(level[i][0:], e.logical)
		le.PutUint16(level[i][4:], uint16(e.length))
		le.PutUint16(level[i][6:], uint16(e.start>>32))
		le.PutUint32(level[i][8:], uint32(e.start))
		firsts[i] = e.logical
	}
	for len(level) > extentsRoot {
		var above [][extentEntry]byte
		var aboveFirsts []uint32
		for len(level) > 0 {
			count := min(len(level), extentsBlock)
			block := w.alloc.take(1)
			n.own(block)
			raw := make([]byte, blockSize)
			putExtentNode(raw, level[:count], extentsBlock, depth)
			le.PutUint32(raw[extentTail:], crc32c(w.inodeSeed(n), raw[:extentTail]))
			if err := w.out.write(block.start, raw); err != nil {
				return err
			}
			var entry [extentEntry]byte
			le.PutUint32(entry[0:], firsts[0])
			le.PutUint32(entry[4:], uint32(block.start))
			le.PutUint16(entry[8:], uint16(block.start>>32))
			above, aboveFirsts = append(above, entry), append(aboveFirsts, firsts[0])
			level, firsts = level[count:], firsts[count:]
		}
		level, firsts = above, aboveFirsts
		depth++
	}
	putExtentNode(n.block[:], level, extentsRoot, depth)
	return nil
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
