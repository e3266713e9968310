package qcow2

import (
	"encoding/binary"
	"fmt"
)

// table gives the checked L2 table of an L1 entry, nil if there is none.
func (r *Reader) table(i int) ([]l2Entry, error) {
	if r.l1[i] == 0 {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tables[i]; t != nil {
		return t, nil
	}
	t, err := r.readL2(i, false)
	if err != nil {
		return nil, err
	}
	if int64(len(r.tables)+1)*r.cluster > tablesKept {
		clear(r.tables)
	}
	r.tables[i] = t
	return t, nil
}

// readL2 reads and checks an L2 table. In a plain one each cluster is marked as used once.
func (r *Reader) readL2(i int, plain bool) ([]l2Entry, error) {
	raw := make([]byte, r.cluster)
	if err := r.read(raw, r.l1[i]); err != nil {
		return nil, fmt.Errorf("read QCOW2 L2 table: %w", err)
	}
	size := int(r.entrySize())
	t := make([]l2Entry, len(raw)/size)
	for j := range t {
		at, entry := r.l1[i]+int64(j*size), binary.BigEndian.Uint64(raw[j*size:])
		var bitmap uint64
		if r.header.extendedL2 {
			bitmap = binary.BigEndian.Uint64(raw[j*size+8:])
		}
		if entry == 0 && bitmap == 0 {
			continue
		}
		beyond := int64(i)*r.span()+int64(j)*r.cluster >= r.Size()
		switch {
		case plain && entry&flagCompressed != 0:
			return nil, unsupported("it has compressed clusters")
		case plain && beyond:
			return nil, broken(at, "a cluster beyond the end of the disk")
		case plain && (entry&offsetMask != 0) != (entry&flagCopied != 0):
			return nil, broken(at, "L2 entry %#x is not marked as used once", entry)
		case beyond: // left behind when the disk was made smaller
			continue
		}
		var err error
		if entry&flagCompressed != 0 {
			t[j], err = r.packedEntry(at, entry, bitmap)
		} else {
			t[j], err = r.plainEntry(at, entry, bitmap)
		}
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// plainEntry decodes an entry of the specification's "Standard Cluster Descriptor", and the bitmap
// that stands beside it in an extended one.
func (r *Reader) plainEntry(at int64, entry, bitmap uint64) (l2Entry, error) {
	e := l2Entry{host: int64(entry & offsetMask)}
	known := uint64(offsetMask | flagCopied)
	if r.header.version >= 3 && !r.header.extendedL2 {
		known |= flagZero
	}
	if entry&^known != 0 {
		return l2Entry{}, broken(at, "L2 entry %#x has unknown bits", entry)
	}
	if e.host != 0 {
		if err := r.checkPlace(at, uint64(e.host), "a cluster"); err != nil {
			return l2Entry{}, err
		}
	}
	switch allocated, zero := uint32(bitmap), uint32(bitmap>>32); {
	case r.header.extendedL2 && allocated&zero != 0:
		return l2Entry{}, broken(at+8, "subclusters %#x are both allocated and zero", allocated&zero)
	case r.header.extendedL2 && allocated != 0 && e.host == 0:
		return l2Entry{}, broken(at+8, "subclusters %#x are nowhere", allocated)
	case r.header.extendedL2:
		e.present = allocated
	case e.host != 0 && entry&flagZero == 0:
		e.present = whole
	}
	return e, nil
}

// packedEntry decodes an entry of the specification's "Compressed Clusters Descriptor".
func (r *Reader) packedEntry(at int64, entry, bitmap uint64) (l2Entry, error) {
	offsetBits := 62 - (r.header.clusterBits - 8)
	host := entry & (1<<offsetBits - 1)
	sectors := entry &^ (flagCopied | flagCompressed) >> offsetBits
	if entry&flagCopied != 0 || bitmap != 0 {
		return l2Entry{}, broken(at, "compressed L2 entry %#x, %#x has unknown bits", entry, bitmap)
	}
	if host < uint64(r.header.length) || host >= uint64(r.fileSize) {
		return l2Entry{}, broken(at, "a compressed cluster at %#x of a file of %#x bytes", host, r.fileSize)
	}
	// The count is of sectors after the first; 13 bits at most, so this is 4 MiB at most.
	return l2Entry{host: int64(host), present: whole, packed: int32((sectors+1)*512 - host%512)}, nil
}
