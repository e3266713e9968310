package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sealboot/sealboot/image/disk"
	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/luks/layout"
)

const (
	bootUnit  = 64 * mib   // the boot volume's size is a multiple: no rest is left that a group of ext4 would not use
	bootLeast = 1024 * mib // its size where nothing is said
	bootNames = 1024       // bytes that a name and its inode take, with room to spare

	// installFolder holds, in the boot volume, what the agent copies into the root at the first boot (package agent).
	installFolder = "/sealboot/install"
)

// volumes is a root in a file system that GRUB does not read, and into which nothing is written here: XFS or Btrfs. It is copied
// block by block, as fileSystem is, behind a boot volume (package luks/layout), which is made: ext4, with what /boot holds, and what is to
// be put into the root.
type volumes struct {
	disk     *disk.Disk
	name     string // for errors
	root     io.ReaderAt
	fs       foreign
	boot     source.Source // what the boot volume holds, under its own paths
	bootSize int64
	given    bool   // bootSize is
	words    string // for the kernel's command line
}

func openVolumes(d *disk.Disk, system *disk.System, spec Spec, name string) (*volumes, error) {
	v := &volumes{disk: d, name: name, root: d.Section(system.Root), bootSize: spec.BootSize, given: spec.BootSize != 0, words: system.KernelWords()}
	var err error
	if v.fs, err = openForeign(v.root, system.Root.Size); err == nil {
		err = v.fs.Clean()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	tree, err := system.Tree(d)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	inside, missing, err := bootOf(tree)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	all, err := withMounts(d, system, inside, spec)
	if err != nil {
		return nil, err
	}
	if all, err = source.With(all, spec.Files...); err != nil {
		return nil, err
	}
	v.boot = &bootTree{all, missing}
	return v, nil
}

// bootOf gives the folder /boot of a root, with all below it. missing says that there is none.
func bootOf(root disk.Tree) (src source.Source, missing bool, err error) {
	files, ok := root.(interface {
		Node(string) (*fsys.Node, error)
	})
	if !ok {
		return nil, false, fmt.Errorf("%w: %T", ErrSource, root)
	}
	node, err := files.Node("/boot")
	if errors.Is(err, fsys.ErrNotFound) {
		return noEntries{}, true, nil
	} else if err != nil {
		return nil, false, err
	}
	return source.Under("/boot", walkFunc(node.Tree)), false, nil
}

// walkFunc makes a function a source.
type walkFunc func(context.Context, source.WalkFunc) error

func (f walkFunc) Walk(ctx context.Context, use source.WalkFunc) error { return f(ctx, use) }

// bootTree is what goes into the boot volume: what is below /boot, and the rest for the root. Its own name /boot leads to itself, so that
// GRUB finds there what it looks for in a root.
type bootTree struct {
	src    source.Source
	noBoot bool // the root has no /boot for the guest to mount it at
}

func (b *bootTree) Walk(ctx context.Context, use source.WalkFunc) error {
	err := b.src.Walk(ctx, func(e source.Entry, content io.Reader) error {
		if e.Path == "/" || strings.HasPrefix(e.Path+"/", "/boot"+installFolder+"/") { // what an earlier disk had for its root
			return nil
		}
		e.Path = bootPath(e.Path)
		if e.Type == source.HardLink {
			e.Link = bootPath(e.Link)
		}
		return use(e, content)
	})
	if err != nil {
		return err
	}
	if b.noBoot {
		if err := use(source.Entry{Path: installFolder + "/boot", Type: source.Folder, Mode: 0o755}, nil); err != nil {
			return err
		}
	}
	return use(source.Entry{Path: "/boot", Type: source.Symlink, Mode: 0o777, Link: "."}, nil)
}

// bootPath gives a path of the root its place in the boot volume.
func bootPath(p string) string {
	if p == "/boot" {
		return "/"
	}
	if rest, ok := strings.CutPrefix(p, "/boot/"); ok {
		return "/" + rest
	}
	return installFolder + p
}

func (v *volumes) sectorSize() int  { return v.fs.Facts().SectorSize }
func (v *volumes) close() error     { return v.disk.Close() }
func (v *volumes) unchanged() error { return v.disk.Unchanged() }

// diskSize also settles the boot volume's size.
func (v *volumes) diskSize(ctx context.Context, spec Spec) (int64, error) {
	if !v.given {
		holds := int64(0)
		err := v.boot.Walk(ctx, func(e source.Entry, _ io.Reader) error {
			holds += e.Size + bootNames
			return nil
		})
		if err != nil {
			return 0, err
		}
		v.bootSize = max(bootLeast, (2*holds+bootUnit-1)/bootUnit*bootUnit)
	}
	return roomFor(v.bootSize+v.fs.Facts().Size, spec)
}

// write first reads all that the root's files consist of, but their content: a damaged root would not boot.
func (v *volumes) write(ctx context.Context, spec Spec, diskUUID string, out sink, _ int64, report func(int64)) error {
	err := v.fs.Tree().Walk(ctx, func(source.Entry, io.Reader) error { report(0); return nil })
	if err != nil {
		return fmt.Errorf("read %s: %w", v.name, err)
	}
	uuid, hashSeed := fileSystemID(diskUUID)
	options := ext4.Options{Size: v.bootSize, UUID: uuid, HashSeed: hashSeed, Label: layout.Label, Time: spec.Time}
	err = writeTree(ctx, out, options, v.boot, report)
	if small := (*ext4.SizeError)(nil); errors.As(err, &small) {
		return fmt.Errorf("%w: a boot volume of %d MiB is too small: it takes %d", ErrSource, v.bootSize/mib, (small.Needed+bootUnit-1)/bootUnit*(bootUnit/mib))
	} else if err != nil {
		return fmt.Errorf("boot volume: %w", err)
	}
	return copyAllocated(ctx, v.fs, v, v.bootSize, out, report)
}

// ReadAt reads the root's file system, for several goroutines.
func (v *volumes) ReadAt(b []byte, off int64) (int, error) { return readSource(v.root, b, off, v.name) }
