package ext4

import (
	"cmp"
	"slices"
)

// Close writes folders and all metadata. A tree that does not fit is refused with a *SizeError,
// and what was written is of no use. After the first error the others are the same one.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	err := w.close()
	if err == nil {
		w.err = errClosed
	} else {
		w.err = err
	}
	return err
}

func (w *Writer) close() error {
	if err := w.writeFolders(w.root); err != nil {
		return err
	}
	if w.alloc.full || uint64(len(w.inodes)) > uint64(w.geometry.inodes()) {
		return w.sizeError()
	}
	descs, err := w.writeGroups()
	if err != nil {
		return err
	}
	return w.writeSupers(descs)
}

// writeFolders goes through the tree in the order of names.
func (w *Writer) writeFolders(n *node) error {
	if err := w.writeFolder(n); err != nil {
		return err
	}
	var folders []*node
	for _, child := range n.children {
		if child.isFolder() {
			folders = append(folders, child)
		}
	}
	slices.SortFunc(folders, func(a, b *node) int { return cmp.Compare(a.inode.number, b.inode.number) })
	for _, child := range folders {
		if err := w.writeFolders(child); err != nil {
			return err
		}
	}
	return nil
}

// sizeError finds the least size, in whole MiB, that would have been enough.
func (w *Writer) sizeError() error {
	files := uint32(len(w.inodes) - len(w.freeNumbers))
	refused := &SizeError{Size: w.options.Size, Inodes: w.geometry.inodes(), Files: files}
	own := w.alloc.used - uint64(journalBlocks(w.geometry.blocks))
	const step = 1 << 20
	fits := func(size int64) bool {
		g, err := newGeometry(size, w.options.Inodes)
		return err == nil && g.free() >= own+uint64(journalBlocks(g.blocks)) &&
			(w.options.Inodes != 0 || g.inodes() >= files)
	}
	low, high := int64(0), max(w.options.Size/step, 1)
	for !fits(high * step) {
		low, high = high, high*2
		if high > 1<<25 { // 32 TiB: no size is enough
			return refused
		}
	}
	for low+1 < high {
		if middle := (low + high) / 2; fits(middle * step) {
			high = middle
		} else {
			low = middle
		}
	}
	refused.Needed = high * step
	return refused
}

// writeGroups writes inode tables and bitmaps as far as they are used, and gives the descriptors.
func (w *Writer) writeGroups() ([]groupDesc, error) {
	g := w.geometry
	descs := make([]groupDesc, g.groups)
	for group := range g.groups {
		d := &descs[group]
		d.BlockBitmap, d.InodeBitmap, d.InodeTable = g.place(group)
		if err := w.writeInodes(group, d); err != nil {
			return nil, err
		}
	}
	for group := range g.groups {
		if err := w.writeBlockBitmap(group, &descs[group]); err != nil {
			return nil, err
		}
	}
	return descs, nil
}

func (w *Writer) writeInodes(group uint32, d *groupDesc) error {
	g := w.geometry
	first := group * g.inodesPerGroup
	d.FreeInodes = g.inodesPerGroup
	var inodes []*inode
	if int(first) < len(w.inodes) {
		inodes = w.inodes[first:min(len(w.inodes), int(first+g.inodesPerGroup))]
	}
	for len(inodes) > 0 && inodes[len(inodes)-1] == nil {
		inodes = inodes[:len(inodes)-1]
	}
	d.ItableUnused = g.inodesPerGroup - uint32(len(inodes))
	if len(inodes) == 0 {
		d.Flags |= groupInodeUninit
		return nil
	}
	var used bitmap
	block := make([]byte, blockSize)
	for at := 0; at < len(inodes); at += inodesPerBlock {
		clear(block)
		for i, n := range inodes[at:min(len(inodes), at+inodesPerBlock)] {
			if n == nil {
				continue
			}
			n.encode(block[i*inodeSize:][:inodeSize], w.seed, w.born)
			used.set(uint32(at+i), uint32(at+i+1))
			d.FreeInodes--
			if n.mode&modeKind == modeFolder {
				d.UsedDirs++
			}
		}
		if err := w.out.write(d.InodeTable+uint64(at/inodesPerBlock), block); err != nil {
			return err
		}
	}
	if (len(inodes)+inodesPerBlock-1)/inodesPerBlock == int(g.tableBlocks) {
		d.Flags |= groupInodeZeroed
	}
	used.set(g.inodesPerGroup, groupBlocks)
	d.InodeBitmapCsum = crc32c(w.seed, used[:g.inodesPerGroup/8])
	return w.out.write(d.InodeBitmap, used[:])
}

