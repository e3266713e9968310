package ext4

import (
	"fmt"
)

func (f *Reader) metaBG() bool { return f.super.FeatureIncompat&incompatMetaBG != 0 }

// uninit says whether groups may be flagged as not written.
func (f *Reader) uninit() bool { return f.super.FeatureROCompat&(roMetadataCsum|roGDTCsum) != 0 }

func (f *Reader) groupStart(group uint32) uint64 {
	return f.firstBlock() + uint64(group)*uint64(f.groupBlocks)
}

func (f *Reader) groupLen(group uint32) uint32 {
	return uint32(min(f.blocks-f.groupStart(group), uint64(f.groupBlocks)))
}

// groupOf gives a block's group and place in it. The block must be within the groups.
func (f *Reader) groupOf(block uint64) (group, at uint32) {
	block -= f.firstBlock()
	return uint32(block / uint64(f.groupBlocks)), uint32(block % uint64(f.groupBlocks))
}

// hasBackup says whether a group begins with a superblock.
func (f *Reader) hasBackup(group uint32) bool {
	s := f.super
	switch {
	case group == 0:
		return true
	case s.FeatureCompat&compatSparseSuper2 != 0:
		return group == s.BackupBGs[0] || group == s.BackupBGs[1]
	case s.FeatureROCompat&roSparseSuper == 0:
		return true
	}
	return hasBackup(group)
}

// base is a group's superblock, descriptors and their reserve, at its beginning: used by all means,
// reserve blocks of it unread as yet.
func (f *Reader) base(group uint32) (used, reserve uint32) {
	perBlock := uint32(f.blockSize / f.descSize)
	backup := uint32(0)
	if f.hasBackup(group) {
		backup = 1
	}
	if !f.metaBG() {
		if backup == 0 {
			return 0, 0
		}
		return 1 + f.descBlocks + f.reserved, f.reserved
	}
	if group/perBlock < f.super.FirstMetaBG {
		return backup * (1 + f.super.FirstMetaBG), 0
	}
	if at := group % perBlock; at == 0 || at == 1 || at == perBlock-1 {
		return backup + 1, 0
	}
	return backup, 0
}

// descBlock is where the i-th block of descriptors stands.
func (f *Reader) descBlock(i uint32) uint64 {
	if !f.metaBG() || i < f.super.FirstMetaBG {
		return f.firstBlock() + 1 + uint64(i)
	}
	group := i * uint32(f.blockSize/f.descSize)
	if f.hasBackup(group) {
		return f.groupStart(group) + 1
	}
	return f.groupStart(group)
}

func (f *Reader) readDescriptors() error {
	perBlock := uint32(f.blockSize / f.descSize)
	block := make([]byte, f.blockSize)
	for i := range f.descBlocks {
		if err := f.readBlocks(block, f.descBlock(i)); err != nil {
			return err
		}
		for j := uint32(0); j < perBlock && i*perBlock+j < f.groups; j++ {
			if err := f.readDescriptor(i*perBlock+j, block[int(j)*f.descSize:][:f.descSize]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *Reader) readDescriptor(group uint32, raw []byte) error {
	where := fmt.Sprintf("group %d", group)
	d := decodeGroupDesc(raw)
	want := d.Checksum
	switch {
	case f.checksums:
		want = groupChecksum(f.seed, group, raw)
	case f.super.FeatureROCompat&roGDTCsum != 0:
		want = f.groupCRC16(group, raw)
	default:
		d.Flags, d.ItableUnused = 0, 0 // mean nothing without checksums
	}
	if d.Checksum != want && f.mode != lenient {
		return broken(where, "checksum %#x, not %#x", d.Checksum, want)
	}
	if d.FreeBlocks > f.groupLen(group) || d.FreeInodes > f.inodesPerGroup || d.ItableUnused > f.inodesPerGroup || d.UsedDirs > f.inodesPerGroup {
		return broken(where, "%d blocks free, %d inodes free, %d of them never used, %d folders", d.FreeBlocks, d.FreeInodes, d.ItableUnused, d.UsedDirs)
	}
	first, last := f.firstBlock(), f.blocks
	if f.super.FeatureIncompat&incompatFlexBG == 0 {
		first = f.groupStart(group)
		last = first + uint64(f.groupLen(group))
	}
	for _, s := range []span{{d.BlockBitmap, 1}, {d.InodeBitmap, 1}, {d.InodeTable, uint64(f.tableBlocks)}} {
		if s.start < first || s.start >= last || s.count > last-s.start {
			return broken(where, "metadata at block %d, outside %d to %d", s.start, first, last-1)
		}
	}
	f.descs = append(f.descs, d)
	return nil
}

// groupCRC16 is the checksum of uninit_bg: over UUID, group number and descriptor.
func (f *Reader) groupCRC16(group uint32, raw []byte) uint16 {
	crc := crc16(0xffff, f.super.UUID[:])
	crc = crc16(crc, le.AppendUint32(nil, group))
	crc = crc16(crc, raw[:groupDescCsum])
	return crc16(crc, raw[groupDescCsum+2:])
}

// crc16 is CRC-16/ARC (Linux, lib/crc16.c), a bit at a time: it is for a few bytes per group only.
func crc16(crc uint16, data []byte) uint16 {
	for _, b := range data {
		crc ^= uint16(b)
		for range 8 {
			crc = crc>>1 ^ 0xa001*(crc&1)
		}
	}
	return crc
}

// usedInodes is how many of a group's inodes have been used: those behind need not be written.
func (f *Reader) usedInodes(group uint32) uint32 {
	d := &f.descs[group]
	if d.Flags&groupInodeUninit != 0 {
		return 0
	}
	return f.inodesPerGroup - d.ItableUnused
}

// ownMetadata gives the fixed metadata of a group: wherever it stands.
func (f *Reader) ownMetadata(group uint32) [3]span {
	d := &f.descs[group]
	return [3]span{{d.BlockBitmap, 1}, {d.InodeBitmap, 1}, {d.InodeTable, uint64(f.tableBlocks)}}
}
