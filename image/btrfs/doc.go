// Package btrfs reads Btrfs file systems on one device without mounting them: which blocks are in use, the
// subvolumes, and the files with owners, times and attributes, compressed ones too (zlib, LZO, zstd).
//
// Every tree block on the way is checked: its checksum (CRC-32C, xxHash, SHA-256, BLAKE2), that it is the block that was asked for, of the generation
// and with the first key that the level above says, and that its keys ascend. File content is checked against its checksums where it
// has any. Where a block is stored twice (profile DUP), the second copy is taken if the first is damaged. A file system over
// several devices, or with features that the package does not know, is refused; so is, by Clean, one with a log tree, which is what a
// crash leaves after fsync.
//
// Memory is bounded whatever the bytes say: 4 MiB of tree blocks, 2^16 chunks, 2^12 subvolumes, a file of at most 2^18 extents, a folder of at
// most 2^18 names of 16 MiB, attributes of at most 4 MiB. What is more is fsys.ErrTooLarge.
//
// The format is that of Linux, include/uapi/linux/btrfs_tree.h and fs/btrfs/accessors.h; structures are named as there. Numbers are
// little endian.
package btrfs
