package image

import (
	"errors"
	"fmt"

	"github.com/sealboot/sealboot/image/ext4"
)

// FileSystem opens the decrypted ext4 file system in the root partition, without mounting anything. A wrong passphrase is
// luks.ErrNoKey; another file system ext4.ErrNotExt4.
//
// It judges nothing as a whole, as Verify does: what is read is checked as it is read.
func (d *Disk) FileSystem(passphrase []byte) (*ext4.Reader, error) {
	_, cipher, err := d.unlock(passphrase)
	if err != nil {
		return nil, err
	}
	base, size := d.payload()
	fs, err := ext4.Open(&plain{disk: d.image, base: base, size: size, cipher: cipher}, size)
	if errors.Is(err, ext4.ErrNotExt4) {
		return nil, fmt.Errorf("the root partition's file system cannot be read here: %w", err)
	}
	return fs, err
}
