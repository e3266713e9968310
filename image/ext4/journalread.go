package ext4

import "encoding/binary"

// Features of a journal that put a checksum on its superblock (JBD2_FEATURE_INCOMPAT_CSUM_V2, V3), and the
// checksum's place.
const (
	journalIncompat = 0x28
	journalCsumV2   = 0x8
	journalCsumV3   = 0x10
	journalCsum     = 0xfc
)

// journal checks that there is nothing to replay, and gives the journal's own superblock.
func (f *Reader) journal(n *record) (uint64, error) {
	first, length := uint64(0), uint64(0)
	err := f.blockMap(n, func(m mapping) error {
		if m.metadata {
			return nil
		}
		if m.unwritten || m.logical != length {
			return broken(n.where(), "journal with a hole at block %d", length)
		}
		if m.logical == 0 {
			first = m.blocks.start
		}
		length += m.blocks.count
		return nil
	})
	if err != nil {
		return 0, err
	}
	if n.kind() != kindRegular || length == 0 || length*uint64(f.blockSize) != n.size {
		return 0, broken(n.where(), "journal of %d bytes with %d blocks", n.size, length)
	}
	raw := make([]byte, f.blockSize)
	if err := f.readBlocks(raw, first); err != nil {
		return 0, err
	}
	raw = raw[:superSize]
	be := binary.BigEndian
	if be.Uint32(raw) != journalMagic || be.Uint32(raw[4:]) != journalV2Super && be.Uint32(raw[4:]) != journalV2Super-1 {
		return 0, broken(n.where(), "journal without a superblock")
	}
	if size, total := be.Uint32(raw[journalBlockSize:]), be.Uint32(raw[journalLength:]); int(size) != f.blockSize || uint64(total) > length {
		return 0, broken(n.where(), "journal of %d blocks of %d bytes, in %d", total, size, length)
	}
	if features := be.Uint32(raw[journalIncompat:]); be.Uint32(raw[4:]) == journalV2Super && features&(journalCsumV2|journalCsumV3) != 0 {
		got := be.Uint32(raw[journalCsum:])
		clear(raw[journalCsum : journalCsum+4])
		if want := crc32c(^uint32(0), raw); got != want {
			return 0, broken(n.where(), "journal superblock with checksum %#x, not %#x", got, want)
		}
	}
	if be.Uint32(raw[journalStart:]) != 0 {
		return 0, broken(n.where(), "journal to be replayed, and the superblock does not say so")
	}
	return first, nil
}
