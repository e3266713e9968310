// Package qcow2 writes and reads QCOW2 disk images as QEMU's docs/interop/qcow2.txt
// describes them ("the specification" below).
//
// A Writer makes version 3. It takes writes at any offset, from several goroutines; what is never
// written takes no room. Space in the file is given out in the order of Reserve and of first
// writes, so equal calls make equal files.
//
// A Reader reads the active state of images of versions 2 and 3: all cluster sizes, compressed
// clusters (deflate, zstd), zero clusters, subclusters. It never opens another file: images with a
// backing file, external data or encryption by QEMU are refused, as are those marked corrupt and
// those with features that it does not know. Every offset and length is checked before it is used; reference
// counts, snapshots and bitmaps say nothing about the active state and are not looked at.
//
// Check is for images that a Writer made: it accepts plain images of version 3 alone, and compares
// all reference counts with what is in use.
package qcow2

import (
	"errors"
	"fmt"
)

// Units in which a Writer allocates.
const (
	ClusterSize     = 64 << 10 // if nothing else is said: QEMU's default
	SmallestCluster = 4 << 10  // a block of a file system; QEMU itself goes down to 512 bytes
	LargestCluster  = 2 << 20  // QEMU's largest
)

const (
	magic      = 0x514649fb // "QFI\xfb"
	headerSize = 104        // the specification's smallest header of version 3

	// Bits of L1 and L2 entries.
	flagCopied     = 1 << 63 // the reference count is exactly one
	flagCompressed = 1 << 62
	flagZero       = 1 << 0             // not in version 2, nor with subclusters
	offsetMask     = 0x00fffffffffffe00 // bits 9 to 55
	refcountMask   = 0xfffffffffffffe00 // of the reference count table: bits 9 to 63

	// MaxSize is the largest disk of a Writer. Its file has fewer than 1<<32 clusters, tables included: see Options.Validate.
	MaxSize = 1 << 47
	// writerL1 bounds the L1 table of a Writer in bytes: with clusters of 4 KiB it describes 2 TiB.
	writerL1 = 8 << 20
	// maxL1 bounds the L1 table in bytes, as QEMU does (block/qcow2.h, QCOW_MAX_L1_SIZE).
	maxL1 = 32 << 20
	// maxRefcountTable bounds the reference count table in bytes (QCOW_MAX_REFTABLE_SIZE).
	maxRefcountTable = 8 << 20
)

// Errors that callers tell apart.
var (
	ErrNotQCOW2    = errors.New("not a QCOW2 image")
	ErrUnsupported = errors.New("kind of QCOW2 image that is not read") // see the package comment
	ErrClosed      = errors.New("image is closed")
)

// FormatError is a broken image.
type FormatError struct {
	Offset  int64 // in the image file
	Problem string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("broken QCOW2 image: at offset %#x: %s", e.Offset, e.Problem)
}

func broken(offset int64, format string, args ...any) error {
	return &FormatError{offset, fmt.Sprintf(format, args...)}
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, args...))
}
