package btrfs

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/sealboot/sealboot/image/fsys"
)

// ErrNotBtrfs says that there is no such file system.
var ErrNotBtrfs = errors.New("no btrfs file system")

// Numbers of trees and of objects in them (BTRFS_*_OBJECTID), and of the types of items (BTRFS_*_KEY).
const (
	extentTree  = 2
	topLevel    = 5 // the subvolume that holds all others
	sumTree     = 7
	firstFree   = 256 // the first number of files and subvolumes, and the root folder of each subvolume
	sumObject   = 1<<64 - 10
	chunkObject = 256

	itemInode       = 1
	itemInodeRef    = 12
	itemXattr       = 24
	itemFolder      = 84
	itemFolderIndex = 96
	itemContent     = 108
	itemSums        = 128
	itemRoot        = 132
	itemRootBack    = 144
	itemRootRef     = 156
	itemExtent      = 168
	itemMetadata    = 169
	itemChunk       = 228
)

// Reader reads a file system; its Files are those of the default subvolume. Its methods may be called from several goroutines.
type Reader struct {
	*fsys.Files
	r      io.ReaderAt
	super  *superblock
	chunks []chunk // in ascending order of addresses

	mutex  sync.Mutex
	blocks map[uint64][]byte // tree blocks that were read lately
	roots  map[uint64]pointer
}

// Open reads the superblock and where its chunks lie, and refuses what breaks the format's rules (*fsys.FormatError) or has
// features that this package does not know (fsys.ErrUnsupported). size is the number of bytes that r has.
func Open(r io.ReaderAt, size int64) (*Reader, error) {
	if size < superOffset+superSize {
		return nil, fmt.Errorf("%w: only %d bytes", ErrNotBtrfs, size)
	}
	raw := make([]byte, superSize)
	if _, err := fsys.ReadAt(r, raw, superOffset); err != nil {
		return nil, fmt.Errorf("read btrfs superblock: %w", err)
	}
	if string(raw[64:72]) != superMagic {
		return nil, fmt.Errorf("%w: magic number %#x", ErrNotBtrfs, raw[64:72])
	}
	s, err := decodeSuperblock(raw, size)
	if err != nil {
		return nil, err
	}
	f := &Reader{r: r, super: s, blocks: map[uint64][]byte{}, roots: map[uint64]pointer{}}
	if err := f.readChunks(); err != nil {
		return nil, err
	}
	subvolume, err := f.defaultSubvolume()
	if err != nil {
		return nil, err
	}
	f.Files = f.files(subvolume)
	return f, nil
}

func (f *Reader) files(subvolume uint64) *fsys.Files {
	const nameLeast = 64 // bytes that a name takes: an item's head, btrfs_dir_item, its letters
	return fsys.New(&tree{f}, fsys.ID{Tree: subvolume, Number: firstFree}, int64(f.super.size/nameLeast))
}

// Facts gives what the superblock says.
func (f *Reader) Facts() fsys.Facts {
	s := f.super
	return fsys.Facts{
		UUID: s.uuid, Label: s.label, BlockSize: int(s.sectorSize), SectorSize: int(s.sectorSize), Size: int64(s.size), Free: int64(s.size - s.used),
		Features: append(append([]string{s.sum.name}, fsys.Names(s.incompat, incompatNames, "incompat")...), fsys.Names(s.roCompat, roNames, "compat_ro")...),
	}
}

// unclean is what Clean says. A log tree has what fsync promised since the last commit.
func (f *Reader) unclean() error {
	if f.super.logRoot != 0 {
		return fmt.Errorf("%w (it has a log tree)", fsys.ErrUnclean)
	}
	return nil
}
