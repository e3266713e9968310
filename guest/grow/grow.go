// Package grow makes an ext4 file system that is mounted as large as its device, with what the kernel has for it and
// no other program: the root of a disk image that was put on a larger disk.
package grow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrKind says that it is no ext4 file system.
var ErrKind = errors.New("not an ext4 file system")

// Result is what was done.
type Result struct {
	Before, After int64 // bytes of the file system; the same: nothing was to do
	Device        int64 // bytes of the device
}

// Grow grows the file system that is mounted at folder.
func Grow(folder string) (*Result, error) {
	f, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var kind unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &kind); err != nil {
		return nil, err
	}
	if kind.Type != unix.EXT4_SUPER_MAGIC {
		return nil, fmt.Errorf("%s: %w (type %#x)", folder, ErrKind, kind.Type)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return nil, err
	}
	super, size, err := readDevice(stat.Dev)
	if err != nil {
		return nil, err
	}
	before := super.blocks() * super.blockSize()
	r := &Result{Before: before, After: before, Device: size}
	wanted := super.target(size)
	if wanted <= super.blocks() {
		return r, nil
	}
	if err := resize(f, wanted); err != nil {
		return nil, fmt.Errorf("grow %s from %d to %d blocks: %w", folder, super.blocks(), wanted, err)
	}
	if super, _, err = readDevice(stat.Dev); err != nil {
		return nil, err
	}
	r.After = super.blocks() * super.blockSize()
	return r, nil
}

// resizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64) (Linux include/uapi/linux/ext4.h).
const resizeFS = 0x40086610

func resize(folder *os.File, blocks int64) error {
	count := uint64(blocks)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, folder.Fd(), resizeFS, uintptr(unsafe.Pointer(&count)))
	if errno != 0 {
		return errno
	}
	return nil
}

// readDevice reads the superblock of a device and its size. The kernel keeps the superblock of a mounted file system in the
// device's cache, so that it is as it is now.
func readDevice(number uint64) (superblock, int64, error) {
	name := fmt.Sprintf("/dev/block/%d:%d", unix.Major(number), unix.Minor(number))
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) { // no udev yet
		f, err = openNode(number)
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return nil, 0, err
	}
	super := make(superblock, 1024)
	if _, err := f.ReadAt(super, 1024); err != nil {
		return nil, 0, fmt.Errorf("read superblock: %w", err)
	}
	if binary.LittleEndian.Uint16(super[0x38:]) != 0xef53 || super.blockSize() > 1<<16 || super.perGroup() == 0 {
		return nil, 0, fmt.Errorf("%w: %s", ErrKind, name)
	}
	return super, size, nil
}

// openNode finds a device by sysfs's name for it.
func openNode(number uint64) (*os.File, error) {
	target, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(number), unix.Minor(number)))
	if err != nil {
		return nil, err
	}
	for i := len(target) - 1; i >= 0; i-- {
		if target[i] == '/' {
			return os.Open("/dev/" + target[i+1:])
		}
	}
	return nil, os.ErrNotExist
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
