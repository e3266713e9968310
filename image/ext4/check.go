package ext4

import (
	"context"
	"fmt"

	"github.com/sealboot/sealboot/internal/progress"
)

// Summary is what Check counted.
type Summary struct {
	Facts
	Files, Folders, Symlinks, Others uint64
	UsedBlocks                       uint64
}

// Check goes through all metadata: checksums, the trees of every inode, attributes, folders and
// their hash trees, links, bitmaps and counters. The first thing that is wrong ends it, with a
// *FormatError; a file system that was not unmounted cleanly is refused with ErrUnclean. The
// memory it takes grows with what is in use, about a bit for each block and 8 bytes for each inode.
func (f *Reader) Check(ctx context.Context, report progress.Func) (*Summary, error) {
	if err := f.clean(); err != nil {
		return nil, err
	}
	if report == nil {
		report = func(int64, int64) {}
	}
	c := &checker{
		f: f, ctx: ctx, claims: newClaims(f), inodes: make([][]inodeState, f.groups),
		parents: map[uint32]uint32{}, shared: map[uint64]*sharedXattrs{}, report: report,
		summary: Summary{Facts: f.Facts()},
	}
	for _, pass := range []func() error{c.fixed, c.tables, c.tree, c.links, c.bitmaps} {
		if err := pass(); err != nil {
			return nil, err
		}
	}
	return &c.summary, nil
}

// inodeState is what is known of an inode in use; kind 0 is one that is not, or reserved.
type inodeState struct {
	found uint32 // names that lead to it
	links uint16 // names that it says it has
	kind  uint8
}

type checker struct {
	f       *Reader
	ctx     context.Context
	report  progress.Func
	claims  *claims
	inodes  [][]inodeState // by group; nil where none is used
	folders []uint32
	parents map[uint32]uint32 // of folders: the one that names it
	shared  map[uint64]*sharedXattrs
	journal bool // its inode came
	summary Summary
}

func (c *checker) state(number uint32) *inodeState {
	if number == 0 || number > c.f.super.InodesCount {
		return nil
	}
	group, i := (number-1)/c.f.inodesPerGroup, (number-1)%c.f.inodesPerGroup
	if c.inodes[group] == nil {
		return nil
	}
	return &c.inodes[group][i]
}

// fixed claims what stands where the layout says.
func (c *checker) fixed() error {
	f := c.f
	for group := range f.groups {
		used, _ := f.base(group)
		base := span{f.groupStart(group), uint64(used)}
		own := f.ownMetadata(group)
		for _, s := range []span{base, own[0], own[1], own[2]} {
			if s.count == 0 {
				continue
			}
			if err := c.claims.add(s); err != nil {
				return broken(fmt.Sprintf("group %d", group), "metadata: %v", err)
			}
		}
	}
	return nil
}

// tables goes through inode bitmaps and tables.
func (c *checker) tables() error {
	f := c.f
	free := uint64(0)
	for group := range f.groups {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.table(group); err != nil {
			return err
		}
		free += uint64(f.descs[group].FreeInodes)
		done := int64(f.groupStart(group)) * int64(f.blockSize)
		c.report(done, int64(f.blocks)*int64(f.blockSize))
	}
	if free != uint64(f.super.FreeInodes) {
		return broken("superblock", "%d inodes free, groups say %d", f.super.FreeInodes, free)
	}
	if f.super.FeatureCompat&compatJournal != 0 && !c.journal {
		return broken("superblock", "its journal, inode %d, is not in use", f.super.JournalInum)
	}
	return nil
}

func (c *checker) table(group uint32) error {
	f, d := c.f, &c.f.descs[group]
	where := fmt.Sprintf("group %d", group)
	if d.Flags&groupInodeUninit != 0 {
		if d.FreeInodes != f.inodesPerGroup || d.UsedDirs != 0 {
			return broken(where, "inodes in use, flagged as never used")
		}
		return nil
	}
	bitmap, err := f.inodeBitmap(group)
	if err != nil {
		return err
	}
	used, folders := uint32(0), len(c.folders)
	perBlock := uint32(f.blockSize / f.inodeSize)
	block := make([]byte, f.blockSize)
	c.inodes[group] = make([]inodeState, f.inodesPerGroup)
	limit := f.usedInodes(group)
	for i := range f.inodesPerGroup {
		marked := bitmap[i/8]>>(i%8)&1 != 0
		if i >= limit {
			if marked {
				return broken(where, "inode %d marked as used, counted as never used", group*f.inodesPerGroup+i+1)
			}
			continue
		}
		if i%perBlock == 0 {
			if err := f.readBlocks(block, d.InodeTable+uint64(i/perBlock)); err != nil {
				return err
			}
		}
		raw := block[int(i%perBlock)*f.inodeSize:][:f.inodeSize]
		number := group*f.inodesPerGroup + i + 1
		if !marked {
			if le.Uint16(raw[0x1a:]) != 0 {
				return broken(fmt.Sprintf("inode %d", number), "has links and is marked free")
			}
			continue
		}
		used++
		if err := c.inode(number, raw); err != nil {
			return err
		}
	}
	if free := f.inodesPerGroup - used; free != d.FreeInodes {
		return broken(where, "%d inodes free, %d counted", d.FreeInodes, free)
	}
	if n := uint32(len(c.folders) - folders); n != d.UsedDirs {
		return broken(where, "%d folders, %d counted", d.UsedDirs, n)
	}
	return nil
}

