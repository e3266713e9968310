// Package xts encrypts runs of sectors with AES in XTS mode (IEEE Std 1619-2018; NIST SP
// 800-38E), many sectors in one call. On amd64 it uses the processor's AES instructions,
// elsewhere and for AES-128 x/crypto's implementation. All paths give the same bytes.
package xts

import (
	"crypto/aes"
	"crypto/subtle"
	"errors"

	"golang.org/x/crypto/xts"
)

// ErrKeySize says that a key is neither 32 nor 64 bytes, or that its halves are equal, which
// IEEE 1619 and NIST forbid.
var ErrKeySize = errors.New("an AES-XTS key has 32 or 64 bytes and two halves that differ")

// Cipher holds an expanded key. Several goroutines may use it at once.
type Cipher struct {
	fast *fastCipher // nil: slow is used
	slow *xts.Cipher
}

// New expands a key of 32 (AES-128) or 64 bytes (AES-256): the data key, then the tweak key.
func New(key []byte) (*Cipher, error) {
	if len(key) != 32 && len(key) != 64 || subtle.ConstantTimeCompare(key[:len(key)/2], key[len(key)/2:]) == 1 {
		return nil, ErrKeySize
	}
	if fast := newFast(key); fast != nil {
		return &Cipher{fast: fast}, nil
	}
	return newSlow(key)
}

func newSlow(key []byte) (*Cipher, error) {
	slow, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return nil, err
	}
	return &Cipher{slow: slow}, nil
}

// Encrypt encrypts the sectors of src into dst, which is at least as long and is src
// itself or does not overlap it. The first sector has the tweak number sector, each
// further one step more. sectorSize is a multiple of 16, and the length one of sectorSize.
func (c *Cipher) Encrypt(dst, src []byte, sector uint64, sectorSize int, step uint64) {
	dst = dst[:len(src)]
	if c.fast != nil {
		c.fast.encrypt(dst, src, sector, sectorSize, step)
		return
	}
	for ; len(src) >= sectorSize; sector += step {
		c.slow.Encrypt(dst[:sectorSize], src[:sectorSize], sector)
		dst, src = dst[sectorSize:], src[sectorSize:]
	}
}

// Decrypt is the inverse of Encrypt.
func (c *Cipher) Decrypt(dst, src []byte, sector uint64, sectorSize int, step uint64) {
	dst = dst[:len(src)]
	if c.fast != nil {
		c.fast.decrypt(dst, src, sector, sectorSize, step)
		return
	}
	for ; len(src) >= sectorSize; sector += step {
		c.slow.Decrypt(dst[:sectorSize], src[:sectorSize], sector)
		dst, src = dst[sectorSize:], src[sectorSize:]
	}
}
