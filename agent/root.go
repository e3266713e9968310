package agent

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const newRoot = Folder + "/root"

// holdRoot mounts a btrfs root where an initramfs leaves it alone, until the machine is off: no program that such an initramfs
// ends in removes a mount in the top folder.
//
// btrfs takes a file system's devices from all that have its UUID, and of these believes the newest. A distribution's initramfs has udev
// show the kernel every disk before it mounts the root, so a host that knows the UUID, as of a public image, adds a disk with that UUID, another
// device number and a larger generation: "mount /dev/mapper/sealboot-root" then mounted the host's disk (Linux 6.1). While the file
// system is mounted, the kernel adds no devices to it (EBUSY), and a second mount of it is the same.
func holdRoot(o Order) error { return mountRootAt("/"+RootName, o) }

// fileSystems are tried in this order where the command line names none.
var fileSystems = []string{"ext4", "xfs", "btrfs"}

// mountRoot mounts the root at newRoot.
func mountRoot(o Order) error { return mountRootAt(newRoot, o) }

func mountRootAt(folder string, o Order) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	flags, data := mountOptions(o.Options)
	if o.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	kinds := fileSystems
	if o.FileSystem != "" {
		kinds = []string{o.FileSystem}
	}
	var tried []error
	for _, kind := range kinds {
		err := unix.Mount(RootDevice, folder, kind, flags, data)
		if err == nil {
			return nil
		}
		switch {
		case !errors.Is(err, unix.ENODEV):
			tried = append(tried, fmt.Errorf("%s: %w", kind, err))
		case len(kinds) == 1:
			tried = append(tried, fmt.Errorf("%s: neither the kernel nor its initramfs has this file system: %w", kind, err))
		}
	}
	return errors.Join(tried...)
}

// mountFlags are the options of mount(8) that are flags of mount(2), which no file system takes as its own. Whether the root
// is read-only the command line says elsewhere, as for the kernel.
var mountFlags = map[string]uintptr{
	"defaults": 0, "ro": 0, "rw": 0,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME,
	"lazytime": unix.MS_LAZYTIME, "sync": unix.MS_SYNCHRONOUS, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "nosuid": unix.MS_NOSUID,
}

// mountOptions divides rootflags= as mount(8), which a distribution's initramfs gives them to, does.
func mountOptions(options string) (flags uintptr, data string) {
	var rest []string
	for option := range strings.SplitSeq(options, ",") {
		flag, known := mountFlags[option]
		flags |= flag
		if !known && option != "" {
			rest = append(rest, option)
		}
	}
	return flags, strings.Join(rest, ",")
}
