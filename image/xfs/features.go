package xfs

import "github.com/sealboot/sealboot/image/fsys"

// Bits of sb_versionnum and sb_features2 (XFS_SB_VERSION_*, XFS_SB_VERSION2_* in xfs_format.h).
const (
	versionNumber   = 0x000f
	versionDirV2    = 0x2000
	versionMoreBits = 0x8000
	versionShared   = 0x0200
	features2Ftype  = 0x200
	features2Known  = 0x2 | 0x8 | 0x80 | 0x100 | features2Ftype // lazy-count, attr2, projid32bit, crc, ftype
)

// Bits of sb_features_incompat (XFS_SB_FEAT_INCOMPAT_*).
const (
	incompatFtype       = 1 << 0
	incompatMetaUUID    = 1 << 2
	incompatNeedsRepair = 1 << 4
	incompatNrext64     = 1 << 5
	incompatKnown       = 1<<8 - 1
	roKnown             = 1<<4 - 1
)

// Names as mkfs.xfs has them as options and xfs_info prints them; where it has none, the kernel's.
var (
	roNames       = []fsys.Feature{{Bit: 0, Name: "finobt"}, {Bit: 1, Name: "rmapbt"}, {Bit: 2, Name: "reflink"}, {Bit: 3, Name: "inobtcount"}}
	incompatNames = []fsys.Feature{
		{Bit: 0, Name: "ftype"}, {Bit: 1, Name: "sparse"}, {Bit: 2, Name: "meta_uuid"}, {Bit: 3, Name: "bigtime"}, {Bit: 4, Name: "needsrepair"},
		{Bit: 5, Name: "nrext64"}, {Bit: 6, Name: "exchange"}, {Bit: 7, Name: "parent"}, {Bit: 8, Name: "metadir"}, {Bit: 9, Name: "zoned"}, {Bit: 10, Name: "zone_gaps"},
	}
	features2Names = []fsys.Feature{{Bit: 1, Name: "lazy-count"}, {Bit: 3, Name: "attr2"}, {Bit: 7, Name: "projid32bit"}, {Bit: 8, Name: "crc"}, {Bit: 9, Name: "ftype"}}
)

// unknown names the features that keep this package from reading the file system.
func (s *superblock) unknown() []string {
	var list []string
	if s.version&versionDirV2 == 0 {
		list = append(list, "folders of version 1")
	}
	if s.version&versionShared != 0 {
		list = append(list, "shared")
	}
	if s.version&versionMoreBits != 0 {
		list = append(list, fsys.Names(uint64(s.features2&^features2Known), features2Names, "features2")...)
	}
	list = append(list, fsys.Names(uint64(s.roCompat&^roKnown), roNames, "ro_compat")...)
	return append(list, fsys.Names(uint64(s.incompat&^incompatKnown), incompatNames, "incompat")...)
}

func (s *superblock) features() []string {
	var list []string
	if s.v5() {
		list = append(list, "crc")
	} else if s.version&versionMoreBits != 0 {
		list = append(list, fsys.Names(uint64(s.features2), features2Names, "features2")...)
	}
	list = append(list, fsys.Names(uint64(s.roCompat), roNames, "ro_compat")...)
	return append(list, fsys.Names(uint64(s.incompat), incompatNames, "incompat")...)
}
