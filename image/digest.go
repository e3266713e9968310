package image

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"github.com/sealboot/sealboot/image/manysha"
)

const (
	chunkSize = 1 << 20  // the unit of work and of hashing
	pieceSize = 64 << 10 // the unit of being written
	pieces    = chunkSize / pieceSize
)

// Digest names the plaintext of a payload. It is the SHA-256 of
//
//	"sealboot content digest 2\n"
//	the payload's size in bytes, 64 bits, big-endian
//	for each chunk of 1 MiB of which something is written, upward:
//	    its number from 0, 64 bits, big-endian
//	    which of its 16 pieces of 64 KiB are written, 16 bits, big-endian; the first is bit 0
//	    the SHA-256 of this: for each piece that is written, upward, the SHA-256 of its plaintext
//
// The last chunk and the last piece may be shorter. A piece is written when its ciphertext is not
// all zeros. So the digest holds for the disk's bytes, whatever the container, and chunks can be
// hashed in any order and at the same time, and the pieces of a chunk in one computation. It does not depend on the key.
type Digest [32]byte

// Equal compares in constant time.
func (d Digest) Equal(e Digest) bool { return subtle.ConstantTimeCompare(d[:], e[:]) == 1 }

// String gives 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText and UnmarshalText make JSON show the digits.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (d *Digest) UnmarshalText(text []byte) error {
	parsed, err := ParseDigest(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// ParseDigest reads 64 lower-case hexadecimal digits.
func ParseDigest(s string) (Digest, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(Digest{}) || hex.EncodeToString(b) != s {
		return Digest{}, fmt.Errorf("content digest %q is not 64 lower-case hexadecimal digits", s)
	}
	return Digest(b), nil
}

// leaf is what the digest takes from one chunk.
type leaf struct {
	written uint16 // a bit for each piece
	sum     [32]byte
}

// newLeaf hashes the written pieces of a chunk's plaintext.
func newLeaf(plain []byte, written uint16) leaf {
	var list [pieces][]byte
	var sums [pieces][sha256.Size]byte
	n := 0
	for mask := written; mask != 0; mask &= mask - 1 {
		from := bits.TrailingZeros16(mask) * pieceSize
		list[n] = plain[from:min(from+pieceSize, len(plain))]
		n++
	}
	manysha.Sums(sums[:n], list[:n])
	h := sha256.New()
	for i := range n {
		h.Write(sums[i][:])
	}
	return leaf{written, [32]byte(h.Sum(nil))}
}

// digestOf puts the chunks together.
func digestOf(size int64, leaves map[int64]leaf) Digest {
	h := sha256.New()
	h.Write([]byte("sealboot content digest 2\n"))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(size)))
	for _, number := range slices.Sorted(maps.Keys(leaves)) {
		one := leaves[number]
		head := binary.BigEndian.AppendUint64(nil, uint64(number))
		h.Write(binary.BigEndian.AppendUint16(head, one.written))
		h.Write(one.sum[:])
	}
	return Digest(h.Sum(nil))
}

// eachRun calls f for each run of written pieces: its place in a chunk of length bytes.
func eachRun(written uint16, length int, f func(from, to int) error) error {
	for mask := uint32(written); mask != 0; {
		first := bits.TrailingZeros32(mask)
		count := bits.TrailingZeros32(^(mask >> first))
		if err := f(first*pieceSize, min((first+count)*pieceSize, length)); err != nil {
			return err
		}
		mask &^= (1<<count - 1) << first
	}
	return nil
}

// piecesOf gives the bits of the pieces that hold the bytes [from, to) of a chunk.
func piecesOf(from, to int) uint16 {
	first, end := from/pieceSize, (to+pieceSize-1)/pieceSize
	return uint16(1<<end - 1<<first)
}
