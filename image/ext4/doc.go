// Package ext4 writes a complete ext4 file system in one pass, and reads one strictly.
//
// Writer takes a tree entry by entry, in any order a tar archive may have, and writes to an
// io.WriterAt: file content at once and upward, in large pieces; folders, inode tables and
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
// The format is that of Linux, Documentation/filesystems/ext4 (the on-disk layout) and of
// e2fsprogs; offsets below name the structures as those do.
package ext4
