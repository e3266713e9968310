package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Reader reads the disk in an image, which must not change meanwhile. It may be used by
// several goroutines, and holds at most a few MiB whatever the image says.
type Reader struct {
	file     io.ReaderAt
	fileSize int64
	header   header
	cluster  int64   // bytes in a cluster
	l1       []int64 // file offsets of L2 tables, 0 where there is none

	mu     sync.Mutex
	tables map[int][]l2Entry // a few L2 tables, checked
}

type l2Entry struct {
	host int64 // file offset, 0 for none
	zero bool  // reads as zeros whatever is there
}

const tablesKept = 8 << 20 // bytes of L2 tables that a Reader keeps

// Open reads the header and the L1 table of an image file of fileSize bytes.
func Open(file io.ReaderAt, fileSize int64) (*Reader, error) {
	head := make([]byte, min(max(fileSize, 0), 1<<21))
	if n, err := file.ReadAt(head, 0); err != nil && (!errors.Is(err, io.EOF) || n < len(head)) {
		return nil, fmt.Errorf("read QCOW2 header: %w", err)
	}
	h, err := parseHeader(head)
	if err != nil {
		return nil, err
	}
	r := &Reader{file: file, fileSize: fileSize, header: h, cluster: 1 << h.clusterBits, tables: map[int][]l2Entry{}}
	head = head[:min(int64(len(head)), r.cluster)]
	if int64(len(head)) < int64(h.length) {
		return nil, broken(0, "the header ends after %d bytes", len(head))
	}
	if h.length > headerSize && head[headerSize] != 0 {
		return nil, unsupported("compression type %d", head[headerSize])
	}
	if err := checkExtensions(head, h.length); err != nil {
		return nil, err
	}
	if err := r.readL1(); err != nil {
		return nil, err
	}
	return r, nil
}

// Size gives the size of the disk.
func (r *Reader) Size() int64 { return int64(r.header.size) }

// ClusterSize gives the unit in which the image allocates.
func (r *Reader) ClusterSize() int64 { return r.cluster }

func (r *Reader) readL1() error {
	h := r.header
	switch span := uint64(r.span()); {
	case h.size%512 != 0 || h.size > 1<<62:
		return broken(24, "a disk of %d bytes", h.size)
	case int64(h.l1Entries)*8 > maxL1:
		return broken(36, "an L1 table of %d entries", h.l1Entries)
	case (h.size+span-1)/span > uint64(h.l1Entries):
		return broken(36, "an L1 table of %d entries for a disk of %d bytes", h.l1Entries, h.size)
	}
	if h.l1Entries == 0 {
		return nil
	}
	if err := r.checkPlace(40, h.l1Offset, "the L1 table"); err != nil {
		return err
	}
	raw := make([]byte, int64(h.l1Entries)*8)
	if err := r.read(raw, int64(h.l1Offset)); err != nil {
		return fmt.Errorf("read QCOW2 L1 table: %w", err)
	}
	r.l1 = make([]int64, h.l1Entries)
	needed := (int64(h.size) + r.span() - 1) / r.span()
	for i := range r.l1 {
		at, entry := int64(h.l1Offset)+int64(i)*8, binary.BigEndian.Uint64(raw[i*8:])
		switch {
		case entry == 0:
			continue
		case int64(i) >= needed:
			return broken(at, "an L2 table beyond the end of the disk")
		case entry&^(offsetMask|flagCopied) != 0:
			return broken(at, "L1 entry %#x has unknown bits", entry)
		case entry&flagCopied == 0:
			return broken(at, "L1 entry %#x is not marked as used once", entry)
		}
		if err := r.checkPlace(at, entry&offsetMask, "an L2 table"); err != nil {
			return err
		}
		r.l1[i] = int64(entry & offsetMask)
	}
	return nil
}

// span is how much of the disk one L2 table describes.
func (r *Reader) span() int64 { return r.cluster * (r.cluster / 8) }