// inodeBitmap gives the bitmap of a group's inodes, checked: what is behind them is marked.
func (f *Reader) inodeBitmap(group uint32) ([]byte, error) {
	d := &f.descs[group]
	where := fmt.Sprintf("group %d", group)
	bitmap := make([]byte, f.blockSize)
	if d.Flags&groupInodeUninit != 0 {
		setBits(bitmap, f.inodesPerGroup, uint32(8*f.blockSize))
		return bitmap, nil
	}
	if err := f.readBlocks(bitmap, d.InodeBitmap); err != nil {
		return nil, err
	}
	if err := f.bitmapChecksum(bitmap[:f.inodesPerGroup/8], d.InodeBitmapCsum); err != nil {
		return nil, broken(where, "inode bitmap: %v", err)
	}
	for i := f.inodesPerGroup / 8; i < uint32(f.blockSize); i++ {
		if bitmap[i] != 0xff {
			return nil, broken(where, "inode bitmap: padding not marked")
		}
	}
	return bitmap, nil
}

// bitmapChecksum compares a bitmap with its checksum, of which small descriptors hold half.
func (f *Reader) bitmapChecksum(bitmap []byte, got uint32) error {
	if !f.checksums {
		return nil
	}
	if want := f.bitmapSum(bitmap); got != want {
		return fmt.Errorf("checksum %#x, not %#x", got, want)
	}
	return nil
}

func (f *Reader) bitmapSum(bitmap []byte) uint32 {
	sum := crc32c(f.seed, bitmap)
	if f.descSize < 64 {
		sum &= 0xffff
	}
	return sum
}

// bitmaps compares block bitmaps with the claims.
func (c *checker) bitmaps() error {
	f := c.f
	total := uint64(0)
	for group := range f.groups {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		d := &f.descs[group]
		where := fmt.Sprintf("group %d", group)
		bitmap, err := f.blockBitmap(group)
		if err != nil {
			return err
		}
		if err := c.claims.compare(group, bitmap); err != nil {
			return broken(where, "%v", err)
		}
		free := clearBits(bitmap) // behind the group's end all is marked
		if free != d.FreeBlocks {
			return broken(where, "%d blocks free, %d counted", d.FreeBlocks, free)
		}
		total += uint64(free)
	}
	if said := f.super.freeBlocks(); said != total {
		return broken("superblock", "%d blocks free, %d counted", said, total)
	}
	c.summary.UsedBlocks = f.blocks - total
	c.report(int64(f.blocks)*int64(f.blockSize), int64(f.blocks)*int64(f.blockSize))
	return nil
}

// blockBitmap gives a group's bitmap, checked: what is behind the group's blocks is marked.
// One that is not written follows from the layout.
func (f *Reader) blockBitmap(group uint32) ([]byte, error) {
	d := &f.descs[group]
	where := fmt.Sprintf("group %d", group)
	bitmap := make([]byte, f.blockSize)
	if d.Flags&groupBlockUninit != 0 {
		used, _ := f.base(group)
		setBits(bitmap, 0, used)
		for _, s := range f.ownMetadata(group) {
			start := max(s.start, f.groupStart(group))
			end := min(s.start+s.count, f.groupStart(group)+uint64(f.groupLen(group)))
			if start < end {
				setBits(bitmap, uint32(start-f.groupStart(group)), uint32(end-f.groupStart(group)))
			}
		}
		setBits(bitmap, f.groupLen(group), uint32(8*f.blockSize))
		return bitmap, nil
	}
	if err := f.readBlocks(bitmap, d.BlockBitmap); err != nil {
		return nil, err
	}
	if err := f.bitmapChecksum(bitmap[:f.groupBlocks/8], d.BlockBitmapCsum); err != nil {
		return nil, broken(where, "block bitmap: %v", err)
	}
	for i := f.groupLen(group); i < uint32(8*f.blockSize); i++ {
		if i%8 == 0 && bitmap[i/8] == 0xff {
			i += 7
			continue
		}
		if bitmap[i/8]>>(i%8)&1 == 0 {
			return nil, broken(where, "block bitmap: padding not marked")
		}
	}
	return bitmap, nil
}
