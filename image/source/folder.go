package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// folder walks a folder without following any symbolic link in it. It stays on one file
// system: a folder inside which another is mounted is refused, lest /proc becomes part of an image.
//
// It asks Linux itself for each file: os.File would have its poller look at each, os.Root look at all of them twice.
type folder struct{ top string }

type folderWalk struct {
	ctx    context.Context
	top    string
	device uint64
	names  map[inode]string // first names of files that have several
	f      WalkFunc
}

type inode struct{ device, number uint64 }

func (s *folder) Walk(ctx context.Context, f WalkFunc) error {
	top, err := os.Open(s.top)
	if err != nil {
		return fmt.Errorf("read folder: %w", err)
	}
	defer top.Close()
	var stat unix.Stat_t
	if err := again(func() error { return unix.Fstat(int(top.Fd()), &stat) }); err != nil {
		return fmt.Errorf("read folder: %w", err)
	}
	w := &folderWalk{ctx: ctx, top: s.top, device: stat.Dev, names: map[inode]string{}, f: f}
	return w.folder(place{int(top.Fd()), ".", "/"}, &stat)
}

// place is a name in an open folder: each is reached from the one above, not from the top.
type place struct {
	in   int // the folder's file descriptor
	name string
	path string // from the top
}

// visit hands out one entry, and then what is in it.
func (w *folderWalk) visit(at place, regular bool) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if regular { // nothing happens when it is opened
		return w.file(at)
	}
	var stat unix.Stat_t
	if err := again(func() error { return unix.Fstatat(at.in, at.name, &stat, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return w.unreadable(at.path, err)
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return w.folder(at, &stat)
	case unix.S_IFREG: // the folder did not say so
		return w.file(at)
	case unix.S_IFSOCK:
		return nil
	}
	return w.other(at, &stat)
}

func newEntry(path string, kind Type, stat *unix.Stat_t) Entry {
	return Entry{Path: path, Type: kind, Mode: stat.Mode & 0o7777, UID: stat.Uid, GID: stat.Gid, ModTime: time.Unix(stat.Mtim.Unix())}
}

// open opens a file or folder, never through a symbolic link.
func (w *folderWalk) open(at place, flags int, stat *unix.Stat_t) (fd int, err error) {
	err = again(func() (err error) {
		fd, err = unix.Openat(at.in, at.name, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, w.unreadable(at.path, err)
	}
	if err := again(func() error { return unix.Fstat(fd, stat) }); err != nil {
		unix.Close(fd)
		return -1, w.unreadable(at.path, err)
	}
	return fd, nil
}

func (w *folderWalk) file(at place) error {
	var stat unix.Stat_t
	fd, err := w.open(at, unix.O_NONBLOCK, &stat) // lest it waits for a named pipe's other end
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return w.changed(at.path)
	}
	e := newEntry(at.path, Regular, &stat)
	e.Size = stat.Size
	if first := w.first(at.path, &stat); first != "" {
		return w.hand(Entry{Path: at.path, Type: HardLink, Link: first}, nil)
	}
	if e.Xattrs, err = w.xattrsOf(at, fd); err != nil {
		return err
	}
	return w.hand(e, &exact{w: w, path: at.path, fd: fd, left: e.Size})
}

func (w *folderWalk) folder(at place, before *unix.Stat_t) error {
	if before.Dev != w.device {
		return fmt.Errorf("read folder: %w: another file system is mounted on %s: unmount it, or give a tar archive", ErrEntry, w.host(at.path))
	}
	var stat unix.Stat_t
	fd, err := w.open(at, unix.O_DIRECTORY, &stat)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), w.host(at.path))
	defer d.Close()
	if stat.Dev != before.Dev || stat.Ino != before.Ino {
		return w.changed(at.path)
	}
	e := newEntry(at.path, Folder, &stat)
	if e.Xattrs, err = w.xattrsOf(at, fd); err != nil {
		return err
	}
	if err := w.hand(e, nil); err != nil {
		return err
	}
	names, err := d.ReadDir(-1)
	if err != nil {
		return w.unreadable(at.path, err)
	}
	slices.SortFunc(names, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, n := range names {
		path := strings.TrimSuffix(at.path, "/") + "/" + n.Name()
		if err := w.visit(place{fd, n.Name(), path}, n.Type().IsRegular()); err != nil {
			return err
		}
	}
	return nil
}

// other takes what is never opened: symbolic links, devices, named pipes.
func (w *folderWalk) other(at place, stat *unix.Stat_t) (err error) {
	e := newEntry(at.path, FIFO, stat)
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		e.Type = Symlink
	case unix.S_IFCHR:
		e.Type = CharDevice
	case unix.S_IFBLK:
		e.Type = BlockDevice
	}
	if first := w.first(at.path, stat); first != "" {
		return w.hand(Entry{Path: at.path, Type: HardLink, Link: first}, nil)
	}
	if e.Type == CharDevice || e.Type == BlockDevice {
		e.Major, e.Minor = unix.Major(stat.Rdev), unix.Minor(stat.Rdev)
	}
	if e.Type == Symlink {
		target := make([]byte, unix.PathMax)
		n := 0
		err := again(func() (err error) { n, err = unix.Readlinkat(at.in, at.name, target); return err })
		if err != nil {
			return w.unreadable(at.path, err)
		}
		e.Link = string(target[:n])
	}
	path := w.host(at.path)
	e.Xattrs, err = w.xattrs(at.path,
		func(list []byte) (int, error) { return unix.Llistxattr(path, list) },
		func(name string, value []byte) (int, error) { return unix.Lgetxattr(path, name, value) })
	if err != nil {
		return err
	}
	return w.hand(e, nil)
}

