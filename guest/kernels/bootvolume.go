package kernels

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNotMounted says that the boot volume, which GRUB reads, is not what is mounted at /boot.
var ErrNotMounted = errors.New("the boot volume is not mounted at /boot: mount it (mount /boot) and run this again")

const bootDevice = "/dev/mapper/sealboot-boot" // agent.BootDevice

// agentMounts gives the file systems that the agent will mount, none where the root is the whole disk. It fails unless /boot is what GRUB reads.
func agentMounts(root string) ([]string, error) {
	var device, boot unix.Stat_t
	if err := unix.Stat(filepath.Join(root, bootDevice), &device); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", bootDevice, err)
	}
	if err := unix.Stat(filepath.Join(root, "boot"), &boot); err != nil {
		return nil, fmt.Errorf("/boot: %w", err)
	}
	if boot.Dev != device.Rdev {
		return nil, ErrNotMounted
	}
	var s unix.Statfs_t
	if err := unix.Statfs(root, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", root, err)
	}
	switch s.Type { // Linux include/uapi/linux/magic.h
	case unix.XFS_SUPER_MAGIC:
		return []string{"ext4", "xfs"}, nil
	case unix.BTRFS_SUPER_MAGIC:
		return []string{"ext4", "btrfs"}, nil
	}
	return nil, fmt.Errorf("the root is of a type (%#x) that has no boot volume", s.Type)
}
