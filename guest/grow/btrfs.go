package grow

import (
	"errors"
	"fmt"
	"os"
	"unsafe"
)

// ErrDevices says that a btrfs file system has more than one device.
var ErrDevices = errors.New("it has several devices: grow each with btrfs filesystem resize")

// ErrBusy says that the file system does something else that excludes growing.
var ErrBusy = errors.New("a balance or another change of its devices is going on: grow it when that is over")

// Structures of Linux include/uapi/linux/btrfs.h.
type (
	btrfsInfo struct { // btrfs_ioctl_fs_info_args
		MaxID, Devices uint64
		_              [1008]byte
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

// growBtrfs has the file system's only device used to its end. What stat(2) says of a subvolume is no device, so it asks btrfs.
func growBtrfs(folder *os.File) (*Result, error) {
	before, err := onlyDevice(folder)
	if err != nil {
		return nil, err
	}
	var a btrfsArguments
	copy(a.Name[:len(a.Name)-1], fmt.Sprintf("%d:max", before.ID))
	if err := call(folder, btrfsResize, unsafe.Pointer(&a)); err != nil {
		return nil, fmt.Errorf("device %d: %w", before.ID, err)
	}
	after := &btrfsDevice{ID: before.ID}
	if err := call(folder, btrfsGetDevice, unsafe.Pointer(after)); err != nil {
		return nil, fmt.Errorf("ask for its device: %w", err)
	}
	return &Result{Kind: "btrfs", Before: int64(before.Total), After: int64(after.Total), Device: int64(after.Total)}, nil
}

// onlyDevice finds the device, whose number need not be 1 once it was replaced.
func onlyDevice(folder *os.File) (*btrfsDevice, error) {
	var info btrfsInfo
	if err := call(folder, btrfsGetInfo, unsafe.Pointer(&info)); err != nil {
		return nil, fmt.Errorf("ask for its devices: %w", err)
	}
	if info.Devices != 1 {
		return nil, fmt.Errorf("%d devices: %w", info.Devices, ErrDevices)
	}
	device := &btrfsDevice{ID: info.MaxID} // of one device, the greatest number is its own
	if err := call(folder, btrfsGetDevice, unsafe.Pointer(device)); err != nil {
		return nil, fmt.Errorf("ask for its device: %w", err)
	}
	return device, nil
}
