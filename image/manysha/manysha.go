// Package manysha computes the SHA-256 (FIPS 180-4) of many messages of equal length at the same time. On amd64 with
// AVX-512 sixteen of them go through one computation, each in its lane of the registers; elsewhere one comes after the
// other. The results are the same.
package manysha

import (
	"crypto/sha256"
	"encoding/binary"
)

const (
	lanes     = 16
	blockSize = sha256.BlockSize
	// fewLanes is how many messages make up for the lanes that would be empty: the processor's own SHA
	// instructions are that much faster than one lane.
	fewLanes = 6
)

// Sums puts the SHA-256 of each message in sums, which has their number.
func Sums(sums [][sha256.Size]byte, messages [][]byte) {
	sums = sums[:len(messages)]
	for len(messages) > 0 {
		n := min(lanes, len(messages))
		if hasLanes && n >= fewLanes && even(messages[:n]) {
			sumLanes(sums[:n], messages[:n])
		} else {
			for i, m := range messages[:n] {
				sums[i] = sha256.Sum256(m)
			}
		}
		sums, messages = sums[n:], messages[n:]
	}
}

// even says whether the messages have one length, in whole blocks.
func even(messages [][]byte) bool {
	length := len(messages[0])
	for _, m := range messages {
		if len(m) != length {
			return false
		}
	}
	return length > 0 && length%blockSize == 0
}

// state holds the working variables: each word of all lanes.
type state [8][lanes]uint32

// sumLanes hashes up to 16 messages. Lanes without one take the first again.
func sumLanes(sums [][sha256.Size]byte, messages [][]byte) {
	var s state
	for word := range s {
		for lane := range s[word] {
			s[word][lane] = initial[word]
		}
	}
	var at [lanes]*byte
	for lane := range at {
		at[lane] = &messages[0][0]
		if lane < len(messages) {
			at[lane] = &messages[lane][0]
		}
	}
	blocks(&s, &at, &constants, len(messages[0])/blockSize)
	var padding [blockSize]byte // FIPS 180-4, 5.1.1, after whole blocks
	padding[0] = 0x80
	binary.BigEndian.PutUint64(padding[blockSize-8:], uint64(len(messages[0]))*8)
	for lane := range at {
		at[lane] = &padding[0]
	}
	blocks(&s, &at, &constants, 1)
	for lane := range sums {
		for word := range s {
			binary.BigEndian.PutUint32(sums[lane][word*4:], s[word][lane])
		}
	}
}

// initial is FIPS 180-4, 5.3.3.
var initial = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}

// constants is FIPS 180-4, 4.2.2.
var constants = [64]uint32{
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}
