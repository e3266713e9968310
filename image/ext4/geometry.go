package ext4

import (
	"fmt"
	"math"
)

// Choices of the writer.
const (
	blockSize      = 4096 // one LUKS sector, and what GRUB and every kernel read
	groupBlocks    = 8 * blockSize
	inodeSize      = 256
	inodesPerBlock = blockSize / inodeSize
	descSize       = 64
	descsPerBlock  = blockSize / descSize
	groupsPerFlex  = 16    // as mke2fs: metadata of 16 groups stands together
	bytesPerInode  = 16384 // as mke2fs
	minBlocks      = 2048  // mke2fs makes no journal below that
	tailBlocks     = 50    // as mke2fs: a last group with less room than that is left off
)

// geometry says where the fixed metadata of a file system stands. All of it is at the
// beginning of groups: the backups, then in every flex-th group the bitmaps and inode
// tables of the groups from there on.
type geometry struct {
	blocks         uint64
	groups         uint32
	inodesPerGroup uint32
	tableBlocks    uint32 // of one group's inode table
	descBlocks     uint32 // of the descriptors of all groups
	reservedDescs  uint32 // blocks kept behind them, for growth
	flex           uint32 // groups whose metadata stands together
}

// newGeometry lays out a file system of the given bytes; inodes 0 means one for each 16 KiB.
func newGeometry(size int64, inodes uint32) (*geometry, error) {
	if size < minBlocks*blockSize {
		return nil, fmt.Errorf("ext4 of %d bytes: at least %d are needed", size, minBlocks*blockSize)
	}
	g := &geometry{blocks: uint64(size) / blockSize}
	if g.blocks > math.MaxUint32 {
		return nil, fmt.Errorf("ext4 of %d bytes: at most 16 TiB less one block can be laid out", size)
	}
	if inodes == 0 {
		inodes = uint32(min(g.blocks*blockSize/bytesPerInode, math.MaxUint32))
	}
	g.divide(inodes)
	if last := g.groups - 1; last > 0 && g.groupLen(last) < g.head(last)+tailBlocks {
		g.blocks = uint64(last) * groupBlocks
		g.divide(inodes)
	}
	if total := uint64(g.inodesPerGroup) * uint64(g.groups); total > math.MaxUint32 || total < uint64(inodes) {
		return nil, fmt.Errorf("ext4 of %d bytes cannot have %d inodes", size, inodes)
	}
	if free := g.free(); free < uint64(journalBlocks(g.blocks))+tailBlocks {
		return nil, fmt.Errorf("ext4 of %d bytes has no room for %d inodes and a journal", size, inodes)
	}
	return g, nil
}

func (g *geometry) divide(inodes uint32) {
	g.groups = uint32((g.blocks + groupBlocks - 1) / groupBlocks)
	perGroup := (uint64(inodes) + uint64(g.groups) - 1) / uint64(g.groups)
	g.tableBlocks = uint32(min((perGroup+inodesPerBlock-1)/inodesPerBlock, groupBlocks/inodesPerBlock))
	g.tableBlocks = max(g.tableBlocks, 1)
	g.inodesPerGroup = g.tableBlocks * inodesPerBlock
	g.descBlocks = (g.groups + descsPerBlock - 1) / descsPerBlock
	g.reservedDescs = reservedDescs(g.blocks, g.descBlocks)
	g.flex = groupsPerFlex
	for g.flex > 1 && g.flex*(2+g.tableBlocks) > groupBlocks/2 {
		g.flex /= 2
	}
}

// reservedDescs is how many blocks are kept for descriptors of groups that come by growth:
// for 1024 times the size, as mke2fs has it, but no more than for 2 TiB or, above that, twice the
// size, since those of the first group must be written.
func reservedDescs(blocks uint64, descBlocks uint32) uint32 {
	const addresses = blockSize / 4 // in the one indirect block that lists them
	most := min(blocks*1024, math.MaxUint32)
	groups := (most + groupBlocks - 1) / groupBlocks
	wanted := uint32((groups+descsPerBlock-1)/descsPerBlock) - descBlocks
	return min(wanted, max(256, descBlocks), addresses)
}

// journalBlocks is the journal's size as mke2fs chooses it (ext2fs_default_journal_size).
func journalBlocks(blocks uint64) uint32 {
	for _, step := range []struct {
		below   uint64
		journal uint32
	}{
		{32768, 1024}, {256 << 10, 4096}, {512 << 10, 8192}, {4096 << 10, 16384},
		{8192 << 10, 32768}, {16384 << 10, 65536}, {32768 << 10, 131072},
	} {
		if blocks < step.below {
			return step.journal
		}
	}
	return 262144
}

func (g *geometry) inodes() uint32 { return g.inodesPerGroup * g.groups }

func (g *geometry) groupStart(group uint32) uint64 { return uint64(group) * groupBlocks }

func (g *geometry) groupLen(group uint32) uint32 {
	return uint32(min(g.blocks-g.groupStart(group), groupBlocks))
}

// hasBackup says whether a group begins with the superblock or a copy of it (sparse_super:
// groups 0, 1 and the powers of 3, 5 and 7).
func hasBackup(group uint32) bool {
	if group <= 1 {
		return true
	}
	for _, base := range []uint32{3, 5, 7} {
		n := group
		for n%base == 0 {
			n /= base
		}
		if n == 1 {
			return true
		}
	}
	return false
}

// backup is the number of blocks that superblock, descriptors and their reserve take in a group.
func (g *geometry) backup(group uint32) uint32 {
	if !hasBackup(group) {
		return 0
	}
	return 1 + g.descBlocks + g.reservedDescs
}

// leads says whether the metadata of several groups stands in this one.
func (g *geometry) leads(group uint32) bool { return group%g.flex == 0 }

// led is the number of groups whose metadata stands in the group that leads this one.
func (g *geometry) led(group uint32) uint32 {
	leader := group - group%g.flex
	return min(g.flex, g.groups-leader)
}

// head is the number of blocks at a group's beginning that hold metadata.
func (g *geometry) head(group uint32) uint32 {
	n := g.backup(group)
	if g.leads(group) {
		n += g.led(group) * (2 + g.tableBlocks)
	}
	return n
}

// place gives the blocks of a group's bitmaps and inode table.
func (g *geometry) place(group uint32) (blockBitmap, inodeBitmap, table uint64) {
	leader := group - group%g.flex
	base := g.groupStart(leader) + uint64(g.backup(leader))
	led, i := uint64(g.led(group)), uint64(group-leader)
	return base + i, base + led + i, base + 2*led + i*uint64(g.tableBlocks)
}

// free is the number of blocks that no fixed metadata takes.
func (g *geometry) free() uint64 {
	n := g.blocks
	for group := range g.groups {
		n -= uint64(min(g.head(group), g.groupLen(group)))
	}
	return n
}
