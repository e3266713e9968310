package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of what is copied into the root.
const (
	maxInstallFile    = 256 << 20 // bytes of a file; the largest that the builder puts there, its programs, have some 10 MiB
	maxInstallEntries = 10000
	maxInstallDepth   = 32 // folders
)

// temporary is the name of what is not complete yet, in the folder where it will stand.
const temporary = ".sealboot-install"

// installer copies a tree into a root. Between any two of its steps the machine may go off: it is then run again from the
// beginning, so each file, link and folder appears under its name with all that it is, in one step (rename), and in place of
// an old one. Folders that the root has keep owner and mode.
//
// The root's symbolic links count as they will once it is the root: /lib as usr/lib, wherever they begin, and none leads out. Nobody
// else is there to change one meanwhile. openat2(2) resolves so too (RESOLVE_IN_ROOT), but xfs is the root of systems whose kernels are older.
type installer struct {
	ctx   context.Context
	from  string // the tree
	root  *os.Root
	count int
}

// install copies the tree in the folder from into the root that is mounted at to, and gives the number of entries.
func install(ctx context.Context, from, to string) (int, error) {
	root, err := os.OpenRoot(to)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	in := &installer{ctx: ctx, from: from, root: root}
	err = in.folder("/", 0)
	return in.count, err
}

// folder copies what is in a folder of the tree into that of the root.
func (in *installer) folder(path string, depth int) error {
	if depth > maxInstallDepth {
		return fmt.Errorf("%s: folders more than %d deep", path, maxInstallDepth)
	}
	entries, err := os.ReadDir(filepath.Join(in.from, path))
	if err != nil {
		return err
	}
	target, err := in.open(path)
	if err != nil {
		return fmt.Errorf("open folder %s of the root: %w", path, err)
	}
	defer target.Close()
	for _, e := range entries {
		if in.count++; in.count > maxInstallEntries {
			return fmt.Errorf("more than %d files to install", maxInstallEntries)
		}
		name := filepath.Join(path, e.Name())
		s := &entry{source: filepath.Join(in.from, name), folder: int(target.Fd()), name: e.Name()}
		if err := in.put(s); err != nil {
			return fmt.Errorf("install %s: %w", name, err)
		}
		if s.kind() == unix.S_IFDIR {
			if err := in.folder(name, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxLinks is how many symbolic links a path may lead through (path_resolution(7)).
const maxLinks = 40

// open opens a folder of the root.
func (in *installer) open(path string) (*os.File, error) {
	done, links := ".", 0 // done has no symbolic links
	for todo := strings.Split(path, "/"); len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = filepath.Dir(done) // the root's own is the root
			continue
		}
		next := filepath.Join(done, part)
		target, err := in.root.Readlink(next)
		switch {
		case errors.Is(err, unix.EINVAL): // no link
			done = next
			continue
		case err != nil:
			return nil, err
		}
		if links++; links > maxLinks {
			return nil, unix.ELOOP
		}
		if filepath.IsAbs(target) {
			done = "."
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return in.root.OpenFile(done, os.O_RDONLY|unix.O_DIRECTORY, 0)
}

// entry is one of the tree, and where it is put.
type entry struct {
	source string
	unix.Stat_t
	folder int // of the root, a descriptor
	name   string
}

func (e *entry) kind() uint32 { return e.Mode & unix.S_IFMT }

// at names what is in the entry's folder of the root, for calls that take no descriptor of a folder.
func (e *entry) at(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", e.folder, name) }

func (in *installer) put(e *entry) error {
	if err := unix.Lstat(e.source, &e.Stat_t); err != nil {
		return err
	}
	if e.kind() == unix.S_IFDIR {
		var old unix.Stat_t
		err := unix.Fstatat(e.folder, e.name, &old, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			return nil // what it is shows when it is opened
		} else if !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	for _, step := range []func() error{e.clear, e.make, e.own, e.attributes, e.rename} {
		if err := in.ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// clear removes what an earlier, interrupted attempt left: a folder is still empty then.
func (e *entry) clear() error {
	err := unix.Unlinkat(e.folder, temporary, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(e.folder, temporary, unix.AT_REMOVEDIR)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (e *entry) make() error {
	switch e.kind() {
	case unix.S_IFDIR:
		return unix.Mkdirat(e.folder, temporary, 0o700)
	case unix.S_IFLNK:
		target, err := os.Readlink(e.source)
		if err != nil {
			return err
		}
		return unix.Symlinkat(target, e.folder, temporary)
	case unix.S_IFREG:
		return e.copy()
	}
	return fmt.Errorf("neither a file, a folder nor a symbolic link (mode %#o)", e.Mode)
}

func (e *entry) copy() error {
	if e.Size > maxInstallFile {
		return fmt.Errorf("%d bytes, more than %d", e.Size, maxInstallFile)
	}
	from, err := os.OpenFile(e.source, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	fd, err := unix.Openat(e.folder, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(fd), temporary)
	_, err = io.CopyN(to, from, e.Size)
	return errors.Join(err, to.Close())
}

// own sets owner and mode, in this order: a new owner clears set-user-ID.
func (e *entry) own() error {
	if err := unix.Fchownat(e.folder, temporary, int(e.Uid), int(e.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if e.kind() == unix.S_IFLNK {
		return nil
	}
	return unix.Fchmodat(e.folder, temporary, e.Mode&0o7777, 0)
}

// selinux is the attribute with a file's label (Linux include/uapi/linux/xattr.h).
const selinux = "security.selinux"

// attributes copies the extended attributes. A file without an SELinux label gets the one that it would get from the running system: that of
// the file it replaces, or of its folder. A system that enforces SELinux could not read it otherwise, /etc/fstab least of all.
func (e *entry) attributes() error {
	names := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Llistxattr(e.source, names)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	labelled := false
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:max(0, n)]), "\x00"), "\x00") {
		if name == "" {
			continue // none at all
		}
		size, err := unix.Lgetxattr(e.source, name, value)
		if err == nil {
			err = unix.Lsetxattr(e.at(temporary), name, value[:size], 0)
		}
		if err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
		labelled = labelled || name == selinux
	}
	if labelled {
		return nil
	}
	for _, from := range []string{e.at(e.name), e.at(".")} {
		if size, err := unix.Lgetxattr(from, selinux, value); err == nil && size > 0 {
			return unix.Lsetxattr(e.at(temporary), selinux, value[:size], 0)
		}
	}
	return nil
}

func (e *entry) rename() error {
	return unix.Renameat(e.folder, temporary, e.folder, e.name)
}