// checkPlace checks that a cluster begins at offset in the file, after the header. QEMU may
// leave away the zeros at the end of the file's last cluster.
func (r *Reader) checkPlace(at int64, offset uint64, what string) error {
	if offset == 0 || offset%uint64(r.cluster) != 0 || offset >= uint64(r.fileSize) {
		return broken(at, "%s at %#x of a file of %#x bytes", what, offset, r.fileSize)
	}
	return nil
}

// read fills p; what is beyond the file's end is zero.
func (r *Reader) read(p []byte, at int64) error {
	n, err := r.file.ReadAt(p, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(p[n:])
	return nil
}

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
	t, err := r.readL2(i)
	if err != nil {
		return nil, err
	}
	if int64(len(r.tables)+1)*r.cluster > tablesKept {
		clear(r.tables)
	}
	r.tables[i] = t
	return t, nil
}

func (r *Reader) readL2(i int) ([]l2Entry, error) {
	raw := make([]byte, r.cluster)
	if err := r.read(raw, r.l1[i]); err != nil {
		return nil, fmt.Errorf("read QCOW2 L2 table: %w", err)
	}
	t := make([]l2Entry, r.cluster/8)
	for j := range t {
		at, entry := r.l1[i]+int64(j)*8, binary.BigEndian.Uint64(raw[j*8:])
		host := entry & offsetMask
		switch {
		case entry == 0:
			continue
		case entry&flagCompressed != 0:
			return nil, unsupported("it has compressed clusters")
		case int64(i)*r.span()+int64(j)*r.cluster >= r.Size():
			return nil, broken(at, "a cluster beyond the end of the disk")
		case entry&^(offsetMask|flagCopied|flagZero) != 0:
			return nil, broken(at, "L2 entry %#x has unknown bits", entry)
		case (host != 0) != (entry&flagCopied != 0):
			return nil, broken(at, "L2 entry %#x is not marked as used once", entry)
		}
		t[j].zero = entry&flagZero != 0
		if host != 0 {
			if err := r.checkPlace(at, host, "a cluster"); err != nil {
				return nil, err
			}
			t[j].host = int64(host)
		}
	}
	return t, nil
}

// ReadAt reads from the disk. What was never written reads as zeros.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > r.Size() {
		return 0, fmt.Errorf("read QCOW2 at %d: outside the disk of %d bytes", off, r.Size())
	}
	var end error
	if int64(len(p)) > r.Size()-off {
		p, end = p[:r.Size()-off], io.EOF
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		n := int(min(int64(len(p)-done), r.cluster-at%r.cluster))
		entry, err := r.entry(at)
		if err != nil {
			return done, err
		}
		if piece := p[done : done+n]; entry.host == 0 || entry.zero {
			clear(piece)
		} else if err := r.read(piece, entry.host+at%r.cluster); err != nil {
			return done, fmt.Errorf("read QCOW2 at %d: %w", at, err)
		}
		done += n
	}
	return len(p), end
}

func (r *Reader) entry(at int64) (l2Entry, error) {
	t, err := r.table(int(at / r.span()))
	if err != nil || t == nil {
		return l2Entry{}, err
	}
	return t[at%r.span()/r.cluster], nil
}

// Allocated calls f for every run of bytes of the disk that has a place in the file, in ascending order.
func (r *Reader) Allocated(f func(off, n int64) error) error {
	begin, end := int64(0), int64(0)
	for i := range r.l1 {
		t, err := r.table(i)
		if err != nil {
			return err
		}
		for j, entry := range t {
			if entry.host == 0 || entry.zero {
				continue
			}
			at := int64(i)*r.span() + int64(j)*r.cluster
			if at != end {
				if end > begin {
					if err := f(begin, end-begin); err != nil {
						return err
					}
				}
				begin = at
			}
			end = min(at+r.cluster, r.Size())
		}
	}
	if end > begin {
		return f(begin, end-begin)
	}
	return nil
}
