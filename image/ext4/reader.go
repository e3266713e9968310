package ext4

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sealboot/sealboot/image/fsys"
)

// Reader reads a file system. Its methods may be called from several goroutines.
type Reader struct {
	r              io.ReaderAt
	super          *superblock
	blockSize      int
	blocks         uint64
	groups         uint32
	groupBlocks    uint32
	inodesPerGroup uint32
	inodeSize      int
	descSize       int
	tableBlocks    uint32 // of one group's inode table
	descBlocks     uint32
	reserved       uint32 // blocks kept behind the descriptors
	checksums      bool   // metadata_csum
	seed           uint32
	descs          []groupDesc
	mode           strictness
}

// Open reads superblock and group descriptors, and refuses what breaks the format's rules
// (*FormatError) or has features that this package does not know (*UnsupportedError). size is
// the number of bytes that r has.
func Open(r io.ReaderAt, size int64) (*Reader, error) { return openAs(r, size, strict) }

// strictness is what openAs lets pass.
type strictness int

const (
	strict    strictness = iota
	removable            // features that an Editor may be able to turn off
	lenient              // and descriptors that do not meet their checksums, before the journal is replayed
)

func openAs(r io.ReaderAt, size int64, mode strictness) (*Reader, error) {
	raw := make([]byte, superSize)
	if size < superOffset+superSize {
		return nil, fmt.Errorf("%w: only %d bytes", ErrNotExt4, size)
	}
	if _, err := fsys.ReadAt(r, raw, superOffset); err != nil {
		return nil, fmt.Errorf("read ext4 superblock: %w", err)
	}
	s, err := decodeSuperblock(raw)
	if err != nil {
		return nil, err
	}
	if s.Magic != superMagic {
		return nil, fmt.Errorf("%w: magic number %#x", ErrNotExt4, s.Magic)
	}
	known := *s
	if mode != strict {
		known.FeatureIncompat &^= removableIncompat
		known.FeatureROCompat &^= removableRO
	}
	if unknown := known.unknown(); len(unknown) > 0 {
		return nil, &UnsupportedError{unknown}
	}
	if s.FeatureCompat&compatJournal != 0 && s.JournalInum == 0 {
		return nil, fmt.Errorf("%w: a journal on another device", ErrUnsupported)
	}
	f := &Reader{r: r, super: s, mode: mode, checksums: s.FeatureROCompat&roMetadataCsum != 0}
	if f.checksums {
		if want := superChecksum(raw); s.Checksum != want && mode != lenient {
			return nil, broken("superblock", "checksum %#x, not %#x", s.Checksum, want)
		}
		f.seed = fsSeed(s.UUID)
		if s.FeatureIncompat&incompatCsumSeed != 0 {
			f.seed = s.ChecksumSeed
		}
	}
	if err := f.measure(size); err != nil {
		return nil, err
	}
	if err := f.readDescriptors(); err != nil {
		return nil, err
	}
	return f, nil
}

