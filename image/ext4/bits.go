package ext4

import "math/bits"

// setBits marks a range in a bitmap; the lowest bit of a byte is its first.
func setBits(b []byte, from, to uint32) {
	for i := from; i < to; i++ {
		if i%8 == 0 && to-i >= 8 {
			b[i/8] = 0xff
			i += 7
			continue
		}
		b[i/8] |= 1 << (i % 8)
	}
}

// clearBits counts the bits that are not set. The length is a multiple of 8.
func clearBits(b []byte) (n uint32) {
	for ; len(b) > 0; b = b[8:] {
		n += uint32(bits.OnesCount64(^le.Uint64(b)))
	}
	return n
}