// first gives the first name of a file that has several, unless this is it.
func (w *folderWalk) first(path string, stat *unix.Stat_t) string {
	if stat.Nlink < 2 {
		return ""
	}
	id := inode{stat.Dev, stat.Ino}
	first, ok := w.names[id]
	if !ok {
		w.names[id] = path
	}
	return first
}

func (w *folderWalk) hand(e Entry, content io.Reader) error {
	if err := w.f(e, content); err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	return nil
}

func (w *folderWalk) host(path string) string { return filepath.Join(w.top, path) }

func (w *folderWalk) changed(path string) error {
	return fmt.Errorf("read folder: %s %w", w.host(path), ErrChanged)
}

func (w *folderWalk) unreadable(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("read %s: %w: run as a user who may read all of it (fakeroot does not help), or give a tar archive", w.host(path), err)
	}
	return fmt.Errorf("read %s: %w", w.host(path), err)
}

// exact gives just as many bytes as were announced, or fails.
type exact struct {
	w    *folderWalk
	path string
	fd   int
	left int64
}

func (x *exact) Read(p []byte) (n int, err error) {
	if x.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	p = p[:min(int64(len(p)), x.left)]
	err = again(func() (err error) { n, err = unix.Read(x.fd, p); return err })
	if err != nil {
		return 0, x.w.unreadable(x.path, err)
	}
	if n == 0 {
		return 0, fmt.Errorf("%w: it became shorter", x.w.changed(x.path))
	}
	x.left -= int64(n)
	return n, nil
}

// again calls f until no signal interrupts it, as package os does.
func again(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// xattrsOf reads all attributes of an open file that this user may see.
func (w *folderWalk) xattrsOf(at place, fd int) ([]Xattr, error) {
	return w.xattrs(at.path,
		func(list []byte) (int, error) { return unix.Flistxattr(fd, list) },
		func(name string, value []byte) (int, error) { return unix.Fgetxattr(fd, name, value) })
}

func (w *folderWalk) xattrs(path string, list func([]byte) (int, error), get func(string, []byte) (int, error)) ([]Xattr, error) {
	names, err := grow(list)
	if errors.Is(err, unix.ENOTSUP) || len(names) == 0 && err == nil {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read folder: list attributes of %s: %w", w.host(path), err)
	}
	var found []Xattr
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names, []byte{0}), []byte{0}) {
		value, err := grow(func(buf []byte) (int, error) { return get(string(name), buf) })
		if err != nil {
			return nil, fmt.Errorf("read folder: attribute %s of %s: %w", name, w.host(path), err)
		}
		found = append(found, Xattr{string(name), value})
	}
	slices.SortFunc(found, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// grow calls get with a buffer as large as it asks for.
func grow(get func([]byte) (int, error)) ([]byte, error) {
	for {
		size, err := get(nil)
		if err != nil || size == 0 {
			return nil, err
		}
		buf := make([]byte, size)
		n, err := get(buf)
		if errors.Is(err, unix.ERANGE) {
			continue
		} else if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}
