// Package xfs reads XFS file systems of versions 4 and 5 without mounting them: which blocks are in use, and
// the files with owners, times and attributes.
//
// A file system with a realtime section, a log on another device, or features that the package does not know is refused.
// So is, by Clean, one whose log has something to replay: it is clean only if the last record in the log
// is the one that unmounting writes. Of a file system of version 5 every checksum on the way is checked, with each block's own idea of where it
// is, whose it is and which file system it belongs to. Version 4 has none of these.
//
// Memory is bounded whatever the bytes say: a fork of at most 2^18 extents, a folder of at most 2^18 names of 16 MiB,
// attributes of at most 4 MiB. What is more is fsys.ErrTooLarge.
//
// The format is that of Linux, fs/xfs/libxfs/xfs_format.h, xfs_da_format.h and xfs_log_format.h; fields are named as
// there. Numbers are big endian, but for checksums (CRC-32C), which are little endian.
package xfs
