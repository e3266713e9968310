package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/sealboot/sealboot/image/disk"
	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/source"
)

// maxTable bounds the /etc/fstab that is rewritten.
const maxTable = 1 << 20

// edit opens the root for changes, and makes them: file systems that it mounts are folded in,
// kernels and files added. What changes is kept beside out, in a file without a name; it is what the source's
// own boot partition holds.
func (s *fileSystem) edit(ctx context.Context, spec Spec, system *disk.System, out string) error {
	scratch, err := os.CreateTemp(filepath.Dir(out), ".sealboot-*")
	if err != nil {
		return err
	}
	s.scratch = scratch
	if err := os.Remove(scratch.Name()); err != nil {
		return err
	}
	e, err := ext4.NewEditor(s.root, system.Root.Size, ext4.EditOptions{Time: spec.Time, Scratch: scratch})
	if err != nil {
		return err
	}
	for _, m := range system.Mounts {
		if err := s.fold(ctx, e, m, spec); err != nil {
			return fmt.Errorf("put %v into the root at %s: %w", m.Volume, m.Path, err)
		}
	}
	if err := dropMounts(e, system.Mounts); err != nil {
		return err
	}
	for _, name := range spec.Kernels {
		kernel, err := source.Kernel(name)
		if err != nil {
			return fmt.Errorf("kernel: %w", err)
		}
		if err := kernel.Walk(ctx, e.Put); err != nil {
			return fmt.Errorf("add kernel %s: %w", name, err)
		}
	}
	if len(spec.Files) > 0 {
		files, err := source.With(noEntries{}, spec.Files...)
		if err != nil {
			return err
		}
		if err := files.Walk(ctx, e.Put); err != nil {
			return err
		}
	}
	s.fs, s.root = e.Reader, e
	return nil
}

// noEntries is a source of none.
type noEntries struct{}

func (noEntries) Walk(context.Context, source.WalkFunc) error { return nil }

// fold puts a file system where the root mounts it. What the root itself has there is hidden in the running
// system, and goes.
func (s *fileSystem) fold(ctx context.Context, e *ext4.Editor, m disk.Mount, spec Spec) error {
	var tree source.Source
	var err error
	if m.FileSystem.Ext() { // its journal may have to be replayed too
		tree, err = ext4.NewEditor(s.disk.Section(m.Volume), m.Size, ext4.EditOptions{Time: spec.Time})
	} else {
		tree, err = s.disk.Tree(m.Volume)
	}
	if unknown := (*ext4.UnsupportedError)(nil); errors.As(err, &unknown) {
		return &FeatureError{Features: unknown.Features, Image: spec.Source, Partition: m.Number}
	} else if err != nil {
		return err
	}
	names, err := e.ReadDir(m.Path)
	if err != nil && !errors.Is(err, ext4.ErrNotFound) {
		return err
	}
	for _, name := range names {
		if err := removeAll(e, path.Join(m.Path, name)); err != nil {
			return err
		}
	}
	return tree.Walk(ctx, func(entry source.Entry, content io.Reader) error {
		if entry.Path == "/lost+found" {
			return nil
		}
		entry.Path = path.Join(m.Path, entry.Path)
		if entry.Type == source.HardLink {
			entry.Link = path.Join(m.Path, entry.Link)
		}
		return e.Put(entry, content)
	})
}

// removeAll takes away an entry and what is in it. A link is not followed: it can be removed as it is.
func removeAll(e *ext4.Editor, name string) error {
	err := e.Remove(name)
	if !errors.Is(err, ext4.ErrTree) {
		return err
	}
	names, err := e.ReadDir(name)
	if err != nil {
		return err
	}
	for _, inner := range names {
		if err := removeAll(e, path.Join(name, inner)); err != nil {
			return err
		}
	}
	return e.Remove(name)
}

// dropMounts takes folded file systems out of /etc/fstab, since their partitions are no more.
func dropMounts(e *ext4.Editor, mounts []disk.Mount) error {
	var paths []string
	for _, m := range mounts {
		if m.Listed {
			paths = append(paths, m.Path)
		}
	}
	if len(paths) == 0 {
		return nil
	}
	table, err := e.ReadFile("/etc/fstab", maxTable)
	if err != nil {
		return err
	}
	table = disk.DropMounts(table, paths)
	return e.Put(source.Entry{Path: "/etc/fstab", Type: source.Regular, Mode: 0o644, Size: int64(len(table))}, bytes.NewReader(table))
}
