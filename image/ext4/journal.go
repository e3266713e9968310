package ext4

import "encoding/binary"

// Places in the journal's superblock (journal_superblock_t, include/linux/jbd2.h; big-endian).
const (
	journalBlockSize = 0x0c
	journalLength    = 0x10
	journalFirst     = 0x14
	journalSequence  = 0x18
	journalStart     = 0x1c // 0: nothing to replay
	journalUUID      = 0x30
	journalUsers     = 0x40
)

// makeJournal makes an empty journal. Only its first block is written: with nothing to replay
// no other is read before the kernel has written it.
func (w *Writer) makeJournal() error {
	n := w.inodes[journalInode-1]
	count := journalBlocks(w.geometry.blocks)
	n.mode, n.size = modeRegular|0o600, int64(count)*blockSize
	var list []extent
	for logical := uint32(0); logical < count; {
		got := w.alloc.take(uint64(count - logical))
		list = addExtent(list, logical, got)
		logical += uint32(got.count)
	}
	if err := w.mapBlocks(n, list); err != nil {
		return err
	}
	raw := make([]byte, blockSize)
	be := binary.BigEndian
	be.PutUint32(raw[0:], journalMagic)
	be.PutUint32(raw[4:], journalV2Super)
	be.PutUint32(raw[journalBlockSize:], blockSize)
	be.PutUint32(raw[journalLength:], count)
	be.PutUint32(raw[journalFirst:], 1)
	be.PutUint32(raw[journalSequence:], 1)
	copy(raw[journalUUID:], w.options.UUID[:])
	be.PutUint32(raw[journalUsers:], 1)
	return w.out.write(list[0].start, raw)
}

// Places of indirect blocks in i_block.
const (
	directBlocks   = 12
	indirectDouble = 13
)

// makeResizeInode makes the inode that owns the blocks reserved for descriptors: its double
// indirect block lists those of the first group, and each of them lists its twins in the groups that
// have backups (lib/ext2fs/res_gdt.c).
func (w *Writer) makeResizeInode() error {
	g := w.geometry
	if g.reservedDescs == 0 {
		return nil
	}
	const addresses = blockSize / 4
	n := w.inodes[resizeInode-1]
	n.mode = modeRegular | 0o600
	n.size = (addresses*addresses + addresses + directBlocks) * blockSize
	double := w.alloc.take(1)
	n.own(double)
	le.PutUint32(n.block[4*indirectDouble:], uint32(double.start))
	list := make([]byte, blockSize)
	var backups []uint64
	for group := uint32(1); group < g.groups; group++ {
		if hasBackup(group) {
			backups = append(backups, g.groupStart(group))
		}
	}
	for i := range g.reservedDescs {
		block := 1 + g.descBlocks + i
		at := (g.descBlocks + i) % addresses
		le.PutUint32(list[4*at:], block)
		n.own(span{uint64(block), 1})
		twins := make([]byte, 0, blockSize)
		for _, start := range backups {
			twin := uint64(block) + start
			twins = le.AppendUint32(twins, uint32(twin))
			n.own(span{twin, 1})
		}
		if err := w.out.write(uint64(block), twins[:blockSize]); err != nil {
			return err
		}
	}
	return w.out.write(double.start, list)
}
