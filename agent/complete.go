package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const (
	bootFolder = Folder + "/boot"
	// spent is what InstallTree is renamed to, in one step, before it is removed.
	spent     = "/sealboot/install.done"
	bootFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
)

// completeRoot puts into the root what waits for it in the boot volume. The tree there goes only when the root has all of it on
// the disk, so a machine that goes off at any moment does the whole again, with the same result. Then the root has a mark, so that
// a host that puts the boot volume's first state back does not get the root's files put back with it. Both file systems are unmounted at the end.
func completeRoot(ctx context.Context, o Order) error {
	var count int
	err := withMounted(BootDevice, bootFolder, "ext4", bootFlags|unix.MS_RDONLY, func() (err error) {
		tree, old := bootFolder+InstallTree, bootFolder+spent
		has, err := isFolder(tree)
		if err != nil {
			return err
		}
		left, err := isFolder(old)
		if err != nil || !has && !left {
			return err
		}
		if has {
			if count, err = fill(ctx, o, tree); err != nil {
				return err
			}
		}
		if err := unix.Mount("", bootFolder, "", bootFlags|unix.MS_REMOUNT, ""); err != nil {
			return fmt.Errorf("mount the boot volume for writing: %w", err)
		}
		if err := os.RemoveAll(old); err != nil {
			return err
		}
		if has {
			if err := os.Rename(tree, old); err != nil {
				return err
			}
			if err := os.RemoveAll(old); err != nil {
				return err
			}
		}
		return syncFolder(bootFolder)
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInstall, err)
	}
	if count > 0 {
		say(fmt.Sprintf("put %d files and folders into the root", count))
	}
	return nil
}

// fill mounts the root and copies a tree into it.
func fill(ctx context.Context, o Order, tree string) (count int, err error) {
	o.ReadOnly = false
	if err := mountRoot(o); err != nil {
		return 0, fmt.Errorf("mount root: %w", err)
	}
	count, err = installOnce(ctx, tree, newRoot, o.Disk)
	return count, errors.Join(err, unmount(newRoot))
}

// mark is a file in the root that names the disk for which it was completed.
const mark = ".sealboot-installed"

// installOnce installs a tree, waits until it is on the disk, and leaves the mark. Where the mark is there, it does nothing.
func installOnce(ctx context.Context, from, to, disk string) (int, error) {
	root, err := os.OpenRoot(to)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	if f, err := root.Open(mark); err == nil {
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, 100))
		if err != nil || string(text) == disk+"\n" {
			return 0, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	count, err := install(ctx, from, to)
	if err != nil {
		return 0, err
	}
	if err := syncFolder(to); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := root.WriteFile(mark, []byte(disk+"\n"), 0o600); err != nil {
		return 0, err
	}
	return count, syncFolder(to)
}

// withMounted does something while a file system is mounted.
func withMounted(device, folder, kind string, flags uintptr, do func() error) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, folder, kind, flags, ""); err != nil {
		return fmt.Errorf("mount %s: %s: %w", device, kind, err)
	}
	return errors.Join(do(), unmount(folder))
}

// unmount ends a mount for good: what is below our folder is removed later.
func unmount(folder string) error {
	if err := unix.Unmount(folder, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", folder, err)
	}
	return nil
}

// syncFolder waits until all of a file system is on the disk.
func syncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("write %s to the disk: %w", folder, err)
	}
	return nil
}

// isFolder says whether a folder of that name is there; anything else of that name is an error.
func isFolder(name string) (bool, error) {
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.IsDir():
		return false, fmt.Errorf("%s is no folder", name)
	}
	return true, nil
}
