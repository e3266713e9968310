package ext4

import (
	"fmt"
	"math"
	"time"
)

// record is an inode as read.
type record struct {
	number     uint32
	mode       uint16
	links      uint16
	uid, gid   uint32
	size       uint64
	modified   time.Time
	deleted    uint32
	flags      uint32
	sectors    uint64 // i_blocks, of 512 bytes
	block      [60]byte
	xattrBlock uint64
	seed       uint32 // of checksums of what it owns
	inside     []byte // the room for attributes within the inode
}

func (n *record) kind() uint8 { return kindOfMode(n.mode) }

func (n *record) where() string { return fmt.Sprintf("inode %d", n.number) }

// fast says whether a symbolic link's target stands in i_block.
func (n *record) fast() bool {
	return n.kind() == kindSymlink && n.flags&inodeExtents == 0 && n.size <= fastLinkMax
}

// inodeBlock gives the place of an inode: block of the table, and byte in it.
func (f *Reader) inodePlace(number uint32) (block uint64, at int) {
	group, i := (number-1)/f.inodesPerGroup, (number-1)%f.inodesPerGroup
	byteAt := int(i) * f.inodeSize
	return f.descs[group].InodeTable + uint64(byteAt/f.blockSize), byteAt % f.blockSize
}

// readInode reads an inode that is in use.
func (f *Reader) readInode(number uint32) (*record, error) {
	if number == 0 || number > f.super.InodesCount {
		return nil, broken(fmt.Sprintf("inode %d", number), "does not exist")
	}
	if group, i := (number-1)/f.inodesPerGroup, (number-1)%f.inodesPerGroup; i >= f.usedInodes(group) {
		return nil, broken(fmt.Sprintf("inode %d", number), "never used")
	}
	block, at := f.inodePlace(number)
	raw := make([]byte, f.blockSize)
	if err := f.readBlocks(raw, block); err != nil {
		return nil, err
	}
	return f.decodeInode(number, raw[at:at+f.inodeSize])
}

func (f *Reader) decodeInode(number uint32, raw []byte) (*record, error) {
	n := &record{
		number:     number,
		mode:       le.Uint16(raw[0x00:]),
		uid:        uint32(le.Uint16(raw[0x02:])) | uint32(le.Uint16(raw[0x78:]))<<16,
		size:       uint64(le.Uint32(raw[0x04:])),
		deleted:    le.Uint32(raw[0x14:]),
		gid:        uint32(le.Uint16(raw[0x18:])) | uint32(le.Uint16(raw[0x7a:]))<<16,
		links:      le.Uint16(raw[0x1a:]),
		sectors:    uint64(le.Uint32(raw[0x1c:])),
		flags:      le.Uint32(raw[0x20:]),
		block:      [60]byte(raw[0x28:0x64]),
		xattrBlock: uint64(le.Uint32(raw[0x68:])),
	}
	seconds, nanoseconds := int64(int32(le.Uint32(raw[0x10:]))), int64(0)
	if len(raw) > inodeBase {
		extra := int(le.Uint16(raw[inodeBase:]))
		if extra != 0 && (extra < 4 || extra%4 != 0 || extra > len(raw)-inodeBase) {
			return nil, broken(n.where(), "%d extra bytes, of %d", extra, len(raw)-inodeBase)
		}
		if extra >= 0x8c-inodeBase {
			bits := le.Uint32(raw[0x88:])
			seconds += int64(bits&3) << 32
			nanoseconds = int64(bits >> 2)
		}
		if extra != 0 {
			n.inside = append([]byte(nil), raw[inodeBase+extra:]...)
		}
	}
	n.modified = time.Unix(seconds, nanoseconds).UTC()
	if f.checksums {
		n.seed = inodeSeed(f.seed, number, le.Uint32(raw[0x64:]))
		got := uint32(le.Uint16(raw[inodeCsumLo:]))
		if hasCsumHi(raw) {
			got |= uint32(le.Uint16(raw[inodeCsumHi:])) << 16
		}
		if want := inodeChecksum(n.seed, raw); got != want {
			return nil, broken(n.where(), "checksum %#x, not %#x", got, want)
		}
	}
	if n.kind() == kindRegular || n.kind() == kindFolder {
		n.size |= uint64(le.Uint32(raw[0x6c:])) << 32
	}
	if n.size > math.MaxInt64 {
		return nil, broken(n.where(), "size %d", n.size)
	}
	if f.super.FeatureROCompat&roHugeFile != 0 {
		n.sectors |= uint64(le.Uint16(raw[0x74:])) << 32
		if n.flags&inodeHugeFile != 0 {
			n.sectors *= uint64(f.blockSize / 512)
		}
	}
	if f.super.FeatureIncompat&incompat64Bit != 0 {
		n.xattrBlock |= uint64(le.Uint16(raw[0x76:])) << 32
	}
	return n, nil
}