// measure takes sizes from the superblock and checks that they agree.
func (f *Reader) measure(size int64) error {
	s := f.super
	problem := func(format string, args ...any) error { return broken("superblock", format, args...) }
	if s.RevLevel > 1 || s.LogBlockSize > 6 || s.LogClusterSize != s.LogBlockSize {
		return problem("revision %d, block size 2^(10+%d), cluster size 2^(10+%d)", s.RevLevel, s.LogBlockSize, s.LogClusterSize)
	}
	f.blockSize = 1024 << s.LogBlockSize
	f.blocks = s.blocks()
	if f.blocks == 0 || f.blocks > uint64(size)/uint64(f.blockSize) {
		return problem("%d blocks of %d bytes, in %d bytes", f.blocks, f.blockSize, size)
	}
	if first := f.firstBlock(); uint64(s.FirstDataBlock) != first || f.blocks <= first {
		return problem("first block %d, %d blocks", s.FirstDataBlock, f.blocks)
	}
	f.groupBlocks, f.inodesPerGroup = s.BlocksPerGroup, s.InodesPerGroup
	const leastGroup = 256 // mke2fs -g
	if f.groupBlocks < leastGroup || f.groupBlocks%8 != 0 || f.groupBlocks > uint32(8*f.blockSize) || s.ClustersPerGroup != f.groupBlocks {
		return problem("%d blocks in a group", f.groupBlocks)
	}
	f.inodeSize = inodeBase
	if s.RevLevel > 0 {
		f.inodeSize = int(s.InodeSize)
		if s.FirstIno < firstInode || s.FirstIno > s.InodesCount {
			return problem("first inode %d", s.FirstIno)
		}
	}
	if f.inodeSize < inodeBase || f.inodeSize > f.blockSize || f.inodeSize&(f.inodeSize-1) != 0 {
		return problem("inodes of %d bytes", f.inodeSize)
	}
	if f.inodesPerGroup == 0 || f.inodesPerGroup%8 != 0 || f.inodesPerGroup > uint32(8*f.blockSize) {
		return problem("%d inodes in a group", f.inodesPerGroup)
	}
	groups := (f.blocks - f.firstBlock() + uint64(f.groupBlocks) - 1) / uint64(f.groupBlocks)
	if groups*uint64(f.inodesPerGroup) != uint64(s.InodesCount) {
		return problem("%d inodes, in %d groups of %d", s.InodesCount, groups, f.inodesPerGroup)
	}
	f.groups = uint32(groups)
	f.tableBlocks = uint32((int(f.inodesPerGroup)*f.inodeSize + f.blockSize - 1) / f.blockSize)
	f.descSize = 32
	if s.FeatureIncompat&incompat64Bit != 0 {
		if f.descSize = int(s.DescSize); f.descSize != 64 {
			return problem("group descriptors of %d bytes", f.descSize)
		}
	}
	perBlock := uint32(f.blockSize / f.descSize)
	f.descBlocks = (f.groups + perBlock - 1) / perBlock
	f.reserved = uint32(s.ReservedGDT)
	if f.reserved > uint32(f.blockSize/4) {
		return problem("%d blocks reserved for descriptors", f.reserved)
	}
	if f.metaBG() && s.FirstMetaBG > f.descBlocks {
		return problem("first meta block group %d of %d", s.FirstMetaBG, f.descBlocks)
	}
	if f.checksums && s.ChecksumType != 1 {
		return problem("checksums of type %d", s.ChecksumType)
	}
	if f.checksums && s.FeatureROCompat&roGDTCsum != 0 {
		return problem("both kinds of checksums, metadata_csum and uninit_bg")
	}
	return nil
}

// firstBlock is the first that belongs to a group: small blocks leave the boot sector's out.
func (f *Reader) firstBlock() uint64 {
	if f.blockSize == 1024 {
		return 1
	}
	return 0
}

func (f *Reader) firstInode() uint32 {
	if f.super.RevLevel == 0 {
		return firstInode
	}
	return f.super.FirstIno
}

// clean refuses a file system with work left in its journal or its list of orphans.
func (f *Reader) clean() error {
	s := f.super
	switch {
	case s.FeatureIncompat&incompatRecover != 0:
		return fmt.Errorf("%w: its journal is to be replayed", ErrUnclean)
	case s.State&stateClean == 0 || s.State&stateError != 0:
		return fmt.Errorf("%w: state %#x", ErrUnclean, s.State)
	case s.LastOrphan != 0 || s.FeatureROCompat&roOrphanPresent != 0:
		return fmt.Errorf("%w: files deleted while open", ErrUnclean)
	}
	return nil
}

// readBlocks fills b, whole blocks, from a block on.
func (f *Reader) readBlocks(b []byte, block uint64) error {
	if count := uint64(len(b) / f.blockSize); block > f.blocks || count > f.blocks-block {
		return broken(fmt.Sprintf("block %d", block), "outside the file system")
	}
	if _, err := fsys.ReadAt(f.r, b, int64(block)*int64(f.blockSize)); err != nil {
		return fmt.Errorf("read ext4 block %d: %w", block, err)
	}
	return nil
}

// Facts are what the superblock says.
type Facts struct {
	UUID       [16]byte
	Label      string
	BlockSize  int
	Blocks     uint64
	FreeBlocks uint64
	Inodes     uint32
	FreeInodes uint32
	Made       time.Time
	Features   []string // as dumpe2fs names them
}

// Facts gives what the superblock says.
func (f *Reader) Facts() Facts {
	s := f.super
	label, _, _ := strings.Cut(string(s.VolumeName[:]), "\x00")
	made := int64(s.TimesHi[2])<<32 | int64(s.MkfsTime)
	return Facts{
		UUID: s.UUID, Label: label, BlockSize: f.blockSize, Blocks: f.blocks, FreeBlocks: s.freeBlocks(),
		Inodes: s.InodesCount, FreeInodes: s.FreeInodes, Made: time.Unix(made, 0).UTC(), Features: s.features(),
	}
}

// UnreadableByGRUB names the features that keep GRUB 2.12 from reading the file system.
func (f *Reader) UnreadableByGRUB() []string {
	return names(f.super.FeatureIncompat&^grubIncompat, incompatNames)
}
