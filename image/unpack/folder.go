package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/image/source"
)

// Walk gives the entries of a tree, as source.Source does.
type Walk func(ctx context.Context, use source.WalkFunc) error

// Options say how a folder is made.
type Options struct {
	// Most is how many bytes of content the tree can have: those of its file system.
	Most int64
	// AsRoot keeps owners, devices, set-user-ID and set-group-ID bits, which takes root's rights. Else all belongs to who
	// runs this, devices are left out, and the bits are taken off, since they would now be for another user.
	AsRoot bool
}

// Unpacked counts what Folder made.
type Unpacked struct {
	Files, Folders, Links int
	Devices               int   // made, or left out
	Bytes                 int64 // of content, holes not counted
}

// Folder makes a new folder of the tree. It appears under its name when it is whole; after an error nothing is left. A
// tree that is one file becomes a file.
//
// Modes, times, symbolic links, hard links and holes are kept; extended attributes are not: Tar keeps those.
func Folder(ctx context.Context, name string, walk Walk, o Options) (*Unpacked, error) {
	if _, err := os.Lstat(name); err == nil {
		return nil, fmt.Errorf("%s: %w: give a name that is free", name, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	name = filepath.Clean(name)
	above, err := os.MkdirTemp(filepath.Dir(name), "."+filepath.Base(name)+".new-*") // 0700: nobody else comes near before the modes are right
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(above)
	if err != nil {
		os.Remove(above)
		return nil, err
	}
	defer removeAll(above, root)
	f := &folder{ctx: ctx, root: root, options: o, budget: budget{o.Most}, buf: make([]byte, 1<<20), devices: map[string]bool{}}
	if err := walk(ctx, f.entry); err != nil {
		return nil, err
	}
	if f.made == (Unpacked{}) {
		return nil, fmt.Errorf("%w: nothing is there", ErrName)
	}
	if err := f.finish(name); err != nil {
		return nil, err
	}
	f.made.Bytes = o.Most - f.budget.left
	return &f.made, nil
}

// treeName is what the tree is called until it is whole.
const treeName = "tree"

// removeAll removes also what lies in folders that their owner may not write to.
func removeAll(name string, root *os.Root) {
	fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			root.Chmod(path, 0o700)
		}
		return nil
	})
	root.Close()
	os.RemoveAll(name)
}

type folder struct {
	ctx     context.Context
	root    *os.Root
	options Options
	budget  budget
	buf     []byte
	made    Unpacked
	folders []source.Entry  // their modes and times come last
	devices map[string]bool // left out
}

func (f *folder) entry(e source.Entry, content io.Reader) error {
	name, err := relative(e.Path)
	if err != nil {
		return err
	}
	if err := f.make(path.Join(treeName, name), e, content); err != nil {
		return fmt.Errorf("unpack %s: %w", e.Path, err)
	}
	return nil
}

func (f *folder) make(name string, e source.Entry, content io.Reader) error {
	switch e.Type {
	case source.Folder:
		f.made.Folders++
		e.Path = name
		f.folders = append(f.folders, e)
		return f.root.Mkdir(name, 0o700)
	case source.Regular:
		f.made.Files++
		return f.file(name, e, content)
	case source.Symlink:
		f.made.Links++
		if err := f.root.Symlink(e.Link, name); err != nil {
			return err
		}
		return f.own(name, e, false)
	case source.HardLink:
		first, err := relative(e.Link)
		if err != nil {
			return err
		}
		if f.devices[first] {
			return nil
		}
		f.made.Links++
		return f.root.Link(path.Join(treeName, first), name)
	case source.CharDevice, source.BlockDevice, source.FIFO:
		f.made.Devices++
		return f.device(name, e)
	}
	return fmt.Errorf("%w: it is of %v", ErrName, e.Type)
}

func (f *folder) file(name string, e source.Entry, content io.Reader) error {
	out, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := f.budget.content(e, content); err != nil {
		return err
	}
	if err := out.Truncate(e.Size); err != nil {
		return err
	}
	if err := copyContent(f.ctx, out, e, content, f.buf); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return f.own(name, e, true)
}

// own gives what was just made its owner, mode and time.
func (f *folder) own(name string, e source.Entry, mode bool) error {
	if f.options.AsRoot {
		if err := f.root.Lchown(name, int(e.UID), int(e.GID)); err != nil {
			return err
		}
	}
	if !mode { // of a symbolic link there is none, and Chtimes would follow it
		return nil
	}
	if err := f.root.Chmod(name, f.mode(e)); err != nil {
		return err
	}
	return f.root.Chtimes(name, time.Time{}, e.ModTime)
}

// mode is the entry's in the form of package os.
func (f *folder) mode(e source.Entry) os.FileMode {
	mode := os.FileMode(e.Mode & 0o777)
	for _, bit := range []struct {
		on  uint32
		is  os.FileMode
		own bool // only with its owner
	}{{0o4000, os.ModeSetuid, true}, {0o2000, os.ModeSetgid, true}, {0o1000, os.ModeSticky, false}} {
		if e.Mode&bit.on != 0 && (f.options.AsRoot || !bit.own) {
			mode |= bit.is
		}
	}
	return mode
}

// device makes a device or a named pipe, if that is asked for.
func (f *folder) device(name string, e source.Entry) error {
	if !f.options.AsRoot {
		rest, _ := relative(e.Path)
		f.devices[rest] = true
		return nil
	}
	// The folder was made here, and nobody else can reach it yet; os.Root has no way to make a device.
	dir, err := f.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	kind := map[source.Type]uint32{source.CharDevice: unix.S_IFCHR, source.BlockDevice: unix.S_IFBLK, source.FIFO: unix.S_IFIFO}[e.Type]
	if err := unix.Mknodat(int(dir.Fd()), path.Base(name), kind|0o600, int(unix.Mkdev(e.Major, e.Minor))); err != nil {
		return err
	}
	return f.own(name, e, true)
}

// finish gives folders their modes and times, the deepest first, makes all durable and gives the tree its name. The
// tree's own mode comes last: a folder that its owner may not write to cannot be moved.
func (f *folder) finish(name string) error {
	here, err := f.root.Open(".")
	if err != nil {
		return err
	}
	defer here.Close()
	for i := len(f.folders) - 1; i >= 0; i-- {
		e := f.folders[i]
		if e.Path == treeName {
			e.Mode |= 0o700
		}
		if err := f.own(e.Path, e, true); err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
	}
	if err := unix.Syncfs(int(here.Fd())); err != nil {
		return fmt.Errorf("make %s durable: %w", name, err)
	}
	top := here
	if len(f.folders) > 0 && f.folders[0].Path == treeName {
		if top, err = f.root.Open(treeName); err != nil {
			return err
		}
		defer top.Close()
	}
	// RENAME_NOREPLACE: what came there meanwhile stays.
	if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(f.root.Name(), treeName), unix.AT_FDCWD, name, unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("rename to %s: %w", name, err)
	}
	if top != here {
		return top.Chmod(f.mode(f.folders[0]))
	}
	return nil
}
