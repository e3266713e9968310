// Package xts encrypts runs of sectors with AES in XTS mode (IEEE Std 1619-2018; NIST SP
// 800-38E), many sectors in one call, so that a faster implementation can take a whole
// run at once. All implementations give the same bytes.
package xts

import (
	"crypto/aes"
	"fmt"

	"golang.org/x/crypto/xts"
)

// Cipher holds an expanded key. Several goroutines may use it at once.
type Cipher struct{ portable *xts.Cipher }

// New expands a key of 32 (AES-128) or 64 bytes (AES-256): the data key, then the tweak key.
func New(key []byte) (*Cipher, error) {
	if len(key) != 32 && len(key) != 64 {
		return nil, fmt.Errorf("AES-XTS key of %d bytes: want 32 or 64", len(key))
	}
	portable, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return nil, err
	}
	return &Cipher{portable}, nil
}

// Encrypt encrypts the sectors of src into dst, which has the same length and is src
// itself or does not overlap it. The first sector has the tweak number sector, each
// further one step more. The length must be a multiple of sectorSize, and sectorSize one of 16.
func (c *Cipher) Encrypt(dst, src []byte, sector uint64, sectorSize int, step uint64) {
	for ; len(src) >= sectorSize; sector += step {
		c.portable.Encrypt(dst[:sectorSize], src[:sectorSize], sector)
		dst, src = dst[sectorSize:], src[sectorSize:]
	}
}

// Decrypt is the inverse of Encrypt.
func (c *Cipher) Decrypt(dst, src []byte, sector uint64, sectorSize int, step uint64) {
	for ; len(src) >= sectorSize; sector += step {
		c.portable.Decrypt(dst[:sectorSize], src[:sectorSize], sector)
		dst, src = dst[sectorSize:], src[sectorSize:]
	}
}
