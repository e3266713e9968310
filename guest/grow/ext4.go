package grow

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"
)

// growExt4 reads the superblock from the device, where the kernel keeps that of a mounted file system as it is now.
func growExt4(folder *os.File) (*Result, error) {
	device, size, err := deviceOf(folder)
	if err != nil {
		return nil, err
	}
	defer device.Close()
	super, err := readSuperblock(device)
	if err != nil {
		return nil, err
	}
	before := super.blocks() * super.blockSize()
	r := &Result{Kind: "ext4", Before: before, After: before, Device: size}
	wanted := uint64(super.target(size))
	if wanted <= uint64(super.blocks()) {
		return r, nil
	}
	if err := call(folder, resizeFS, unsafe.Pointer(&wanted)); err != nil {
		return nil, fmt.Errorf("from %d to %d blocks: %w", super.blocks(), wanted, err)
	}
	if super, err = readSuperblock(device); err != nil {
		return nil, err
	}
	r.After = super.blocks() * super.blockSize()
	return r, nil
}

// resizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64) (Linux include/uapi/linux/ext4.h).
const resizeFS = 0x40086610

func readSuperblock(device *os.File) (superblock, error) {
	super := make(superblock, 1024)
	if _, err := device.ReadAt(super, 1024); err != nil {
		return nil, fmt.Errorf("read superblock: %w", err)
	}
	if binary.LittleEndian.Uint16(super[0x38:]) != 0xef53 || super.blockSize() > 1<<16 || super.perGroup() == 0 {
		return nil, fmt.Errorf("%w: %s", ErrKind, device.Name())
	}
	return super, nil
}

// superblock is as on the disk (Linux Documentation/filesystems/ext4, "Super Block").
type superblock []byte

const (
	compatResizeInode = 0x10
	incompatMetaBG    = 0x10
	incompat64Bit     = 0x80
)

func (s superblock) u32(at int) int64 { return int64(binary.LittleEndian.Uint32(s[at:])) }

func (s superblock) blockSize() int64 { return 1024 << min(s.u32(0x18), 32) }
func (s superblock) perGroup() int64  { return s.u32(0x20) }

func (s superblock) blocks() int64 {
	n := s.u32(0x4)
	if s.u32(0x60)&incompat64Bit != 0 {
		n |= s.u32(0x150) << 32
	}
	return n
}

// target gives the number of blocks to grow to on a device of so many bytes. Descriptors of groups have room in
// blocks that mke2fs keeps for them (s_reserved_gdt_blocks), mostly for a thousand times the size. Beyond that the kernel would
// turn meta_bg on, and GRUB could not read the file system any more: it grows as far as the room goes.
func (s superblock) target(device int64) int64 {
	blocks := device / s.blockSize()
	if s.u32(0x60)&incompatMetaBG != 0 {
		return blocks
	}
	descriptor := int64(32)
	if s.u32(0x60)&incompat64Bit != 0 {
		descriptor = max(descriptor, int64(binary.LittleEndian.Uint16(s[0xfe:])))
	}
	perBlock := s.blockSize() / descriptor
	first := s.u32(0x14)
	up := func(n, by int64) int64 { return (n + by - 1) / by }
	room := up(up(s.blocks()-first, s.perGroup()), perBlock) // blocks of descriptors
	if s.u32(0x5c)&compatResizeInode != 0 {
		room += int64(binary.LittleEndian.Uint16(s[0xce:]))
	}
	return min(blocks, first+room*perBlock*s.perGroup())
}
