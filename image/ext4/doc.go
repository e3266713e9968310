// Package ext4 writes a complete ext4 file system in one pass, and reads one strictly.
//
// Writer takes a tree entry by entry, in any order a tar archive may have, and writes to an
// io.WriterAt: file content at once and upward, up to 64 KiB at a time; folders, inode tables and
// the rest of the metadata when it is closed. Memory holds the tree and its inodes, never
// content. All writes are whole blocks of 4096 bytes, aligned. What is not written is never
// relied upon: unwritten blocks may read as anything, random bytes too. The same entries and
// options give the same bytes.
//
// The result has its full size at once: journal, inode tables for the whole size (flagged as
// not yet in use, so that they need not be written), room for online growth, checksums on all
// metadata. Its features are what mke2fs makes by default without those that GRUB 2.12
// cannot read.
//
// Reader opens any ext2, ext3 or ext4 file system of features it knows, gives the ranges whose
// content counts, reads files and folders, and checks all metadata: every checksum, every
// block claimed once and marked so, every inode's links. It takes no byte on trust.
//
// Editor changes a file system that exists, block for block the same where nothing has to change: it puts files in
// and takes them away, without root and without running what is in it. It brings a file system that was not unmounted
// cleanly into order first, as e2fsck does, and turns off features that GRUB cannot read where that is possible in place:
//
//   - done: extents and older block maps, hash trees, any block and inode size, groups never used, flex_bg, meta_bg, 64bit,
//     checksums of both kinds (also metadata_csum_seed), orphan_file, project, large_dir, sparse_super2
//   - turned off: inline_data (its files get a block), ea_inode, encrypt, casefold and verity if no file makes use of
//     them, mmp if nobody has the file system mounted
//   - refused by name: bigalloc, quota (its counts would be wrong), read-only, a journal elsewhere, all that is unknown; a
//     journal to be replayed that has fast or asynchronous commits
//
// The format is that of Linux, Documentation/filesystems/ext4 (the on-disk layout) and of
// e2fsprogs; offsets below name the structures as those do.
package ext4
