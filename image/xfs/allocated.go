package xfs

import (
	"fmt"

	"github.com/sealboot/sealboot/image/fsys"
)

// Magic numbers and depth of the free-space trees (xfs_format.h).
const (
	groupMagic   = "XAGF"
	freeMagicV4  = "ABTB" // XFS_ABTB_MAGIC
	freeMagicV5  = "AB3B" // XFS_ABTB_CRC_MAGIC
	freeDepth    = 9      // XFS_BTREE_MAXLEVELS
	shortHeadV4  = 16     // bytes before the records
	shortHeadV5  = 56
	freeRecord   = 8 // xfs_alloc_rec: first block, number of blocks
	shortPointer = 4
)

// Allocated calls use for the ranges of bytes whose content counts, in ascending order and
// without overlap: all that the free-space trees of the groups, which are checked, do not give as free. The log
// is part of it, since a mount reads all of it to find its end. A file system with a log to replay is refused with fsys.ErrUnclean.
func (f *Reader) Allocated(use func(offset, length int64) error) error {
	if err := f.Clean(); err != nil {
		return err
	}
	ranges := fsys.Ranges{Use: use}
	for group := range f.super.agCount {
		g := freeWalk{f: f, group: group, ranges: &ranges}
		if err := g.run(); err != nil {
			return err
		}
	}
	return ranges.End()
}

// freeWalk goes through the free-space tree of a group.
type freeWalk struct {
	f      *Reader
	group  uint32
	ranges *fsys.Ranges
	next   uint64 // first block of the group that no record has spoken of
	free   uint64
}

func (g *freeWalk) run() error {
	f, s := g.f, g.f.super
	where := fmt.Sprintf("group %d", g.group)
	b := make([]byte, s.sectorSize)
	if _, err := fsys.ReadAt(f.r, b, g.byte(0)+int64(s.sectorSize)); err != nil {
		return fmt.Errorf("read xfs %s: %w", where, err)
	}
	length, root, depth, free := be.Uint32(b[12:]), be.Uint32(b[16:]), be.Uint32(b[28:]), be.Uint32(b[52:])
	switch {
	case string(b[:4]) != groupMagic || be.Uint32(b[4:]) != 1 || be.Uint32(b[8:]) != g.group:
		return broken(where, "no header of the group's free space")
	case s.v5() && (!checksumRight(b, 216) || [16]byte(b[64:]) != s.metaUUID):
		return broken(where, "wrong checksum, or of another file system")
	case uint64(length) != f.groupLen(g.group):
		return broken(where, "%d blocks, not %d", length, f.groupLen(g.group))
	case depth == 0 || depth > freeDepth:
		return broken(where, "a free-space tree of %d levels", depth)
	}
	if err := g.visit(root, int(depth)-1, nil); err != nil {
		return err
	}
	if g.free != uint64(free) {
		return broken(where, "%d free blocks, its tree has %d", free, g.free)
	}
	return g.ranges.Add(g.byte(g.next), int64(uint64(length)-g.next)<<s.blockLog)
}

// byte gives where a block of the group lies.
func (g *freeWalk) byte(block uint64) int64 {
	return int64((uint64(g.group)*uint64(g.f.super.agBlocks) + block) << g.f.super.blockLog)
}

// visit takes a block of the tree. Its first key must be the one that the level above has. Since records ascend
// and every block has some, no block is visited twice.
func (g *freeWalk) visit(block uint32, level int, key *uint32) error {
	f, s := g.f, g.f.super
	where := fmt.Sprintf("group %d, block %d", g.group, block)
	b := make([]byte, s.blockSize)
	number := uint64(g.group)<<s.agLog | uint64(block)
	if uint64(block) >= f.groupLen(g.group) {
		return broken(where, "lies outside the group")
	}
	if err := f.readBlocks(b, number); err != nil {
		return err
	}
	magic, head := freeMagicV4, shortHeadV4
	if s.v5() {
		magic, head = freeMagicV5, shortHeadV5
		h := shortTreeHeader
		if !checksumRight(b, h.crc) || be.Uint64(b[h.place:])*512 != uint64(g.byte(uint64(block))) ||
			[16]byte(b[h.uuid:]) != s.metaUUID || be.Uint32(b[h.owner:]) != g.group {
			return broken(where, "wrong checksum, or a block of another place")
		}
	}
	count, width := int(be.Uint16(b[6:])), freeRecord
	if level > 0 {
		width += shortPointer
	}
	most := (len(b) - head) / width
	if string(b[:4]) != magic || int(be.Uint16(b[4:])) != level || count > most || count == 0 && key != nil || count == 0 && level > 0 {
		return broken(where, "no block of the free-space tree at level %d", level)
	}
	for i := range count {
		record := b[head+i*freeRecord:]
		start, length := be.Uint32(record), be.Uint32(record[4:])
		if i == 0 && key != nil && start != *key {
			return broken(where, "begins with block %d, not %d", start, *key)
		}
		if level > 0 {
			if uint64(start) < g.next {
				return broken(where, "keys that do not ascend")
			}
			child := be.Uint32(b[head+most*freeRecord+i*shortPointer:])
			if err := g.visit(child, level-1, &start); err != nil {
				return err
			}
			continue
		}
		if length == 0 || uint64(start) < g.next || uint64(start)+uint64(length) > f.groupLen(g.group) {
			return broken(where, "%d free blocks at %d", length, start)
		}
		if err := g.ranges.Add(g.byte(g.next), g.byte(uint64(start))-g.byte(g.next)); err != nil {
			return err
		}
		g.next = uint64(start) + uint64(length)
		g.free += uint64(length)
	}
	return nil
}
