package qcow2

import "encoding/binary"

// header holds the header's fields that reading needs. odd says why the image is not a plain one,
// such as a Writer makes, although it can be read; it is nil for a plain one.
type header struct {
	version          uint32
	clusterBits      uint32
	size             uint64 // of the disk
	l1Entries        uint32
	l1Offset         uint64
	refcountOffset   uint64
	refcountClusters uint32
	length           uint32 // of the header
	zstd             bool   // how clusters are compressed; deflate otherwise
	extendedL2       bool   // L2 entries of 16 bytes, with subclusters
	odd              error
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

const (
	headerSize2  = 72    // of version 2
	maxSnapshots = 65536 // block/qcow2.h, QCOW_MAX_SNAPSHOTS

	// Incompatible features (specification, header field 72).
	dirtyBit       = 1 << 0 // reference counts may be wrong
	corruptBit     = 1 << 1
	externalBit    = 1 << 2 // the data is in another file
	compressionBit = 1 << 3 // the compression type is not deflate
	extendedL2Bit  = 1 << 4

	// Extensions.
	extensionBackingFormat = 0xe2792aca
	extensionDataFile      = 0x44415441
	extensionEncryption    = 0x0537be77
	extensionBitmaps       = 0x23852875
)

// flatten is what to do about an image that needs what this package does not do.
const flatten = "make one of its own with qemu-img convert -O qcow2"

// parseHeader reads a header and its extensions from the file's first bytes, a cluster or
// what the file has of it.
func parseHeader(b []byte) (header, error) {
	be := binary.BigEndian
	if len(b) < 8 || be.Uint32(b) != magic {
		return header{}, ErrNotQCOW2
	}
	h := header{version: be.Uint32(b[4:]), length: headerSize2}
	least := headerSize
	switch h.version {
	case 2:
		least = headerSize2
		h.odd = unsupported("version 2")
	case 3:
	default:
		return header{}, unsupported("version %d", h.version)
	}
	if len(b) < least {
		return header{}, broken(0, "the header ends after %d bytes", len(b))
	}
	h.clusterBits, h.size, h.l1Entries, h.l1Offset = be.Uint32(b[20:]), be.Uint64(b[24:]), be.Uint32(b[36:]), be.Uint64(b[40:])
	h.refcountOffset, h.refcountClusters = be.Uint64(b[48:]), be.Uint32(b[56:])
	switch snapshots := be.Uint32(b[60:]); {
	case be.Uint64(b[8:]) != 0 || be.Uint32(b[16:]) != 0:
		return header{}, unsupported("it has a backing file; %s", flatten)
	case be.Uint32(b[32:]) != 0:
		return header{}, unsupported("it is encrypted by QEMU (crypt_method %d); %s", be.Uint32(b[32:]), flatten)
	case h.clusterBits < 9 || h.clusterBits > 21:
		return header{}, broken(20, "clusters of 2^%d bytes", h.clusterBits)
	case snapshots > maxSnapshots:
		return header{}, broken(60, "%d snapshots", snapshots)
	case snapshots > 0:
		h.odd = unsupported("it has %d snapshots", snapshots)
	}
	if h.version == 3 {
		if err := h.parseVersion3(b); err != nil {
			return header{}, err
		}
	}
	if cluster := 1 << h.clusterBits; len(b) > cluster {
		b = b[:cluster]
	}
	if err := h.parseExtensions(b); err != nil {
		return header{}, err
	}
	return h, nil
}

func (h *header) parseVersion3(b []byte) error {
	be := binary.BigEndian
	h.length = be.Uint32(b[100:])
	if h.length < headerSize || h.length%8 != 0 || h.length > 1<<h.clusterBits {
		return broken(100, "a header of %d bytes", h.length)
	}
	if len(b) < int(h.length) {
		return broken(0, "the header ends after %d bytes", len(b))
	}
	features, compression := be.Uint64(b[72:]), byte(0)
	if h.length > headerSize {
		compression = b[headerSize]
	}
	h.zstd, h.extendedL2 = compression == 1, features&extendedL2Bit != 0
	switch order := be.Uint32(b[96:]); {
	case features&corruptBit != 0:
		return unsupported("it is marked corrupt; qemu-img check -r all may repair it")
	case features&externalBit != 0:
		return unsupported("its data is in another file; %s", flatten)
	case features&^(dirtyBit|compressionBit|extendedL2Bit) != 0:
		return unsupported("incompatible features %#x; %s", features, flatten)
	case compression > 1:
		return unsupported("compression type %d; %s", compression, flatten)
	case (features&compressionBit != 0) != (compression != 0):
		return broken(headerSize, "compression type %d, incompatible features %#x", compression, features)
	case h.extendedL2 && h.clusterBits < 14:
		return broken(20, "subclusters in clusters of 2^%d bytes", h.clusterBits)
	case order > 6:
		return broken(96, "reference counts of 2^%d bits", order)
	case features&dirtyBit != 0:
		h.odd = unsupported("it is marked dirty: it is in use, or qemu-img check -r all repairs it")
	case features != 0:
		h.odd = unsupported("incompatible features %#x", features)
	case be.Uint64(b[88:]) != 0:
		h.odd = unsupported("autoclear features %#x", be.Uint64(b[88:]))
	case order != 4:
		h.odd = unsupported("reference counts of %d bits", 1<<order)
	}
	return nil
}

// parseExtensions walks the header's extensions up to the end mark.
func (h *header) parseExtensions(b []byte) error {
	be := binary.BigEndian
	for at := int64(h.length); ; {
		if int64(len(b))-at < 8 {
			if int64(len(b)) == at { // QEMU takes the cluster's end for an end too
				return nil
			}
			return broken(at, "the header's extensions do not end")
		}
		kind, length := be.Uint32(b[at:]), int64(be.Uint32(b[at+4:]))
		switch kind {
		case 0:
			return nil
		case extensionDataFile, extensionEncryption:
			return unsupported("header extension %#x (data in another file or encryption); %s", kind, flatten)
		case extensionBackingFormat, extensionBitmaps:
			h.odd = unsupported("header extension %#x", kind)
		}
		padded := (length + 7) &^ 7
		if padded > int64(len(b))-at-8 {
			return broken(at, "a header extension of %d bytes", length)
		}
		at += 8 + padded
	}
}
