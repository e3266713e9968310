// Package qcow2 writes and reads QCOW2 disk images, version 3, as QEMU's docs/interop/qcow2.txt
// describes them ("the specification" below).
//
// A Writer takes writes at any offset, from several goroutines; what is never written takes
// no room. Space in the file is given out in the order of Reserve and of first writes, so equal
// calls make equal files. A Reader is strict: it accepts plain images of version 3 (no backing
// file, no compression, no encryption by QEMU, no snapshots, no bitmaps) whose every offset and
// length it has checked, and Check compares all reference counts with what is in use.
package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ClusterSize is the unit in which a Writer allocates: QEMU's default.
const ClusterSize = 1 << clusterBits

const (
	clusterBits = 16
	magic       = 0x514649fb // "QFI\xfb"
	headerSize  = 104        // the specification's smallest header of version 3

	// Bits of L1 and L2 entries.
	flagCopied     = 1 << 63 // the reference count is exactly one
	flagCompressed = 1 << 62
	flagZero       = 1 << 0
	offsetMask     = 0x00fffffffffffe00 // bits 9 to 55
	refcountMask   = 0xfffffffffffffe00 // of the reference count table: bits 9 to 63

	// MaxSize is the largest disk of a Writer, which an L1 table of 8 MiB describes.
	MaxSize = 1 << 49
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

// header is the part of the header that plain images use.
type header struct {
	clusterBits      uint32
	size             uint64 // of the disk
	l1Entries        uint32
	l1Offset         uint64
	refcountOffset   uint64
	refcountClusters uint32
	length           uint32 // of the header
}

// encode gives the header and the end mark of its extensions.
func (h header) encode() []byte {
	b := make([]byte, headerSize+8)
	be := binary.BigEndian
	be.PutUint32(b[0:], magic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], h.clusterBits)
	be.PutUint64(b[24:], h.size)
	be.PutUint32(b[36:], h.l1Entries)
	be.PutUint64(b[40:], h.l1Offset)
	be.PutUint64(b[48:], h.refcountOffset)
	be.PutUint32(b[56:], h.refcountClusters)
	be.PutUint32(b[96:], 4) // refcount_order: 16 bits
	be.PutUint32(b[100:], headerSize)
	return b
}

// Incompatible features (specification, header field 72).
const (
	dirtyBit   = 1 << 0 // reference counts may be wrong
	corruptBit = 1 << 1
)

// parseHeader reads a header from the file's first bytes and refuses all that is not plain.
func parseHeader(b []byte) (header, error) {
	be := binary.BigEndian
	if len(b) < 8 || be.Uint32(b) != magic {
		return header{}, ErrNotQCOW2
	}
	if version := be.Uint32(b[4:]); version != 3 {
		return header{}, unsupported("version %d", version)
	}
	if len(b) < headerSize {
		return header{}, broken(0, "the header ends after %d bytes", len(b))
	}
	h := header{
		clusterBits: be.Uint32(b[20:]), size: be.Uint64(b[24:]), l1Entries: be.Uint32(b[36:]), l1Offset: be.Uint64(b[40:]),
		refcountOffset: be.Uint64(b[48:]), refcountClusters: be.Uint32(b[56:]), length: be.Uint32(b[100:]),
	}
	features := be.Uint64(b[72:])
	switch {
	case be.Uint64(b[8:]) != 0 || be.Uint32(b[16:]) != 0:
		return header{}, unsupported("it has a backing file")
	case be.Uint32(b[32:]) != 0:
		return header{}, unsupported("it is encrypted by QEMU (crypt_method %d)", be.Uint32(b[32:]))
	case be.Uint32(b[60:]) != 0:
		return header{}, unsupported("it has %d snapshots", be.Uint32(b[60:]))
	case features&dirtyBit != 0:
		return header{}, unsupported("it is marked dirty: it is in use, or qemu-img check -r all repairs it")
	case features&corruptBit != 0:
		return header{}, unsupported("it is marked corrupt")
	case features != 0:
		return header{}, unsupported("incompatible features %#x", features)
	case be.Uint64(b[88:]) != 0:
		return header{}, unsupported("autoclear features %#x", be.Uint64(b[88:]))
	case be.Uint32(b[96:]) != 4:
		return header{}, unsupported("reference counts of %d bits", uint64(1)<<min(be.Uint32(b[96:]), 63))
	case h.clusterBits < 9 || h.clusterBits > 21:
		return header{}, broken(20, "clusters of 2^%d bytes", h.clusterBits)
	case h.length < headerSize || h.length%8 != 0 || h.length > 1<<h.clusterBits:
		return header{}, broken(100, "a header of %d bytes", h.length)
	}
	return h, nil
}

// checkExtensions walks the header's extensions up to the end mark: known ones must be harmless.
func checkExtensions(b []byte, start uint32) error {
	be := binary.BigEndian
	for at := int64(start); ; {
		if int64(len(b))-at < 8 {
			return broken(at, "the header's extensions do not end")
		}
		kind, length := be.Uint32(b[at:]), int64(be.Uint32(b[at+4:]))
		switch kind {
		case 0:
			return nil
		case 0xe2792aca, 0x44415441, 0x0537be77, 0x23852875: // backing format, external data file, full-disk encryption, bitmaps
			return unsupported("header extension %#x", kind)
		}
		padded := (length + 7) &^ 7
		if padded > int64(len(b))-at-8 {
			return broken(at, "a header extension of %d bytes", length)
		}
		at += 8 + padded
	}
}
