package ext4

import "fmt"

type featureName struct {
	bit  uint32
	name string // as mke2fs and dumpe2fs name it
}

var compatNames = []featureName{
	{compatDirPrealloc, "dir_prealloc"}, {compatImagicInodes, "imagic_inodes"}, {compatJournal, "has_journal"},
	{compatExtAttr, "ext_attr"}, {compatResizeInode, "resize_inode"}, {compatDirIndex, "dir_index"},
	{compatSparseSuper2, "sparse_super2"}, {compatFastCommit, "fast_commit"}, {compatStableInodes, "stable_inodes"},
	{compatOrphanFile, "orphan_file"},
}

var incompatNames = []featureName{
	{incompatCompression, "compression"}, {incompatFileType, "filetype"}, {incompatRecover, "needs_recovery"},
	{incompatJournalDev, "journal_dev"}, {incompatMetaBG, "meta_bg"}, {incompatExtents, "extent"}, {incompat64Bit, "64bit"},
	{incompatMMP, "mmp"}, {incompatFlexBG, "flex_bg"}, {incompatEAInode, "ea_inode"}, {incompatDirData, "dirdata"},
	{incompatCsumSeed, "metadata_csum_seed"}, {incompatLargeDir, "large_dir"}, {incompatInlineData, "inline_data"},
	{incompatEncrypt, "encrypt"}, {incompatCasefold, "casefold"},
}

var roNames = []featureName{
	{roSparseSuper, "sparse_super"}, {roLargeFile, "large_file"}, {roBtreeDir, "btree_dir"}, {roHugeFile, "huge_file"},
	{roGDTCsum, "uninit_bg"}, {roDirNlink, "dir_nlink"}, {roExtraIsize, "extra_isize"}, {roQuota, "quota"},
	{roBigalloc, "bigalloc"}, {roMetadataCsum, "metadata_csum"}, {roReadonly, "read-only"}, {roProject, "project"},
	{roSharedBlocks, "shared_blocks"}, {roVerity, "verity"}, {roOrphanPresent, "orphan_present"},
}

// What this reader knows how to check.
const (
	knownCompat = compatDirPrealloc | compatJournal | compatExtAttr | compatResizeInode | compatDirIndex |
		compatSparseSuper2 | compatFastCommit | compatStableInodes | compatOrphanFile
	knownIncompat = incompatFileType | incompatRecover | incompatMetaBG | incompatExtents | incompat64Bit |
		incompatFlexBG | incompatCsumSeed | incompatLargeDir
	knownRO = roSparseSuper | roLargeFile | roHugeFile | roGDTCsum | roDirNlink | roExtraIsize | roQuota |
		roMetadataCsum | roReadonly | roProject | roOrphanPresent
)

// What GRUB 2.12 reads or passes over (grub-core/fs/ext2.c, EXT2_DRIVER_SUPPORTED_INCOMPAT and
// EXT2_DRIVER_IGNORED_INCOMPAT). It looks at no other features.
const grubIncompat = incompatFileType | incompatExtents | incompatFlexBG | incompatMetaBG | incompat64Bit |
	incompatEncrypt | incompatRecover | incompatMMP | incompatCsumSeed | incompatLargeDir

// What an Editor turns off where no file makes use of it.
const (
	removableIncompat = incompatMMP | incompatEAInode | incompatInlineData | incompatEncrypt | incompatCasefold
	removableRO       = roVerity
)

func names(bits uint32, list []featureName) (found []string) {
	for _, f := range list {
		if bits&f.bit != 0 {
			found = append(found, f.name)
			bits &^= f.bit
		}
	}
	if bits != 0 {
		found = append(found, fmt.Sprintf("unknown(%#x)", bits))
	}
	return found
}

// features names all features in use.
func (s *superblock) features() []string {
	found := names(s.FeatureCompat, compatNames)
	found = append(found, names(s.FeatureIncompat, incompatNames)...)
	return append(found, names(s.FeatureROCompat, roNames)...)
}

// unknown names the features that keep this reader from judging the file system.
func (s *superblock) unknown() []string {
	found := names(s.FeatureCompat&^knownCompat, compatNames)
	found = append(found, names(s.FeatureIncompat&^knownIncompat, incompatNames)...)
	return append(found, names(s.FeatureROCompat&^knownRO, roNames)...)
}
