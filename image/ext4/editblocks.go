package ext4

import (
	"cmp"
	"fmt"
	"slices"
)

// NoSpaceError says that the file system has no room for a change.
type NoSpaceError struct {
	Needed, Free int64 // bytes, whole blocks; Needed is for the part that did not fit, without what leads to it
	Inodes       bool  // it has no inode left
}

func (e *NoSpaceError) Error() string {
	if e.Inodes {
		return "the file system has no inode left for another file: free some, or make it with more"
	}
	return fmt.Sprintf("the file system has %d bytes free, %d are needed: grow it first, or free some", e.Free, e.Needed)
}

func (e *Editor) noSpace(blocks uint64) error {
	size := int64(e.blockSize)
	return &NoSpaceError{Needed: int64(blocks) * size, Free: int64(e.super.freeBlocks()) * size}
}

// findFixed notes all metadata that has its place from the beginning.
func (e *Editor) findFixed() {
	for group := range e.groups {
		used, _ := e.base(group)
		own := e.ownMetadata(group)
		for _, s := range []span{{e.groupStart(group), uint64(used)}, own[0], own[1], own[2]} {
			if s.count > 0 {
				e.fixed = append(e.fixed, s)
			}
		}
	}
	slices.SortFunc(e.fixed, func(a, b span) int { return cmp.Compare(a.start, b.start) })
}

// apart checks that blocks are no fixed metadata.
func (e *Editor) apart(s span) error {
	i, _ := slices.BinarySearchFunc(e.fixed, s.start, func(f span, start uint64) int {
		if f.start+f.count <= start {
			return -1
		}
		return 1
	})
	if i < len(e.fixed) && e.fixed[i].start < s.start+s.count {
		return broken(fmt.Sprintf("block %d", s.start), "the file system's own metadata and %d blocks of a file overlap", s.count)
	}
	return nil
}

// countedBitmap is a group's bitmap, which must agree with the counter.
func (e *Editor) countedBitmap(group uint32) ([]byte, error) {
	bitmap, err := e.blockBitmap(group)
	if err != nil {
		return nil, err
	}
	if free := clearBits(bitmap); free != e.descs[group].FreeBlocks {
		return nil, broken(fmt.Sprintf("group %d", group), "%d blocks free, %d counted", e.descs[group].FreeBlocks, free)
	}
	return bitmap, nil
}

// putBlockBitmap writes a group's bitmap, and counts.
func (e *Editor) putBlockBitmap(group uint32, bitmap []byte) error {
	d := e.group(group)
	free := clearBits(bitmap)
	total := e.super.freeBlocks() + uint64(free) - uint64(d.FreeBlocks)
	if total > e.blocks { // below 0, too
		return broken("superblock", "%d blocks free: fewer than groups have", e.super.freeBlocks())
	}
	e.super.FreeBlocksLo = uint32(total)
	if e.super.FeatureIncompat&incompat64Bit != 0 {
		e.super.FreeBlocksHi = uint32(total >> 32)
	}
	d.FreeBlocks = free
	d.Flags &^= groupBlockUninit
	if e.checksums {
		d.BlockBitmapCsum = e.bitmapSum(bitmap[:e.groupBlocks/8])
	}
	return e.over.write(d.BlockBitmap, bitmap)
}

// runLeast is how many adjoining free blocks are worth while, as long as there are such.
const runLeast = 256

// takeBlocks gives out free blocks, the first of them in or behind a group.
func (e *Editor) takeBlocks(want uint64, near uint32) ([]span, error) {
	if want > e.super.freeBlocks() {
		return nil, e.noSpace(want)
	}
	var got []span
	left := want
	for _, least := range []uint32{uint32(min(want, runLeast)), 1} {
		for i := uint32(0); i < e.groups && left > 0; i++ {
			group := (near + i) % e.groups
			if e.descs[group].FreeBlocks < least {
				continue
			}
			runs, err := e.takeFrom(group, min(uint64(least), left), left)
			if err != nil {
				return nil, err
			}
			for _, run := range runs {
				left -= run.count
			}
			got = append(got, runs...)
		}
		if left == 0 {
			return got, nil
		}
	}
	return nil, e.noSpace(want)
}

// takeFrom gives out a group's free runs of at least so many blocks.
func (e *Editor) takeFrom(group uint32, least, left uint64) (got []span, err error) {
	bitmap, err := e.countedBitmap(group)
	if err != nil {
		return nil, err
	}
	length := e.groupLen(group)
	for at := uint32(0); at < length && left > 0; {
		if at%8 == 0 && bitmap[at/8] == 0xff {
			at += 8
			continue
		}
		end := at
		for end < length && uint64(end-at) < left && bitmap[end/8]>>(end%8)&1 == 0 {
			end++
		}
		if end == at {
			at++
			continue
		}
		if uint64(end-at) >= least || uint64(end-at) == left {
			s := span{e.groupStart(group) + uint64(at), uint64(end - at)}
			if err := e.apart(s); err != nil {
				return nil, err
			}
			setBits(bitmap, at, end)
			got, left = append(got, s), left-s.count
		}
		at = end
	}
	if got == nil {
		return nil, nil
	}
	return got, e.putBlockBitmap(group, bitmap)
}

