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
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// folder walks a folder without following any symbolic link in it. It stays on one file
// system: a folder inside which another is mounted is refused, lest /proc becomes part of an image.
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
	root, err := os.OpenRoot(s.top)
	if err != nil {
		return fmt.Errorf("read folder: %w", err)
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err != nil {
		return fmt.Errorf("read folder: %w", err)
	}
	w := &folderWalk{ctx: ctx, top: s.top, device: uint64(info.Sys().(*syscall.Stat_t).Dev), names: map[inode]string{}, f: f}
	return w.visit(place{root, "."}, "/", info)
}

// place is a name in an open folder: each is reached from the one above, not from the top.
type place struct {
	in   *os.Root
	name string
}

// visit hands out one entry, and then what is in it.
func (w *folderWalk) visit(at place, path string, info fs.FileInfo) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	e := Entry{
		Path: path, Mode: stat.Mode & 0o7777, UID: stat.Uid, GID: stat.Gid,
		ModTime: time.Unix(stat.Mtim.Unix()),
	}
	switch stat.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		e.Type = Folder
		if uint64(stat.Dev) != w.device {
			return fmt.Errorf("read folder: %w: another file system is mounted on %s: unmount it, or give a tar archive", ErrEntry, w.host(path))
		}
	case syscall.S_IFREG:
		e.Type, e.Size = Regular, stat.Size
	case syscall.S_IFLNK:
		e.Type = Symlink
	case syscall.S_IFCHR:
		e.Type = CharDevice
	case syscall.S_IFBLK:
		e.Type = BlockDevice
	case syscall.S_IFIFO:
		e.Type = FIFO
	default: // a socket
		return nil
	}
	if e.Type == CharDevice || e.Type == BlockDevice {
		e.Major, e.Minor = unix.Major(uint64(stat.Rdev)), unix.Minor(uint64(stat.Rdev))
	}
	if e.Type != Folder && stat.Nlink > 1 {
		id := inode{uint64(stat.Dev), stat.Ino}
		if first, ok := w.names[id]; ok {
			return w.hand(Entry{Path: path, Type: HardLink, Link: first}, nil)
		}
		w.names[id] = path
	}
	return w.describe(at, e, info)
}

// describe adds what takes a look at the file itself: target, attributes, content.
func (w *folderWalk) describe(at place, e Entry, info fs.FileInfo) (err error) {
	if e.Type == Symlink {
		if e.Link, err = at.in.Readlink(at.name); err != nil {
			return w.unreadable(e.Path, err)
		}
	}
	if e.Xattrs, err = listXattrs(w.host(e.Path)); err != nil {
		return err
	}
	switch e.Type {
	case Regular:
		return w.file(at, e, info)
	case Folder:
		return w.folder(at, e, info)
	}
	return w.hand(e, nil)
}

func (w *folderWalk) folder(at place, e Entry, info fs.FileInfo) error {
	if err := w.hand(e, nil); err != nil {
		return err
	}
	in, err := at.in.OpenRoot(at.name)
	if err != nil {
		return w.unreadable(e.Path, err)
	}
	defer in.Close()
	if now, err := in.Stat("."); err != nil {
		return w.unreadable(e.Path, err)
	} else if !os.SameFile(info, now) {
		return fmt.Errorf("read folder: %s %w", w.host(e.Path), ErrChanged)
	}
	d, err := in.Open(".")
	if err != nil {
		return w.unreadable(e.Path, err)
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return w.unreadable(e.Path, err)
	}
	slices.Sort(names)
	for _, name := range names {
		path := strings.TrimSuffix(e.Path, "/") + "/" + name
		info, err := in.Lstat(name)
		if err != nil {
			return w.unreadable(path, err)
		}
		if err := w.visit(place{in, name}, path, info); err != nil {
			return err
		}
	}
	return nil
}

func (w *folderWalk) file(at place, e Entry, info fs.FileInfo) error {
	f, err := at.in.OpenFile(at.name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return w.unreadable(e.Path, err)
	}
	defer f.Close()
	if now, err := f.Stat(); err != nil {
		return w.unreadable(e.Path, err)
	} else if !os.SameFile(info, now) || now.Size() != e.Size {
		return fmt.Errorf("read folder: %s %w", w.host(e.Path), ErrChanged)
	}
	return w.hand(e, &exact{r: f, left: e.Size, name: w.host(e.Path)})
}

func (w *folderWalk) hand(e Entry, content io.Reader) error {
	if err := w.f(e, content); err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	return nil
}

func (w *folderWalk) host(path string) string { return filepath.Join(w.top, path) }

func (w *folderWalk) unreadable(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("read %s: %w: run as a user who may read all of it (fakeroot does not help), or give a tar archive", w.host(path), err)
	}
	return fmt.Errorf("read %s: %w", w.host(path), err)
}

// exact gives just as many bytes as were announced, or fails.
type exact struct {
	r    io.Reader
	left int64
	name string
}

func (x *exact) Read(p []byte) (int, error) {
	if x.left == 0 {
		return 0, io.EOF
	}
	n, err := x.r.Read(p[:min(int64(len(p)), x.left)])
	x.left -= int64(n)
	if errors.Is(err, io.EOF) && x.left > 0 {
		return n, fmt.Errorf("read folder: %s %w: it became shorter", x.name, ErrChanged)
	}
	return n, err
}

// listXattrs reads all attributes of a file that this user may see.
func listXattrs(path string) ([]Xattr, error) {
	list, err := grow(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	if errors.Is(err, unix.ENOTSUP) || len(list) == 0 && err == nil {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read folder: list attributes of %s: %w", path, err)
	}
	var found []Xattr
	for name := range bytes.SplitSeq(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		value, err := grow(func(buf []byte) (int, error) { return unix.Lgetxattr(path, string(name), buf) })
		if err != nil {
			return nil, fmt.Errorf("read folder: attribute %s of %s: %w", name, path, err)
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
