package agent

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const newRoot = Folder + "/root"

// fileSystems are tried in this order where the command line names none.
var fileSystems = []string{"ext4", "xfs", "btrfs"}

// mountRoot mounts the root at newRoot.
func mountRoot(o Order) error {
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
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
		err := unix.Mount(RootDevice, newRoot, kind, flags, data)
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