// takeBlock gives out one block.
func (e *Editor) takeBlock(near uint32) (uint64, error) {
	got, err := e.takeBlocks(1, near)
	if err != nil {
		return 0, err
	}
	return got[0].start, nil
}

// freeBlocks gives blocks back.
func (e *Editor) freeBlocks(s span) error {
	if err := e.within(s); err != nil {
		return broken(fmt.Sprintf("block %d", s.start), "%v", err)
	}
	if err := e.apart(s); err != nil {
		return err
	}
	for s.count > 0 {
		group, at := e.groupOf(s.start)
		n := uint32(min(s.count, uint64(e.groupLen(group)-at)))
		bitmap, err := e.countedBitmap(group)
		if err != nil {
			return err
		}
		for i := at; i < at+n; i++ {
			if bitmap[i/8]>>(i%8)&1 == 0 {
				return broken(fmt.Sprintf("block %d", e.groupStart(group)+uint64(i)), "in use and marked free")
			}
			bitmap[i/8] &^= 1 << (i % 8)
		}
		if err := e.putBlockBitmap(group, bitmap); err != nil {
			return err
		}
		s.start, s.count = s.start+uint64(n), s.count-uint64(n)
	}
	return nil
}

// takeInode gives out an inode's number, in or behind a group.
func (e *Editor) takeInode(near uint32, folder bool) (uint32, error) {
	for i := range e.groups {
		group := (near + i) % e.groups
		if e.descs[group].FreeInodes == 0 {
			continue
		}
		bitmap, err := e.inodeBitmap(group)
		if err != nil {
			return 0, err
		}
		where := fmt.Sprintf("group %d", group)
		at := uint32(0)
		for at < e.inodesPerGroup && bitmap[at/8]>>(at%8)&1 != 0 {
			at++
		}
		number := group*e.inodesPerGroup + at + 1
		if at == e.inodesPerGroup || at > e.usedInodes(group) || number < e.firstInode() {
			return 0, broken(where, "%d inodes free, %d used, and the first free one is %d", e.descs[group].FreeInodes, e.usedInodes(group), at)
		}
		setBits(bitmap, at, at+1)
		if e.uninit() {
			if err := e.startGroup(group, at); err != nil {
				return 0, err
			}
		}
		if e.super.FreeInodes == 0 {
			return 0, broken("superblock", "no inodes free, and group %d has some", group)
		}
		e.super.FreeInodes--
		e.group(group).FreeInodes--
		if folder {
			e.group(group).UsedDirs++
		}
		return number, e.putInodeBitmap(group, bitmap)
	}
	return 0, &NoSpaceError{Inodes: true}
}

// startGroup makes an inode of a group one that counts. The blocks' bitmap comes to be with the inodes', as the
// kernel does it (ext4_new_inode).
func (e *Editor) startGroup(group, at uint32) error {
	d := e.group(group)
	if d.Flags&groupBlockUninit != 0 {
		bitmap, err := e.countedBitmap(group)
		if err != nil {
			return err
		}
		if err := e.putBlockBitmap(group, bitmap); err != nil {
			return err
		}
	}
	if at < e.usedInodes(group) {
		return nil
	}
	d.Flags &^= groupInodeUninit
	d.ItableUnused = e.inodesPerGroup - at - 1
	if perBlock := uint32(e.blockSize / e.inodeSize); at%perBlock == 0 {
		return e.over.write(d.InodeTable+uint64(at/perBlock), make([]byte, e.blockSize))
	}
	return nil
}

func (e *Editor) putInodeBitmap(group uint32, bitmap []byte) error {
	d := e.group(group)
	if e.checksums {
		d.InodeBitmapCsum = e.bitmapSum(bitmap[:e.inodesPerGroup/8])
	}
	return e.over.write(d.InodeBitmap, bitmap)
}

// freeInode gives a number back.
func (e *Editor) freeInode(number uint32, folder bool) error {
	group, at := (number-1)/e.inodesPerGroup, (number-1)%e.inodesPerGroup
	bitmap, err := e.inodeBitmap(group)
	if err != nil {
		return err
	}
	d := e.group(group)
	where := fmt.Sprintf("inode %d", number)
	if number < e.firstInode() || bitmap[at/8]>>(at%8)&1 == 0 || d.FreeInodes >= e.inodesPerGroup || folder && d.UsedDirs == 0 {
		return broken(where, "to be deleted, and reserved, marked free or not counted")
	}
	bitmap[at/8] &^= 1 << (at % 8)
	d.FreeInodes++
	e.super.FreeInodes++
	if folder {
		d.UsedDirs--
	}
	return e.putInodeBitmap(group, bitmap)
}
