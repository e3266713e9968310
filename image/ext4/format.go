package ext4

import "encoding/binary"

// le is the order of bytes in all of the format but the journal.
var le = binary.LittleEndian

// Numbers of the on-disk format (Linux, fs/ext4/ext4.h and Documentation/filesystems/ext4).
const (
	superOffset = 1024
	superSize   = 1024
	superMagic  = 0xef53

	stateClean = 1 // s_state
	stateError = 2

	flagUnsignedHash = 2 // s_flags: names are hashed as unsigned bytes

	rootInode    = 2
	resizeInode  = 7
	journalInode = 8
	firstInode   = 11 // the first that is not reserved: lost+found, as mke2fs makes it
)

// Compatible features (s_feature_compat).
const (
	compatDirPrealloc  = 0x1
	compatImagicInodes = 0x2
	compatJournal      = 0x4
	compatExtAttr      = 0x8
	compatResizeInode  = 0x10
	compatDirIndex     = 0x20
	compatSparseSuper2 = 0x200
	compatFastCommit   = 0x400
	compatStableInodes = 0x800
	compatOrphanFile   = 0x1000
)

// Features that a reader must know (s_feature_incompat).
const (
	incompatCompression = 0x1
	incompatFileType    = 0x2
	incompatRecover     = 0x4
	incompatJournalDev  = 0x8
	incompatMetaBG      = 0x10
	incompatExtents     = 0x40
	incompat64Bit       = 0x80
	incompatMMP         = 0x100
	incompatFlexBG      = 0x200
	incompatEAInode     = 0x400
	incompatDirData     = 0x1000
	incompatCsumSeed    = 0x2000
	incompatLargeDir    = 0x4000
	incompatInlineData  = 0x8000
	incompatEncrypt     = 0x10000
	incompatCasefold    = 0x20000
)

// Features that only a writer must know (s_feature_ro_compat).
const (
	roSparseSuper   = 0x1
	roLargeFile     = 0x2
	roBtreeDir      = 0x4
	roHugeFile      = 0x8
	roGDTCsum       = 0x10
	roDirNlink      = 0x20
	roExtraIsize    = 0x40
	roQuota         = 0x100
	roBigalloc      = 0x200
	roMetadataCsum  = 0x400
	roReadonly      = 0x1000
	roProject       = 0x2000
	roSharedBlocks  = 0x4000
	roVerity        = 0x8000
	roOrphanPresent = 0x10000
)

// Flags of a block group (bg_flags).
const (
	groupInodeUninit = 1 // no inode used; inode bitmap not written
	groupBlockUninit = 2 // no block used but the group's own metadata; block bitmap not written
	groupInodeZeroed = 4 // the whole inode table is written
)

// Kinds of files in i_mode.
const (
	modeFIFO    = 0x1000
	modeChar    = 0x2000
	modeFolder  = 0x4000
	modeBlock   = 0x6000
	modeRegular = 0x8000
	modeSymlink = 0xa000
	modeSocket  = 0xc000
	modeKind    = 0xf000
)

// Kinds of files in folder entries.
const (
	kindRegular = 1
	kindFolder  = 2
	kindChar    = 3
	kindBlock   = 4
	kindFIFO    = 5
	kindSocket  = 6
	kindSymlink = 7
	kindTail    = 0xde // marks the checksum at a folder block's end
)

// kindOfMode gives the kind a folder entry has for an inode's mode; 0 for none.
func kindOfMode(mode uint16) uint8 {
	switch mode & modeKind {
	case modeRegular:
		return kindRegular
	case modeFolder:
		return kindFolder
	case modeChar:
		return kindChar
	case modeBlock:
		return kindBlock
	case modeFIFO:
		return kindFIFO
	case modeSocket:
		return kindSocket
	case modeSymlink:
		return kindSymlink
	}
	return 0
}

// Flags of an inode (i_flags).
const (
	inodeIndexed    = 0x1000
	inodeEncrypted  = 0x800
	inodeHugeFile   = 0x40000 // i_blocks counts file system blocks
	inodeExtents    = 0x80000
	inodeVerity     = 0x100000
	inodeEAInode    = 0x200000
	inodeInlineData = 0x10000000
	inodeCasefold   = 0x40000000

	inodeProjectInherit = 0x20000000 // new files in the folder belong to its project
	placeProject        = 0x9c       // of i_projid in an inode
)

// Sizes within the format.
const (
	inodeBase    = 128 // of an inode without extra fields
	extraSize    = 32  // i_extra_isize of ours: up to i_projid
	nameMax      = 255
	linkMax      = 65000 // EXT4_LINK_MAX
	fastLinkMax  = 59    // longest target held inside i_block
	symlinkMax   = 4095  // longest target: a block with its terminator
	extentMagic  = 0xf30a
	extentMaxLen = 32768 // blocks of one written extent
	xattrMagic   = 0xea020000
)
