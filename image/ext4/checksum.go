package ext4

import (
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c goes on from a seed as the kernel does: without the inversion at start and end
// that hash/crc32 has.
func crc32c(seed uint32, data []byte) uint32 {
	return ^crc32.Update(^seed, castagnoli, data)
}

// crc32cUint32 is crc32c over the four bytes of n.
func crc32cUint32(seed, n uint32) uint32 {
	for range 4 {
		seed = castagnoli[uint8(seed)^uint8(n)] ^ seed>>8
		n >>= 8
	}
	return seed
}

func superChecksum(raw []byte) uint32 {
	return crc32c(^uint32(0), raw[:superSize-4])
}

// fsSeed begins all other checksums.
func fsSeed(uuid [16]byte) uint32 { return crc32c(^uint32(0), uuid[:]) }

// inodeSeed begins the checksums of an inode and of the blocks that it owns.
func inodeSeed(fs, number, generation uint32) uint32 {
	return crc32cUint32(crc32cUint32(fs, number), generation)
}

// Places of an inode's checksum halves (i_checksum_lo, i_checksum_hi).
const (
	inodeCsumLo = 0x7c
	inodeCsumHi = 0x82
)

// inodeChecksum is over the inode with its checksum fields taken as zero. An inode without
// i_checksum_hi has only the lower half.
func inodeChecksum(seed uint32, raw []byte) uint32 {
	crc := crc32c(seed, raw[:inodeCsumLo])
	crc = crc32c(crc, zeros[:2])
	if !hasCsumHi(raw) {
		return crc32c(crc, raw[inodeCsumLo+2:]) & 0xffff
	}
	crc = crc32c(crc, raw[inodeCsumLo+2:inodeCsumHi])
	crc = crc32c(crc, zeros[:2])
	return crc32c(crc, raw[inodeCsumHi+2:])
}

func hasCsumHi(raw []byte) bool {
	return len(raw) > inodeBase && le.Uint16(raw[inodeBase:]) >= inodeCsumHi+2-inodeBase
}

// Places of checksums in metadata blocks.
const (
	dirTailSize    = 12 // a fake entry of kind 0xde at the end of a folder's leaf block
	indexTailSize  = 8  // behind the last possible entry of a hash tree block
	xattrBlockCsum = 16 // h_checksum
	groupDescCsum  = 0x1e
	journalMagic   = 0xc03b3998
	journalV2Super = 4
)

// xattrChecksum is over the block's number and the block with its checksum taken as zero.
func xattrChecksum(fs uint32, block uint64, raw []byte) uint32 {
	var number [8]byte
	le.PutUint64(number[:], block)
	crc := crc32c(fs, number[:])
	crc = crc32c(crc, raw[:xattrBlockCsum])
	crc = crc32c(crc, zeros[:4])
	return crc32c(crc, raw[xattrBlockCsum+4:])
}

// groupChecksum is over the group's number and its descriptor with the checksum taken as zero.
func groupChecksum(fs, group uint32, desc []byte) uint16 {
	crc := crc32cUint32(fs, group)
	crc = crc32c(crc, desc[:groupDescCsum])
	crc = crc32c(crc, zeros[:2])
	crc = crc32c(crc, desc[groupDescCsum+2:])
	return uint16(crc)
}

// indexChecksum is over a hash tree block's used part (up to end) and its tail.
func indexChecksum(seed uint32, raw []byte, end int, tail []byte) uint32 {
	crc := crc32c(seed, raw[:end])
	crc = crc32c(crc, tail[:4])
	return crc32c(crc, zeros[:4])
}
