package ext4

// span is a run of blocks.
type span struct{ start, count uint64 }

// bitmap marks the blocks of one group.
type bitmap [blockSize]byte

func (b *bitmap) set(from, to uint32) { setBits(b[:], from, to) }

func (b *bitmap) unset(from, to uint32) {
	for i := from; i < to; i++ {
		b[i/8] &^= 1 << (i % 8)
	}
}

// allocator hands out blocks upward, then those that were given back. When there are none
// left it goes on with numbers behind the end, so that the need can be told in the end.
type allocator struct {
	geometry *geometry
	next     uint64
	freed    []span
	used     uint64             // blocks in use now
	maps     map[uint32]*bitmap // groups in which blocks were handed out; fixed metadata is not in them
	full     bool               // blocks behind the end were handed out
}

func newAllocator(g *geometry) *allocator {
	return &allocator{geometry: g, maps: map[uint32]*bitmap{}}
}

// take gives between 1 and want adjoining blocks.
func (a *allocator) take(want uint64) span {
	if room := a.room(); room > 0 {
		got := span{a.next, min(want, room)}
		a.next += got.count
		a.mark(got, true)
		return got
	}
	if n := len(a.freed); n > 0 {
		last := &a.freed[n-1]
		got := span{last.start, min(want, last.count)}
		last.start += got.count
		last.count -= got.count
		if last.count == 0 {
			a.freed = a.freed[:n-1]
		}
		a.mark(got, true)
		return got
	}
	a.full = true
	a.next = max(a.next, a.geometry.blocks)
	got := span{a.next, want}
	a.next += want
	a.used += want
	return got
}

// room moves on to the next free block and says how many adjoin there.
func (a *allocator) room() uint64 {
	g := a.geometry
	for a.next < g.blocks {
		group := uint32(a.next / groupBlocks)
		free := g.groupStart(group) + uint64(g.head(group))
		end := g.groupStart(group) + uint64(g.groupLen(group))
		a.next = max(a.next, free)
		if a.next >= end {
			a.next = end
			continue
		}
		for next := group + 1; next < g.groups && g.head(next) == 0; next++ {
			end = g.groupStart(next) + uint64(g.groupLen(next))
		}
		return end - a.next
	}
	return 0
}

// giveBack frees blocks.
func (a *allocator) giveBack(s span) {
	if s.start >= a.geometry.blocks {
		a.used -= s.count
		return
	}
	a.mark(s, false)
	a.freed = append(a.freed, s)
}

func (a *allocator) mark(s span, used bool) {
	if used {
		a.used += s.count
	} else {
		a.used -= s.count
	}
	for s.count > 0 {
		group := uint32(s.start / groupBlocks)
		from := uint32(s.start % groupBlocks)
		n := uint32(min(s.count, uint64(groupBlocks-from)))
		m := a.maps[group]
		if m == nil {
			m = new(bitmap)
			a.maps[group] = m
		}
		if used {
			m.set(from, from+n)
		} else {
			m.unset(from, from+n)
		}
		s.start += uint64(n)
		s.count -= uint64(n)
	}
}
