package agent

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/agent/receipt"
)

// leaveReceipt writes the receipt where only root can read it, and only until the machine is off: in /run, which is
// memory and goes over to the next init.
func leaveReceipt(root string, r *receipt.Receipt) error {
	text, err := r.Encode()
	if err != nil {
		return err
	}
	defer clear(text)
	name := filepath.Join(root, receipt.Path)
	if err := os.Mkdir(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("leave the receipt: %w", err)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return fmt.Errorf("leave the receipt: %w", err)
	}
	return nil
}

// handOver becomes the next init: the distribution's own initramfs if one was loaded before
// ours, else the root's. It returns only with an error.
func handOver(o Order, args, env []string) error {
	program, err := distributionInit("/")
	if err != nil {
		return fmt.Errorf("the distribution's initramfs: %w", err)
	}
	if program != "" {
		if o.FileSystem == "btrfs" {
			if err := holdRoot(o); err != nil {
				return fmt.Errorf("mount root: %w", err)
			}
		}
		// It finds the machine as the kernel leaves it, beside the device and /run.
		for _, m := range mounts {
			if m.target != "/run" {
				if err := unix.Unmount(m.target, unix.MNT_DETACH); err != nil {
					return fmt.Errorf("unmount %s: %w", m.target, err)
				}
			}
		}
		if err := os.RemoveAll(Folder); err != nil {
			return err
		}
		return become(program, args, env)
	}
	if err := mountRoot(o); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	if err := switchRoot(); err != nil {
		return fmt.Errorf("switch to root: %w", err)
	}
	return become(o.Init, args, env)
}

func become(program string, args, env []string) error {
	err := unix.Exec(program, append([]string{program}, args...), env)
	return fmt.Errorf("%w: %s: %w", ErrNoInit, program, err)
}

// switchRoot makes newRoot the root, after switch_root(8): the mounts move over, the initramfs is
// emptied to free its memory, and the root is put on top of it.
func switchRoot() error {
	for _, m := range mounts {
		target := newRoot + m.target
		if info, err := os.Lstat(target); err == nil && info.IsDir() {
			if err := unix.Mount(m.target, target, "", unix.MS_MOVE, ""); err != nil {
				return fmt.Errorf("move %s: %w", m.target, err)
			}
		} else if err := unix.Unmount(m.target, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", m.target, err)
		}
	}
	if err := emptyInitramfs(); err != nil {
		return err
	}
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// emptyInitramfs removes all that stands in the root file system in memory, and nothing beyond it.
func emptyInitramfs() error {
	var top unix.Stat_t
	if err := unix.Lstat("/", &top); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil {
		return err
	}
	if fs.Type != unix.RAMFS_MAGIC && fs.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("the root is no initramfs (file system type %#x)", fs.Type)
	}
	var remove func(folder string)
	remove = func(folder string) {
		entries, _ := os.ReadDir(folder)
		for _, e := range entries {
			name := filepath.Join(folder, e.Name())
			var stat unix.Stat_t
			if err := unix.Lstat(name, &stat); err != nil || stat.Dev != top.Dev {
				continue
			}
			if e.IsDir() {
				remove(name)
			}
			os.Remove(name) // a folder that holds a mount stays
		}
	}
	remove("/")
	return nil
}
