// Package kernels keeps an initramfs of ours for each kernel that is installed in a running guest: the guest's side of
// package initramfs. The hooks of package guest call it while kernels come and go.
//
// A new file is whole and on the disk before it has its name, and before that the old one stays. GRUB reads the file
// system of /boot without its journal, so the journal is emptied too: power may fail right after. Where the root is xfs or btrfs, GRUB
// reads the boot volume instead, which has to be mounted at /boot: without it, nothing is written that GRUB would never see.
package kernels

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/initramfs"
	"github.com/sealboot/sealboot/internal/atomicfile"
)

// ErrVersion says that something is no version of a kernel, or of none that is there.
var ErrVersion = errors.New("no such kernel")

// Update makes the initramfs of the kernel with that version, in the root file system at root. It says whether the file changed. On the
// disk are then the kernel's other files in /boot too.
func Update(ctx context.Context, root, version string, agent []byte) (bool, error) {
	if !initramfs.IsVersion(version) {
		return false, fmt.Errorf("%w: %q is not a kernel's version", ErrVersion, version)
	}
	kernel, src, err := find(root, version)
	if err != nil {
		return false, err
	}
	fileSystems, err := agentMounts(root)
	if err != nil {
		return false, err
	}
	content, err := initramfs.Build(ctx, src, kernel, agent, fileSystems...)
	if err != nil {
		return false, fmt.Errorf("make initramfs: %w", err)
	}
	path := filepath.Join(root, initramfs.Path(version))
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return false, settle(filepath.Dir(path))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	if err := atomicfile.WriteFile(path, content, 0o600); errors.Is(err, unix.ENOSPC) {
		return false, fmt.Errorf("%w: /boot needs %d bytes more: remove kernels that are not needed", err, len(content))
	} else if err != nil {
		return false, err
	}
	return true, settle(filepath.Dir(path))
}

// find opens the folder of a kernel's modules.
func find(root, version string) (initramfs.Kernel, source.Source, error) {
	for _, folder := range []string{"/usr/lib/modules", "/lib/modules"} {
		at := filepath.Join(folder, version)
		if names, err := os.ReadDir(filepath.Join(root, at)); err != nil || len(names) == 0 {
			continue
		}
		src, err := source.Open(filepath.Join(root, at))
		if err != nil {
			return initramfs.Kernel{}, nil, err
		}
		return initramfs.Kernel{Version: version, Modules: at}, source.Under(at, src), nil
	}
	return initramfs.Kernel{}, nil, fmt.Errorf("%w: /lib/modules has nothing for %s", ErrVersion, version)
}

// Remove takes the initramfs of a kernel away that was removed. One that is not there is no error.
func Remove(root, version string) error {
	if !initramfs.IsVersion(version) {
		return fmt.Errorf("%w: %q is not a kernel's version", ErrVersion, version)
	}
	if _, err := agentMounts(root); err != nil {
		return err
	}
	path := filepath.Join(root, initramfs.Path(version))
	if err := os.Remove(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return settle(filepath.Dir(path))
}

// checkpoint is EXT4_IOC_CHECKPOINT, _IOW('f', 43, __u32): Linux include/uapi/linux/ext4.h, since 5.14.
const checkpoint = 0x4004662b

// settle has all that was written to a file system be where one finds it that knows nothing of its journal.
func settle(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("write %s to the disk: %w", folder, err)
	}
	switch err := unix.IoctlSetPointerInt(int(f.Fd()), checkpoint, 0); {
	case err == nil, errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV): // another file system, an older kernel, no journal
		return nil
	case errors.Is(err, unix.EPERM) && os.Geteuid() != 0: // in a test
		return nil
	default:
		return fmt.Errorf("empty the journal of %s: %w", folder, err)
	}
}
