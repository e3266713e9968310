// Package layout says what lies where behind a LUKS header: what the builder, who puts it there, and the agent, who opens it,
// must read alike.
//
// A payload is a root file system and nothing else, or a boot volume and then a root volume. GRUB reads ext4 alone, so a
// root of another kind gets a boot volume before it: an ext4 file system with the label [Label], which fills the first bytes of the
// payload up to the root volume. Its own superblock says how many these are, so there is no further table.
//
// Disk encryption does not authenticate: the host can make noise of a superblock, or put an old one back. So a payload that
// has the label must be right in everything else, the superblock's checksum too, or it is refused; one that has not
// is a root, which no other kind of file system can then be mounted as.
package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
)

const (
	Label = "sealboot-boot" // the boot volume's name
	Head  = 2048            // bytes of the payload that [BootSize] looks at
	Unit  = 1 << 20         // a boot volume has a multiple of this
)

// ErrDamaged says that a payload has the boot volume's label, but is none.
var ErrDamaged = errors.New("the boot volume is damaged")

// The superblock: Linux Documentation/filesystems/ext4/super.rst.
const (
	superAt        = 1024
	atBlocksLow    = 0x4
	atLogBlockSize = 0x18
	atMagic        = 0x38
	atIncompat     = 0x60
	atROCompat     = 0x64
	atName         = 0x78
	atBlocksHigh   = 0x150
	atChecksumType = 0x175
	atChecksum     = 0x3fc
	superEnd       = 0x400

	magic          = 0xef53
	nameSize       = 16
	incompat64Bit  = 0x80
	roMetadataCsum = 0x400
	crc32c         = 1 // s_checksum_type
	maxLogBlock    = 6 // 64 KiB, the kernel's EXT4_MAX_BLOCK_LOG_SIZE
)

// BootSize gives the bytes of the boot volume, from the payload's beginning and its size. 0 means that there is none: the
// payload is the root.
func BootSize(head []byte, payload int64) (int64, error) {
	if len(head) < Head {
		return 0, fmt.Errorf("%d bytes of the payload, want %d", len(head), Head)
	}
	super, le := head[superAt:superAt+superEnd], binary.LittleEndian
	var name [nameSize]byte
	copy(name[:], Label)
	if le.Uint16(super[atMagic:]) != magic || [nameSize]byte(super[atName:]) != name {
		return 0, nil
	}
	if le.Uint32(super[atROCompat:])&roMetadataCsum == 0 || super[atChecksumType] != crc32c {
		return 0, fmt.Errorf("%w: its superblock has no checksum", ErrDamaged)
	}
	// The kernel's crc32c begins with all ones, as Go's does, and is not inverted at the end.
	if ^crc32.Checksum(super[:atChecksum], crc32.MakeTable(crc32.Castagnoli)) != le.Uint32(super[atChecksum:]) {
		return 0, fmt.Errorf("%w: its superblock's checksum does not match", ErrDamaged)
	}
	blocks := uint64(le.Uint32(super[atBlocksLow:]))
	if le.Uint32(super[atIncompat:])&incompat64Bit != 0 {
		blocks |= uint64(le.Uint32(super[atBlocksHigh:])) << 32
	}
	log := le.Uint32(super[atLogBlockSize:])
	if log > maxLogBlock {
		return 0, fmt.Errorf("%w: its blocks have 2^%d KiB", ErrDamaged, log)
	}
	high, size := bits.Mul64(blocks, 1024<<log)
	if high != 0 || size == 0 || size%Unit != 0 || payload < 0 || size >= uint64(payload) {
		return 0, fmt.Errorf("%w: %d blocks of %d bytes in a payload of %d bytes, want whole MiB and room for a root", ErrDamaged, blocks, 1024<<log, payload)
	}
	return int64(size), nil
}
