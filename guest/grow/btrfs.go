package grow

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"
)

// ErrDevices says that a btrfs file system has more than one device.
var ErrDevices = errors.New("it has several devices: grow each with btrfs filesystem resize")

// ErrBusy says that the file system does something else that excludes growing.
var ErrBusy = errors.New("a balance or another change of its devices is going on: grow it when that is over")

// Structures of Linux include/uapi/linux/btrfs.h.
type (
	btrfsInfo struct { // btrfs_ioctl_fs_info_args
		MaxID, Devices       uint64
		UUID                 [16]byte
		NodeSize, SectorSize uint32
		_                    [984]byte
	}
	btrfsDevice struct { // btrfs_ioctl_dev_info_args
		ID          uint64
		UUID        [16]byte
		Used, Total uint64 // bytes
		_           [4056]byte
	}
	btrfsArguments struct { // btrfs_ioctl_vol_args
		FD   int64
		Name [4088]byte
	}
)

const (
	btrfsGetInfo   = 0x8400941f // BTRFS_IOC_FS_INFO, _IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)
	btrfsGetDevice = 0xd000941e // BTRFS_IOC_DEV_INFO, _IOWR(0x94, 30, struct btrfs_ioctl_dev_info_args)
	btrfsResize    = 0x50009403 // BTRFS_IOC_RESIZE, _IOW(0x94, 3, struct btrfs_ioctl_vol_args)
)

// btrfsLeast is how small the kernel has a device become, and grow (fs/btrfs/ioctl.c, btrfs_ioctl_resize: SZ_256M).
const btrfsLeast = 256 << 20

// growBtrfs has the file system's only device used to its end. What stat(2) says of a subvolume is no device, so it asks btrfs.
func growBtrfs(folder *os.File) (*Result, error) {
	var info btrfsInfo
	if err := call(folder, btrfsGetInfo, unsafe.Pointer(&info)); err != nil {
		return nil, fmt.Errorf("ask for its devices: %w", err)
	}
	if info.Devices != 1 || info.SectorSize == 0 {
		return nil, fmt.Errorf("%d devices: %w", info.Devices, ErrDevices)
	}
	device := btrfsDevice{ID: info.MaxID} // need not be 1 once a device was replaced
	if err := call(folder, btrfsGetDevice, unsafe.Pointer(&device)); err != nil {
		return nil, fmt.Errorf("ask for its device: %w", err)
	}
	size, err := deviceSize(info.UUID)
	if err != nil {
		return nil, err
	}
	r := &Result{Kind: "btrfs", Before: int64(device.Total), After: int64(device.Total), Device: size}
	if wanted := size - size%int64(info.SectorSize); wanted <= r.Before || wanted < btrfsLeast {
		return r, nil
	}
	var a btrfsArguments
	copy(a.Name[:len(a.Name)-1], fmt.Sprintf("%d:max", device.ID))
	if err := call(folder, btrfsResize, unsafe.Pointer(&a)); err != nil {
		return nil, fmt.Errorf("device %d from %d bytes to %d: %w", device.ID, r.Before, size, err)
	}
	if err := call(folder, btrfsGetDevice, unsafe.Pointer(&device)); err != nil {
		return nil, fmt.Errorf("ask for its device: %w", err)
	}
	r.After = int64(device.Total)
	return r, nil
}

// deviceSize asks sysfs for the size of the only device of a file system (Linux fs/btrfs/sysfs.c, devices/; block/genhd.c, size in sectors of 512 bytes).
func deviceSize(uuid [16]byte) (int64, error) {
	u := uuid[:]
	folder := fmt.Sprintf("/sys/fs/btrfs/%x-%x-%x-%x-%x/devices", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
	names, err := os.ReadDir(folder)
	if err != nil {
		return 0, err
	}
	if len(names) != 1 {
		return 0, fmt.Errorf("%s holds %d: %w", folder, len(names), ErrDevices)
	}
	text, err := os.ReadFile(filepath.Join(folder, names[0].Name(), "size"))
	if err != nil {
		return 0, err
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 54)
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", names[0].Name(), err)
	}
	return sectors * 512, nil
}
