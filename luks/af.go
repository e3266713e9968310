package luks

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
)

// stripes is how many pieces a key is split into (LUKS1 specification, LUKS_STRIPES;
// in LUKS2 too, no other number is in use).
const stripes = 4000

// split makes 4000 pieces of a key of which every one is needed to get it back
// (LUKS1 specification, AFsplit), so that erasing any part of them erases the key.
func split(key []byte, newHash func() hash.Hash, random io.Reader) ([]byte, error) {
	size := len(key)
	pieces := make([]byte, size*stripes)
	last := size * (stripes - 1)
	if _, err := io.ReadFull(random, pieces[:last]); err != nil {
		return nil, fmt.Errorf("split key: %w", err)
	}
	sum := gather(pieces[:last], size, newHash)
	subtle.XORBytes(pieces[last:], sum, key)
	clear(sum)
	return pieces, nil
}

// merge is the inverse of split (AFmerge).
func merge(pieces []byte, size int, newHash func() hash.Hash) []byte {
	last := size * (stripes - 1)
	key := gather(pieces[:last], size, newHash)
	subtle.XORBytes(key, key, pieces[last:size*stripes])
	return key
}

func gather(pieces []byte, size int, newHash func() hash.Hash) []byte {
	sum := make([]byte, size)
	h := newHash()
	for ; len(pieces) >= size; pieces = pieces[size:] {
		subtle.XORBytes(sum, sum, pieces[:size])
		diffuse(sum, h)
	}
	return sum
}

// diffuse replaces each block of data by the hash of its number and itself (LUKS1
// specification, H1 of AFsplit).
func diffuse(data []byte, h hash.Hash) {
	var number [4]byte
	var sum [64]byte
	for i := uint32(0); len(data) > 0; i++ {
		block := data[:min(len(data), h.Size())]
		binary.BigEndian.PutUint32(number[:], i)
		h.Reset()
		h.Write(number[:])
		h.Write(block)
		copy(block, h.Sum(sum[:0]))
		data = data[len(block):]
	}
	clear(sum[:])
}
