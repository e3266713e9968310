package btrfs

import "github.com/sealboot/sealboot/image/fsys"

const incompatMetadataUUID = 1 << 10 // BTRFS_FEATURE_INCOMPAT_METADATA_UUID

// Features (BTRFS_FEATURE_INCOMPAT_*, BTRFS_FEATURE_COMPAT_RO_* in include/uapi/linux/btrfs.h) as mkfs.btrfs -O list-all
// and btrfs inspect-internal dump-super name them.
var (
	incompatNames = []fsys.Feature{
		{Bit: 0, Name: "mixed-backref"}, {Bit: 1, Name: "default-subvol"}, {Bit: 2, Name: "mixed-bg"}, {Bit: 3, Name: "compress-lzo"},
		{Bit: 4, Name: "compress-zstd"}, {Bit: 5, Name: "big-metadata"}, {Bit: 6, Name: "extref"}, {Bit: 7, Name: "raid56"},
		{Bit: 8, Name: "skinny-metadata"}, {Bit: 9, Name: "no-holes"}, {Bit: 10, Name: "metadata-uuid"}, {Bit: 11, Name: "raid1c34"},
		{Bit: 12, Name: "zoned"}, {Bit: 13, Name: "extent-tree-v2"}, {Bit: 14, Name: "raid-stripe-tree"}, {Bit: 16, Name: "squota"},
	}
	roNames = []fsys.Feature{
		{Bit: 0, Name: "free-space-tree"}, {Bit: 1, Name: "free-space-tree-valid"}, {Bit: 2, Name: "verity"}, {Bit: 3, Name: "block-group-tree"},
	}
)

// Features that change nothing here, or that are known. Chunks of a profile that is not are refused on their own.
const (
	incompatKnown = 1<<12 - 1 | 1<<16
	roKnown       = 1<<4 - 1
)

// unknown names the features that keep this package from reading the file system.
func (s *superblock) unknown() []string {
	return append(fsys.Names(s.roCompat&^roKnown, roNames, "compat_ro"), fsys.Names(s.incompat&^incompatKnown, incompatNames, "incompat")...)
}
