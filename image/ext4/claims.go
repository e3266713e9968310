package ext4

import (
	"fmt"
	"math/bits"
)

// claims notes the owner of every block: that it has one, not which. Only groups with claims
// take memory.
type claims struct {
	f    *Reader
	maps map[uint32][]uint64
}

func newClaims(f *Reader) *claims { return &claims{f: f, maps: map[uint32][]uint64{}} }

// add claims blocks that no one has claimed.
func (c *claims) add(s span) error {
	if err := c.f.within(s); err != nil {
		return err
	}
	for block := s.start; block < s.start+s.count; {
		group, at := c.f.groupOf(block)
		m := c.group(group)
		word, bit := at/64, at%64
		n := min(s.start+s.count-block, uint64(64-bit), uint64(c.f.groupLen(group)-at))
		mask := ^uint64(0) >> (64 - n) << bit
		if twice := m[word] & mask; twice != 0 {
			return fmt.Errorf("block %d has two owners", block+uint64(bits.TrailingZeros64(twice)-int(bit)))
		}
		m[word] |= mask
		block += n
	}
	return nil
}

func (c *claims) group(group uint32) []uint64 {
	m := c.maps[group]
	if m == nil {
		m = make([]uint64, (c.f.groupBlocks+63)/64)
		c.maps[group] = m
	}
	return m
}

// compare finds the first block of a group that is claimed and not marked, or the reverse.
func (c *claims) compare(group uint32, bitmap []byte) error {
	m := c.maps[group]
	length := c.f.groupLen(group)
	for i := uint32(0); i < length; i += 64 {
		claimed, marked := uint64(0), le.Uint64(bitmap[i/8:])
		if m != nil {
			claimed = m[i/64]
		}
		if rest := length - i; rest < 64 { // behind the group's end all is marked
			marked &= 1<<rest - 1
		}
		if claimed == marked {
			continue
		}
		first := bits.TrailingZeros64(claimed ^ marked)
		block := c.f.groupStart(group) + uint64(i) + uint64(first)
		if claimed>>first&1 != 0 {
			return fmt.Errorf("block %d is in use and marked free", block)
		}
		return fmt.Errorf("block %d is marked as in use and belongs to nothing", block)
	}
	return nil
}
