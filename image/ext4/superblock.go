package ext4

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// superblock is struct ext4_super_block, field by field.
type superblock struct {
	InodesCount      uint32 // 0x00
	BlocksCountLo    uint32
	RBlocksCountLo   uint32
	FreeBlocksLo     uint32
	FreeInodes       uint32 // 0x10
	FirstDataBlock   uint32
	LogBlockSize     uint32
	LogClusterSize   uint32
	BlocksPerGroup   uint32 // 0x20
	ClustersPerGroup uint32
	InodesPerGroup   uint32
	Mtime            uint32
	Wtime            uint32 // 0x30
	MntCount         uint16
	MaxMntCount      uint16
	Magic            uint16
	State            uint16
	Errors           uint16
	MinorRev         uint16
	LastCheck        uint32 // 0x40
	CheckInterval    uint32
	CreatorOS        uint32
	RevLevel         uint32
	DefResUID        uint16 // 0x50
	DefResGID        uint16
	FirstIno         uint32
	InodeSize        uint16
	BlockGroupNr     uint16
	FeatureCompat    uint32
	FeatureIncompat  uint32 // 0x60
	FeatureROCompat  uint32
	UUID             [16]byte
	VolumeName       [16]byte
	LastMounted      [64]byte
	AlgoUsageBitmap  uint32 // 0xc8
	PreallocBlocks   uint8
	PreallocDirs     uint8
	ReservedGDT      uint16
	JournalUUID      [16]byte // 0xd0
	JournalInum      uint32   // 0xe0
	JournalDev       uint32
	LastOrphan       uint32
	HashSeed         [16]byte
	DefHashVersion   uint8
	JnlBackupType    uint8
	DescSize         uint16
	DefaultMountOpts uint32 // 0x100
	FirstMetaBG      uint32
	MkfsTime         uint32
	JnlBlocks        [17]uint32
	BlocksCountHi    uint32 // 0x150
	RBlocksCountHi   uint32
	FreeBlocksHi     uint32
	MinExtraIsize    uint16
	WantExtraIsize   uint16
	Flags            uint32 // 0x160
	RaidStride       uint16
	MMPInterval      uint16
	MMPBlock         uint64
	RaidStripeWidth  uint32 // 0x170
	LogGroupsPerFlex uint8
	ChecksumType     uint8
	EncryptionLevel  uint8
	ReservedPad      uint8
	KbytesWritten    uint64
	SnapshotInum     uint32 // 0x180
	SnapshotID       uint32
	SnapshotRBlocks  uint64
	SnapshotList     uint32 // 0x190
	ErrorCount       uint32
	ErrorFields      [104]byte // 0x198: first and last error
	MountOpts        [64]byte  // 0x200
	UsrQuotaInum     uint32    // 0x240
	GrpQuotaInum     uint32
	OverheadClusters uint32
	BackupBGs        [2]uint32
	EncryptAlgos     [4]byte
	EncryptPwSalt    [16]byte
	LpfIno           uint32 // 0x268
	PrjQuotaInum     uint32
	ChecksumSeed     uint32 // 0x270
	TimesHi          [6]byte
	ErrorCodes       [2]byte
	Encoding         uint16
	EncodingFlags    uint16
	OrphanFileInum   uint32 // 0x280
	Reserved         [94]uint32
	Checksum         uint32 // 0x3fc
}

// encode gives the 1024 bytes, with the checksum filled in if the file system has checksums.
func (s *superblock) encode() []byte {
	b := bytes.NewBuffer(make([]byte, 0, superSize))
	_ = binary.Write(b, le, s) // cannot fail: fixed-size fields into memory
	raw := b.Bytes()
	if s.FeatureROCompat&roMetadataCsum != 0 {
		le.PutUint32(raw[superSize-4:], superChecksum(raw))
	}
	return raw
}

func decodeSuperblock(raw []byte) (*superblock, error) {
	s := new(superblock)
	if err := binary.Read(bytes.NewReader(raw), le, s); err != nil {
		return nil, fmt.Errorf("superblock: %w", err)
	}
	return s, nil
}

func (s *superblock) blocks() uint64 {
	n := uint64(s.BlocksCountLo)
	if s.FeatureIncompat&incompat64Bit != 0 {
		n |= uint64(s.BlocksCountHi) << 32
	}
	return n
}

func (s *superblock) freeBlocks() uint64 {
	n := uint64(s.FreeBlocksLo)
	if s.FeatureIncompat&incompat64Bit != 0 {
		n |= uint64(s.FreeBlocksHi) << 32
	}
	return n
}
