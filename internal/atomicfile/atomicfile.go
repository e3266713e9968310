// Package atomicfile writes a file that appears under its name only when it is whole: a file without
// a name in the same folder, fsync, its name, fsync of the folder. A program that is killed leaves nothing behind, where the
// folder's file system knows files without names (O_TMPFILE, open(2)); elsewhere a hidden temporary file.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// File is an output under way. It must end with Commit or Close; Close after Commit does nothing.
type File struct {
	*os.File
	name  string
	named string // of a temporary file; empty: it has no name
	perm  os.FileMode
	done  bool
}

// Create begins the output name. A symbolic link or anything but a regular file
// already standing under that name is refused, so that an output never goes
// through a link that somebody else placed.
func Create(name string, perm os.FileMode) (*File, error) {
	if info, err := os.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("write %s: something that is not a regular file has that name", name)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if f, err := unnamed(name); err == nil {
		return &File{File: f, name: name, perm: perm}, nil
	}
	return createNamed(name, perm) // an error of another kind comes again
}

func createNamed(name string, perm os.FileMode) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(name), pattern(name)) // 0600
	if err != nil {
		return nil, err
	}
	return &File{File: f, name: name, named: f.Name(), perm: perm}, nil
}

func pattern(name string) string { return "." + filepath.Base(name) + ".new-*" }

// unnamed makes a file without a name in name's folder; errors call it by the one that it will have.
func unnamed(name string) (*os.File, error) {
	fd, err := unix.Open(filepath.Dir(name), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := os.Stat(descriptor(f)); err != nil { // without /proc it would never get one
		f.Close()
		return nil, err
	}
	return f, nil
}

func descriptor(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// link gives a file without a name one that is free.
func link(f *os.File, name string) error {
	return unix.Linkat(unix.AT_FDCWD, descriptor(f), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW)
}

// appear gives the file its name, in place of a file that has it. A name can only be taken over by a rename.
func (f *File) appear() error {
	for f.named == "" {
		err := link(f.File, f.name)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
		temp, err := os.CreateTemp(filepath.Dir(f.name), pattern(f.name)) // a free name
		if err != nil {
			return err
		}
		if err := errors.Join(temp.Close(), os.Remove(temp.Name())); err != nil {
			return err
		}
		if err := link(f.File, temp.Name()); err == nil {
			f.named = temp.Name()
		} else if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return os.Rename(f.named, f.name)
}

// remove takes a temporary file away.
func (f *File) remove() error {
	if f.named == "" {
		return nil
	}
	return os.Remove(f.named)
}

// Commit makes the file durable and gives it its name.
func (f *File) Commit() error {
	if f.done {
		return fmt.Errorf("write %s: already finished", f.name)
	}
	f.done = true
	err := errors.Join(f.Chmod(f.perm), f.Sync())
	if err == nil {
		err = f.appear()
	}
	if err = errors.Join(err, f.File.Close()); err != nil {
		f.remove()
		return fmt.Errorf("write %s: %w", f.name, err)
	}
	return syncFolder(filepath.Dir(f.name))
}

// Close gives the output up, unless it was committed: nothing stays behind.
func (f *File) Close() error {
	if f.done {
		return nil
	}
	f.done = true
	return errors.Join(f.File.Close(), f.remove())
}

// WriteFile writes data whole or not at all.
func WriteFile(name string, data []byte, perm os.FileMode) error {
	f, err := Create(name, perm)
	if err != nil {
		return err
	}
	defer f.Close()
	if n, err := f.Write(data); err != nil {
		return err
	} else if n != len(data) {
		return io.ErrShortWrite
	}
	return f.Commit()
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
