package xfs

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/sealboot/sealboot/image/fsys"
)

// ErrNotXFS says that there is no such file system.
var ErrNotXFS = errors.New("no xfs file system")

// Reader reads a file system. Its methods may be called from several goroutines.
type Reader struct {
	*fsys.Files
	r     io.ReaderAt
	super *superblock
	clean func() error
}

// Open reads the superblock, and refuses what breaks the format's rules (*fsys.FormatError) or has features
// that this package does not know (fsys.ErrUnsupported). size is the number of bytes that r has.
func Open(r io.ReaderAt, size int64) (*Reader, error) {
	if size < superLeast {
		return nil, fmt.Errorf("%w: only %d bytes", ErrNotXFS, size)
	}
	raw := make([]byte, superLeast)
	if _, err := fsys.ReadAt(r, raw, 0); err != nil {
		return nil, fmt.Errorf("read xfs superblock: %w", err)
	}
	if string(raw[:4]) != "XFSB" {
		return nil, fmt.Errorf("%w: magic number %#x", ErrNotXFS, raw[:4])
	}
	s, err := decodeSuperblock(raw, size)
	if err != nil {
		return nil, err
	}
	if s.v5() {
		sector := make([]byte, s.sectorSize)
		if _, err := fsys.ReadAt(r, sector, 0); err != nil {
			return nil, fmt.Errorf("read xfs superblock: %w", err)
		}
		if !checksumRight(sector, 224) {
			return nil, broken("superblock", "wrong checksum")
		}
	}
	f := &Reader{r: r, super: s}
	if _, err := f.place(s.logStart, uint64(s.logBlocks)); err != nil || s.logBlocks == 0 || int64(s.logBlocks)<<s.blockLog > logMost {
		return nil, broken("superblock", "a log of %d blocks at block %d", s.logBlocks, s.logStart)
	}
	const nameLeast = 6 // bytes that a name takes in an inode: xfs_dir2_sf_entry with one letter and no ftype is 8
	f.Files = fsys.New(&tree{f}, fsys.ID{Number: s.root}, int64(s.blocks)*int64(s.blockSize)/nameLeast)
	f.clean = sync.OnceValue(f.readLog)
	return f, nil
}

// Facts gives what the superblock says.
func (f *Reader) Facts() fsys.Facts {
	s := f.super
	return fsys.Facts{
		UUID: s.uuid, Label: s.label, BlockSize: int(s.blockSize), SectorSize: int(s.sectorSize), Size: int64(s.blocks) * int64(s.blockSize),
		Free: int64(s.free) * int64(s.blockSize), Features: s.features(),
	}
}

// groupLen gives the blocks of a group: the last one may be shorter.
func (f *Reader) groupLen(group uint32) uint64 {
	return min(uint64(f.super.agBlocks), f.super.blocks-uint64(group)*uint64(f.super.agBlocks))
}

// place gives where blocks of one group lie, in bytes. A block's number has the group's above its place in it.
func (f *Reader) place(block, count uint64) (int64, error) {
	s := f.super
	group, in := block>>s.agLog, block&(1<<s.agLog-1)
	if group >= uint64(s.agCount) || count > f.groupLen(uint32(group)) || in > f.groupLen(uint32(group))-count {
		return 0, broken(fmt.Sprintf("block %d", block), "%d blocks from there lie outside the file system", count)
	}
	return int64((group*uint64(s.agBlocks) + in) << s.blockLog), nil
}

// readBlocks fills b, whole blocks of one group, from a block on.
func (f *Reader) readBlocks(b []byte, block uint64) error {
	at, err := f.place(block, uint64(len(b))>>f.super.blockLog)
	if err != nil {
		return err
	}
	if _, err := fsys.ReadAt(f.r, b, at); err != nil {
		return fmt.Errorf("read xfs block %d: %w", block, err)
	}
	return nil
}

// header is where a kind of block in version 5 says what it is.
type header struct{ crc, place, uuid, owner int }

var (
	shortTreeHeader = header{crc: 52, place: 16, uuid: 32, owner: 48} // xfs_btree_block_shdr; the owner has 32 bits
	longTreeHeader  = header{crc: 64, place: 24, uuid: 40, owner: 56} // xfs_btree_block_lhdr
	folderHeader    = header{crc: 4, place: 8, uuid: 24, owner: 40}   // xfs_dir3_blk_hdr
	attrHeader      = header{crc: 12, place: 16, uuid: 32, owner: 48} // xfs_da3_blkinfo
	valueHeader     = header{crc: 12, place: 40, uuid: 16, owner: 32} // xfs_attr3_rmt_hdr, xfs_dsymlink_hdr
)

// verify checks the header of a block that was read from a place and belongs to an inode.
func (f *Reader) verify(b []byte, h header, block, owner uint64) error {
	where := fmt.Sprintf("inode %d, block %d", owner, block)
	at, err := f.place(block, 1)
	if err != nil {
		return err
	}
	switch {
	case !checksumRight(b, h.crc):
		return broken(where, "wrong checksum")
	case be.Uint64(b[h.place:]) != uint64(at)/512:
		return broken(where, "says that it lies at sector %d", be.Uint64(b[h.place:]))
	case [16]byte(b[h.uuid:]) != f.super.metaUUID:
		return broken(where, "belongs to another file system")
	case be.Uint64(b[h.owner:]) != owner:
		return broken(where, "says that it belongs to inode %d", be.Uint64(b[h.owner:]))
	}
	return nil
}
