// Package atomicfile writes a file that appears under its name only when it is whole:
// a temporary file in the same folder, fsync, rename, fsync of the folder.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// File is an output under way. It must end with Commit or Close; Close after Commit does nothing.
type File struct {
	*os.File
	name string
	perm os.FileMode
	done bool
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
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".new-*") // 0600
	if err != nil {
		return nil, err
	}
	return &File{File: f, name: name, perm: perm}, nil
}

// Commit makes the file durable and gives it its name.
func (f *File) Commit() error {
	if f.done {
		return fmt.Errorf("write %s: already finished", f.name)
	}
	f.done = true
	err := errors.Join(f.Chmod(f.perm), f.Sync(), f.File.Close())
	if err == nil {
		err = os.Rename(f.Name(), f.name)
	}
	if err != nil {
		os.Remove(f.Name())
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
	return errors.Join(f.File.Close(), os.Remove(f.Name()))
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
