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
	j, err := f.openJournal(n)
	if err != nil {
		return 0, err
	}
	if binary.BigEndian.Uint32(j.super[journalStart:]) != 0 {
		return 0, broken(n.where(), "journal to be replayed, and the superblock does not say so")
	}
	return j.runs[0].start, nil
}

// journalFile is a journal whose superblock has been checked.
type journalFile struct {
	n     *record
	runs  []span // its blocks, in their order
	super []byte
	total uint32 // blocks that it says it has
}

func (f *Reader) openJournal(n *record) (*journalFile, error) {
	j := &journalFile{n: n, super: make([]byte, f.blockSize)}
	length := uint64(0)
	err := f.blockMap(n, func(m mapping) error {
		if m.metadata {
			return nil
		}
		if m.unwritten || m.logical != length {
			return broken(n.where(), "journal with a hole at block %d", length)
		}
		j.runs = append(j.runs, m.blocks)
		length += m.blocks.count
		return nil
	})
	if err != nil {
		return nil, err
	}
	if n.kind() != kindRegular || length == 0 || length*uint64(f.blockSize) != n.size {
		return nil, broken(n.where(), "journal of %d bytes with %d blocks", n.size, length)
	}
	if err := f.readBlocks(j.super, j.runs[0].start); err != nil {
		return nil, err
	}
	j.super = j.super[:superSize]
	be := binary.BigEndian
	if be.Uint32(j.super) != journalMagic || be.Uint32(j.super[4:]) != journalV2Super && be.Uint32(j.super[4:]) != journalV2Super-1 {
		return nil, broken(n.where(), "journal without a superblock")
	}
	j.total = be.Uint32(j.super[journalLength:])
	if size := be.Uint32(j.super[journalBlockSize:]); int(size) != f.blockSize || uint64(j.total) > length {
		return nil, broken(n.where(), "journal of %d blocks of %d bytes, in %d", j.total, size, length)
	}
	if j.checksums() {
		if got, want := be.Uint32(j.super[journalCsum:]), j.checksum(); got != want {
			return nil, broken(n.where(), "journal superblock with checksum %#x, not %#x", got, want)
		}
	}
	return j, nil
}

// features are those that a reader of the journal must know. The first version of its superblock has none.
func (j *journalFile) features() uint32 {
	if binary.BigEndian.Uint32(j.super[4:]) != journalV2Super {
		return 0
	}
	return binary.BigEndian.Uint32(j.super[journalIncompat:])
}

func (j *journalFile) checksums() bool { return j.features()&(journalCsumV2|journalCsumV3) != 0 }

// checksum is the superblock's, over itself with the checksum taken as zero.
func (j *journalFile) checksum() uint32 {
	crc := crc32c(^uint32(0), j.super[:journalCsum])
	crc = crc32c(crc, make([]byte, 4))
	return crc32c(crc, j.super[journalCsum+4:])
}