func (w *Writer) writeBlockBitmap(group uint32, d *groupDesc) error {
	g := w.geometry
	used, touched := w.alloc.maps[group]
	length := g.groupLen(group)
	if !touched {
		d.FreeBlocks = length - g.head(group)
		// The last group's bitmap has padding, and a kernel can work out only a group's own
		// metadata, so these are always written.
		if group != g.groups-1 && !g.leads(group) {
			d.Flags |= groupBlockUninit
			return nil
		}
		used = new(bitmap)
	}
	used.set(0, g.head(group))
	used.set(length, groupBlocks)
	d.FreeBlocks = clearBits(used[:])
	d.BlockBitmapCsum = crc32c(w.seed, used[:])
	return w.out.write(d.BlockBitmap, used[:])
}

// writeSupers writes superblock and descriptors, the copies first.
func (w *Writer) writeSupers(descs []groupDesc) error {
	g := w.geometry
	table := make([]byte, g.descBlocks*blockSize)
	for i := range descs {
		raw := table[i*descSize:][:descSize]
		descs[i].encode(raw)
		le.PutUint16(raw[groupDescCsum:], groupChecksum(w.seed, uint32(i), raw))
	}
	s := w.superblock(descs)
	for group := g.groups; group > 0; {
		if group--; !hasBackup(group) {
			continue
		}
		s.BlockGroupNr = uint16(group)
		block := make([]byte, blockSize)
		if group == 0 {
			copy(block[superOffset:], s.encode())
		} else {
			copy(block, s.encode())
		}
		if err := w.out.write(g.groupStart(group)+1, table); err != nil {
			return err
		}
		if err := w.out.write(g.groupStart(group), block); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) superblock(descs []groupDesc) *superblock {
	g := w.geometry
	made := w.born.low()
	journal := w.inodes[journalInode-1]
	reserved := g.blocks / 20 // 5 % for root, as mke2fs
	s := &superblock{
		InodesCount: g.inodes(), BlocksCountLo: uint32(g.blocks), RBlocksCountLo: uint32(reserved),
		LogBlockSize: 2, LogClusterSize: 2, BlocksPerGroup: groupBlocks, ClustersPerGroup: groupBlocks,
		InodesPerGroup: g.inodesPerGroup, Wtime: made, MaxMntCount: 0xffff, Magic: superMagic, State: stateClean,
		Errors: 1 /* go on */, LastCheck: made, RevLevel: 1, FirstIno: firstInode, InodeSize: inodeSize,
		FeatureCompat:   compatJournal | compatExtAttr | compatDirIndex,
		FeatureIncompat: incompatFileType | incompatExtents | incompat64Bit | incompatFlexBG,
		FeatureROCompat: roSparseSuper | roLargeFile | roHugeFile | roDirNlink | roExtraIsize | roMetadataCsum,
		UUID:            w.options.UUID, JournalInum: journalInode, HashSeed: w.options.HashSeed,
		DefHashVersion: hashHalfMD4, JnlBackupType: 1, DescSize: descSize,
		DefaultMountOpts: 0xc /* user_xattr, acl: as mke2fs */, MkfsTime: made,
		MinExtraIsize: extraSize, WantExtraIsize: extraSize, Flags: flagUnsignedHash, ChecksumType: 1,
	}
	if g.reservedDescs > 0 {
		s.FeatureCompat |= compatResizeInode
		s.ReservedGDT = uint16(g.reservedDescs)
	}
	for 1<<s.LogGroupsPerFlex < g.flex {
		s.LogGroupsPerFlex++
	}
	copy(s.VolumeName[:], w.options.Label)
	high := uint8(w.born.seconds >> 32)
	s.TimesHi = [6]byte{high, 0, high, high} // written, mounted, made, checked
	for i := range 15 {
		s.JnlBlocks[i] = le.Uint32(journal.block[4*i:])
	}
	s.JnlBlocks[15], s.JnlBlocks[16] = uint32(journal.size>>32), uint32(journal.size)
	free := uint64(0)
	for i := range descs {
		free += uint64(descs[i].FreeBlocks)
		s.FreeInodes += descs[i].FreeInodes
	}
	s.FreeBlocksLo = uint32(free)
	return s
}
