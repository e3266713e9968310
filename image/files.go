package image

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sealboot/sealboot/image/btrfs"
	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/fsys"
)

// Files are the files in a disk's root partition, to be read, as the guest sees them: /boot is the boot volume, where there is one.
type Files struct {
	*fsys.Files
	Root FileSystem
	Boot *FileSystem // nil: there is no boot volume
	Size int64       // of the file systems together
	// Unclean says that one was not unmounted cleanly. A journal of ext4 is replayed then, in memory, unless Replay says why it
	// could not be, and so for other file systems: what changed last may be missing then.
	Unclean, Replay error
}

// FileSystem is what a file system says of itself.
type FileSystem struct {
	Kind string // ext4, xfs or btrfs
	fsys.Facts
	Inodes, FreeInodes uint32 // of ext4
}

// errNotReplayed is why what changed last may be missing in XFS and Btrfs.
var errNotReplayed = errors.New("that is done for ext4 alone")

// Files opens the decrypted file system in the root partition, without mounting anything; the disk is never
// written. A wrong passphrase is luks.ErrNoKey; a file system of another kind ext4.ErrNotExt4, or ErrNotBuilt behind a boot volume. The
// time is for what a replay of a journal changes, in memory. In Btrfs the files are those of the root, as btrfs.Root finds it, or
// of a subvolume that is named by its path, and then of nothing else.
//
// It judges nothing as a whole, as Verify does: what is read is checked as it is read.
func (d *Disk) Files(passphrase []byte, now time.Time, subvolume string) (*Files, error) {
	_, cipher, err := d.unlock(passphrase)
	if err != nil {
		return nil, err
	}
	base, size := d.payload()
	p := &plain{disk: d.image, base: base, size: size, cipher: cipher}
	bootSize, err := p.bootSize()
	if err != nil {
		return nil, err
	}
	f := &Files{}
	if bootSize > 0 {
		if err := f.openVolumes(p, bootSize, now, subvolume); err != nil {
			return nil, err
		}
		return f, nil
	}
	if subvolume != "" {
		return nil, fmt.Errorf("%w: the root is ext4, which has no subvolumes", fsys.ErrNotFound)
	}
	root, err := f.openExt4(p, size, now)
	if errors.Is(err, ext4.ErrNotExt4) {
		return nil, fmt.Errorf("the root partition's file system cannot be read here: %w", err)
	} else if err != nil {
		return nil, err
	}
	f.Files, f.Root = root.Files(), factsOf(root)
	f.Size = f.Root.Size
	return f, nil
}

func factsOf(r *ext4.Reader) FileSystem {
	x := r.Facts()
	return FileSystem{Kind: "ext4", Inodes: x.Inodes, FreeInodes: x.FreeInodes, Facts: fsys.Facts{
		UUID: x.UUID, Label: x.Label, BlockSize: x.BlockSize, SectorSize: x.BlockSize,
		Size: int64(x.Blocks) * int64(x.BlockSize), Free: int64(x.FreeBlocks) * int64(x.BlockSize), Features: x.Features,
	}}
}

// openVolumes opens a boot volume and the root behind it.
func (f *Files) openVolumes(p *plain, bootSize int64, now time.Time, subvolume string) error {
	boot, err := f.openExt4(io.NewSectionReader(p, 0, bootSize), bootSize, now)
	if err != nil {
		return fmt.Errorf("boot volume: %w", err)
	}
	root, err := openForeign(io.NewSectionReader(p, bootSize, p.size-bootSize), p.size-bootSize)
	if err != nil {
		return fmt.Errorf("root behind the boot volume: %w", err)
	}
	if err := root.Clean(); err != nil {
		f.Unclean, f.Replay = err, errNotReplayed
	}
	if f.Files, err = systemIn(root, subvolume); err != nil {
		return err
	}
	if subvolume == "" {
		both, err := f.Files.Mount("/boot", boot.Files())
		if err == nil {
			f.Files = both
		} else if !errors.Is(err, fsys.ErrNotFound) { // the folder comes with the first boot
			return err
		}
	}
	facts := factsOf(boot)
	f.Root, f.Boot = FileSystem{Kind: root.Kind(), Facts: root.Facts()}, &facts
	f.Size = f.Root.Size + facts.Size
	return nil
}

// systemIn gives the files of a root, in Btrfs those of a subvolume. Where that is not known, the default one's: others may be below it.
func systemIn(root foreign, subvolume string) (*fsys.Files, error) {
	b, ok := root.(btrfsRoot)
	if !ok && subvolume != "" {
		return nil, fmt.Errorf("%w: the root is %s, which has no subvolumes", fsys.ErrNotFound, root.Kind())
	} else if !ok {
		return root.Tree(), nil
	}
	found, err := b.Root(subvolume)
	if err == nil {
		return found.Files, nil
	} else if errors.Is(err, btrfs.ErrNoRoot) || errors.Is(err, btrfs.ErrRoots) {
		return b.Files, nil
	}
	return nil, err
}

// openExt4 opens an ext4 file system, and replays its journal if that is needed.
func (f *Files) openExt4(r io.ReaderAt, size int64, now time.Time) (*ext4.Reader, error) {
	fs, err := ext4.Open(r, size)
	if err == nil {
		if f.Unclean = fs.Clean(); f.Unclean == nil {
			return fs, nil
		}
	} else if errors.Is(err, ext4.ErrNotExt4) {
		return nil, err
	}
	// What cannot be opened may be right only with what is in the journal, or have features of which no file makes use.
	e, failed := ext4.NewEditor(r, size, ext4.EditOptions{Time: now})
	switch {
	case failed != nil && err != nil:
		return nil, err
	case failed != nil:
		f.Replay = failed
		return fs, nil
	}
	if done := e.Repairs(); f.Unclean == nil && (done.Transactions > 0 || done.Orphans > 0) {
		f.Unclean = ext4.ErrUnclean
	}
	return e.Reader, nil
}
