package ext4

import (
	"cmp"
	"slices"
)

// Allocated calls use for the ranges of bytes whose content counts, in ascending order and
// without overlap. These are the blocks marked as in use but for those that nothing reads before
// it has written them: inode tables and bitmaps flagged as never used (unless flagged as zeroed
// too, which is a promise about their content), the descriptors' reserve in copies, and the
// journal behind its superblock, since there is nothing to replay. All else may read as anything.
// A file system that was not unmounted cleanly is refused with ErrUnclean.
func (f *Reader) Allocated(use func(offset, length int64) error) error {
	if err := f.clean(); err != nil {
		return err
	}
	idle, err := f.idle()
	if err != nil {
		return err
	}
	run := span{0, f.firstBlock()} // a boot sector in front of all groups
	size := uint64(f.blockSize)
	emit := func() error {
		if run.count == 0 {
			return nil
		}
		return use(int64(run.start*size), int64(run.count*size))
	}
	for group := range f.groups {
		bitmap, err := f.blockBitmap(group)
		if err != nil {
			return err
		}
		for i := uint32(0); i < f.groupLen(group); i++ {
			if i%8 == 0 && bitmap[i/8] == 0 {
				i += 7
				continue
			}
			block := f.groupStart(group) + uint64(i)
			for len(idle) > 0 && idle[0].start+idle[0].count <= block {
				idle = idle[1:]
			}
			if bitmap[i/8]>>(i%8)&1 == 0 || len(idle) > 0 && idle[0].start <= block {
				continue
			}
			if run.start+run.count == block {
				run.count++
				continue
			}
			if err := emit(); err != nil {
				return err
			}
			run = span{block, 1}
		}
	}
	return emit()
}

// idle gives blocks in use whose content does not count, in ascending order.
func (f *Reader) idle() ([]span, error) {
	var list []span
	for group := range f.groups {
		d := &f.descs[group]
		used, reserve := f.base(group)
		if group > 0 && reserve > 0 {
			list = append(list, span{f.groupStart(group) + uint64(used-reserve), uint64(reserve)})
		}
		if d.Flags&groupBlockUninit != 0 {
			list = append(list, span{d.BlockBitmap, 1})
		}
		if d.Flags&groupInodeUninit != 0 {
			list = append(list, span{d.InodeBitmap, 1})
		}
		if f.uninit() && d.Flags&groupInodeZeroed == 0 {
			bytes := uint64(f.usedInodes(group)) * uint64(f.inodeSize)
			blocks := (bytes + uint64(f.blockSize) - 1) / uint64(f.blockSize)
			list = append(list, span{d.InodeTable + blocks, uint64(f.tableBlocks) - blocks})
		}
	}
	if f.super.FeatureCompat&compatJournal != 0 {
		n, err := f.readInode(f.super.JournalInum)
		if err != nil {
			return nil, err
		}
		first, err := f.journal(n)
		if err != nil {
			return nil, err
		}
		err = f.blockMap(n, func(m mapping) error {
			if m.blocks.start == first {
				m.blocks.start++
				m.blocks.count--
			}
			if !m.metadata {
				list = append(list, m.blocks)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	list = slices.DeleteFunc(list, func(s span) bool { return s.count == 0 })
	slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	return list, nil
}
