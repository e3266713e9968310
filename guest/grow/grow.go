// Package grow makes a file system that is mounted (ext4, xfs or btrfs) as large as its device, with what the kernel has for it and
// no other program: the root of a disk image that was put on a larger disk.
package grow

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrKind says that it is no file system that the package grows.
var ErrKind = errors.New("neither an ext4, an xfs nor a btrfs file system")

// Result is what was done.
type Result struct {
	Kind          string // ext4, xfs or btrfs
	Before, After int64  // bytes of the file system; the same: nothing was to do
	Device        int64  // bytes of the device
}

// growers are by the type that statfs(2) gives (Linux include/uapi/linux/magic.h).
var growers = map[int64]func(folder *os.File) (*Result, error){
	unix.EXT4_SUPER_MAGIC:  growExt4,
	unix.XFS_SUPER_MAGIC:   growXFS,
	unix.BTRFS_SUPER_MAGIC: growBtrfs,
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
	grow := growers[kind.Type]
	if grow == nil {
		return nil, fmt.Errorf("%s: %w (type %#x)", folder, ErrKind, kind.Type)
	}
	r, err := grow(f)
	if err != nil {
		return nil, fmt.Errorf("grow %s: %w%s", folder, err, advice(err))
	}
	return r, nil
}

// advice says what to do about an error of the kernel's.
func advice(err error) string {
	switch {
	case errors.Is(err, unix.EROFS):
		return ": mount it for writing first (mount -o remount,rw)"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return ": only root may"
	case errors.Is(err, unix.EUCLEAN):
		return ": it is damaged: check and repair it from another system"
	case errors.Is(err, unix.ENOSPC):
		return ": make some room in it first"
	}
	return ""
}

// call does an ioctl. A result above zero is btrfs's way to say that something else is going on.
func call(folder *os.File, request uintptr, argument unsafe.Pointer) error {
	result, _, errno := unix.Syscall(unix.SYS_IOCTL, folder.Fd(), request, uintptr(argument))
	if errno != 0 {
		return errno
	}
	if result != 0 {
		return ErrBusy
	}
	return nil
}

// deviceOf opens the device of a file system that has one, and gives its size.
func deviceOf(folder *os.File) (*os.File, int64, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(folder.Fd()), &stat); err != nil {
		return nil, 0, err
	}
	device, err := os.Open(fmt.Sprintf("/dev/block/%d:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev)))
	if errors.Is(err, os.ErrNotExist) { // no udev yet
		device, err = openNode(stat.Dev)
	}
	if err != nil {
		return nil, 0, err
	}
	size, err := device.Seek(0, 2)
	if err != nil {
		device.Close()
		return nil, 0, err
	}
	return device, size, nil
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
