package luks

import (
	"fmt"

	"github.com/sealboot/sealboot/luks/xts"
)

// Cipher encrypts the data segment with aes-xts-plain64. Several goroutines may use it at once.
type Cipher struct {
	xts        *xts.Cipher
	sectorSize int
	tweak      uint64
}

// NewCipher makes the cipher of a segment. Wiping the key afterwards leaves the cipher as it is.
func NewCipher(key *VolumeKey, sectorSize int, ivTweak uint64) (*Cipher, error) {
	if err := (Segment{SectorSize: sectorSize, IVTweak: ivTweak}).validate(0); err != nil {
		return nil, err
	}
	c, err := xts.New(key.bytes)
	if err != nil {
		return nil, err
	}
	return &Cipher{c, sectorSize, ivTweak}, nil
}

// SectorSize is what offsets and lengths must be multiples of.
func (c *Cipher) SectorSize() int { return c.sectorSize }

// Encrypt encrypts whole sectors. The offset is in bytes from the start of the data
// segment; dst has at least the length of src, and is src itself or does not overlap it.
func (c *Cipher) Encrypt(dst, src []byte, offset int64) error {
	sector, err := c.check(dst, src, offset)
	if err != nil {
		return err
	}
	c.xts.Encrypt(dst[:len(src)], src, sector, c.sectorSize, uint64(c.sectorSize/512))
	return nil
}

// Decrypt is the inverse of Encrypt.
func (c *Cipher) Decrypt(dst, src []byte, offset int64) error {
	sector, err := c.check(dst, src, offset)
	if err != nil {
		return err
	}
	c.xts.Decrypt(dst[:len(src)], src, sector, c.sectorSize, uint64(c.sectorSize/512))
	return nil
}

// check gives the number that the first sector's IV is made of: dm-crypt counts in
// sectors of 512 bytes, whatever the sector size (plain64 without the option iv_large_sectors).
func (c *Cipher) check(dst, src []byte, offset int64) (uint64, error) {
	if offset < 0 || offset%int64(c.sectorSize) != 0 || len(src)%c.sectorSize != 0 {
		return 0, fmt.Errorf("%d bytes at %d: %w of %d bytes", len(src), offset, ErrPartialSector, c.sectorSize)
	}
	if len(dst) < len(src) {
		return 0, fmt.Errorf("%d bytes into %d", len(src), len(dst))
	}
	return c.tweak + uint64(offset)/512, nil
}
