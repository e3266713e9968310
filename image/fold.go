package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/sealboot/sealboot/image/disk"
	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/source"
)

// maxTable bounds the /etc/fstab that is rewritten.
const maxTable = 1 << 20

// edit opens the root for changes, and makes them: file systems that it mounts are folded in,
// kernels and files added. What changes is kept in a folder, in a file without a name; it is what the source's
// own boot partition holds.
func (s *fileSystem) edit(ctx context.Context, spec Spec, system *disk.System, folder string) error {
	scratch, err := os.CreateTemp(folder, ".sealboot-*")
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
	s.fs, s.root, s.repairs = e.Reader, e, e.Repairs()
	return nil
}

// noEntries is a source of none.
type noEntries struct{}

func (noEntries) Walk(context.Context, source.WalkFunc) error { return nil }

// fold puts a file system where the root mounts it. What the root itself has there is hidden in the running
// system, and goes.
func (s *fileSystem) fold(ctx context.Context, e *ext4.Editor, m disk.Mount, spec Spec) error {
	tree, err := openMount(s.disk, m, spec)
	if err != nil {
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
	return source.Under(m.Path, tree).Walk(ctx, e.Put)
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

// openMount opens what is mounted in a root.
func openMount(d *disk.Disk, m disk.Mount, spec Spec) (source.Source, error) {
	if m.Subvolume != "" {
		return d.Subvolume(m.Volume, m.Subvolume)
	}
	return openVolume(d, m.Volume, spec)
}

// openVolume opens a volume's file system to read it. A journal of ext4 is replayed, in memory.
func openVolume(d *disk.Disk, v disk.Volume, spec Spec) (source.Source, error) {
	if !v.FileSystem.Ext() {
		return d.Tree(v)
	}
	e, err := ext4.NewEditor(d.Section(v), v.Size, ext4.EditOptions{Time: spec.Time})
	if unknown := (*ext4.UnsupportedError)(nil); errors.As(err, &unknown) {
		return nil, &FeatureError{Features: unknown.Features, Image: spec.Source, Partition: v.Number}
	} else if err != nil {
		return nil, err
	}
	return e, nil
}

// OpenTree opens what Build makes a disk of as a tree of files, without the Spec's Files: to look for
// kernels in it, say. The caller calls done when it is no longer read.
func OpenTree(spec Spec) (tree source.Source, done func() error, err error) {
	spec = spec.withDefaults()
	tree, err = source.OpenWith(spec.Source, spec.Kernels...)
	if !errors.Is(err, source.ErrExt4) && !errors.Is(err, source.ErrUnknown) {
		return tree, func() error { return nil }, err
	}
	d, wrong := disk.Open(spec.Source)
	if errors.Is(wrong, disk.ErrNoDisk) {
		return nil, nil, err
	} else if wrong != nil {
		return nil, nil, wrong
	}
	if tree, err = openSystem(d, spec); err != nil {
		d.Close()
		return nil, nil, err
	}
	return tree, d.Close, nil
}

// openSystem opens the root with what it mounts, and kernels over it.
func openSystem(d *disk.Disk, spec Spec) (source.Source, error) {
	system, err := d.System(spec.RootPartition, spec.RootSubvolume)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spec.Source, err)
	}
	var tree source.Source
	if system.BootVolume() {
		tree, err = system.Tree(d)
	} else {
		tree, err = openVolume(d, system.Root, spec)
	}
	if err != nil {
		return nil, fmt.Errorf("read %v of %s: %w", system.Root, spec.Source, err)
	}
	return withMounts(d, system, tree, spec)
}

// withMounts lays what a root mounts over its tree, and kernels over that.
func withMounts(d *disk.Disk, system *disk.System, tree source.Source, spec Spec) (source.Source, error) {
	for _, m := range system.Mounts {
		over, err := openMount(d, m, spec)
		if err != nil {
			return nil, fmt.Errorf("read %v of %s: %w", m.Volume, spec.Source, err)
		}
		tree = source.Mounted(tree, m.Path, over)
	}
	return source.OverKernels(tree, spec.Kernels...)
}
