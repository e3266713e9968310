package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// Reader reads the disk in an image, which must not change meanwhile. It may be used by
// several goroutines. It holds the L1 table (8 bytes for each 512 MiB of a usual disk, at most 32 MiB) and
// a few MiB of L2 tables and decompressed clusters, whatever the image says.
type Reader struct {
	file     io.ReaderAt
	fileSize int64
	header   header
	cluster  int64   // bytes in a cluster
	l1       []int64 // file offsets of L2 tables, 0 where there is none

	mu     sync.Mutex
	tables map[int][]l2Entry // a few L2 tables, checked
	unpack unpacker
}

// l2Entry says where a cluster is. Each bit of present is for one subcluster, a 32nd of the cluster:
// whether it is read from the file; what is not present reads as zeros.
type l2Entry struct {
	host    int64 // file offset, 0 for none
	present uint32
	packed  int32 // bytes at host that hold the compressed cluster, 0 if it is not compressed
}

const (
	subclusters = 32 // specification, "Extended L2 Entries"
	whole       = 1<<subclusters - 1

	tablesKept = 8 << 20 // bytes of L2 tables that a Reader keeps
)

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
	r.unpack = unpacker{cluster: r.cluster, zstd: h.zstd}
	if r.l1, err = r.readL1(false); err != nil {
		return nil, err
	}
	return r, nil
}

// Size gives the size of the disk.
func (r *Reader) Size() int64 { return int64(r.header.size) }

// ClusterSize gives the unit in which the image allocates.
func (r *Reader) ClusterSize() int64 { return r.cluster }

// readL1 reads the L1 table. A table may go on behind the disk's end, as after qemu-img resize --shrink,
// and its L2 tables may be shared with snapshots: not so a plain image's.
func (r *Reader) readL1(plain bool) ([]int64, error) {
	h := r.header
	switch span := uint64(r.span()); {
	case h.size%512 != 0 || h.size > 1<<62:
		return nil, broken(24, "a disk of %d bytes", h.size)
	case int64(h.l1Entries)*8 > maxL1:
		return nil, broken(36, "an L1 table of %d entries", h.l1Entries)
	case (h.size+span-1)/span > uint64(h.l1Entries):
		return nil, broken(36, "an L1 table of %d entries for a disk of %d bytes", h.l1Entries, h.size)
	}
	if h.l1Entries == 0 {
		return nil, nil
	}
	if err := r.checkPlace(40, h.l1Offset, "the L1 table"); err != nil {
		return nil, err
	}
	raw := make([]byte, int64(h.l1Entries)*8)
	if err := r.read(raw, int64(h.l1Offset)); err != nil {
		return nil, fmt.Errorf("read QCOW2 L1 table: %w", err)
	}
	l1 := make([]int64, (int64(h.size)+r.span()-1)/r.span())
	var used []int64
	for i := range int(h.l1Entries) {
		at, entry := int64(h.l1Offset)+int64(i)*8, binary.BigEndian.Uint64(raw[i*8:])
		switch {
		case entry == 0:
			continue
		case i >= len(l1) && plain:
			return nil, broken(at, "an L2 table beyond the end of the disk")
		case i >= len(l1):
			continue
		case entry&^(offsetMask|flagCopied) != 0:
			return nil, broken(at, "L1 entry %#x has unknown bits", entry)
		case plain && entry&flagCopied == 0:
			return nil, broken(at, "L1 entry %#x is not marked as used once", entry)
		}
		if err := r.checkPlace(at, entry&offsetMask, "an L2 table"); err != nil {
			return nil, err
		}
		l1[i] = int64(entry & offsetMask)
		used = append(used, l1[i])
	}
	// A table that stands for many parts of the disk would make a small file a boundless one.
	slices.Sort(used)
	for i := 1; i < len(used); i++ {
		if used[i] == used[i-1] {
			return nil, broken(used[i], "this L2 table is used twice")
		}
	}
	return l1, nil
}

// entrySize is the size of an L2 entry.
func (r *Reader) entrySize() int64 {
	if r.header.extendedL2 {
		return 16
	}
	return 8
}

// span is how much of the disk one L2 table describes.
func (r *Reader) span() int64 { return r.cluster * (r.cluster / r.entrySize()) }

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
		if err := r.readCluster(p[done:done+n], at%r.cluster, entry); err != nil {
			return done, fmt.Errorf("read QCOW2 at %d: %w", at, err)
		}
		done += n
	}
	return len(p), end
}

// readCluster reads a part of a cluster, from byte at of it.
func (r *Reader) readCluster(p []byte, at int64, entry l2Entry) error {
	switch {
	case entry.present == 0:
		clear(p)
		return nil
	case entry.packed != 0:
		return r.readPacked(p, at, entry)
	case entry.present == whole:
		return r.read(p, entry.host+at)
	}
	for size := r.cluster / subclusters; len(p) > 0; {
		n := min(int64(len(p)), size-at%size)
		if entry.present>>(at/size)&1 == 0 {
			clear(p[:n])
		} else if err := r.read(p[:n], entry.host+at); err != nil {
			return err
		}
		p, at = p[n:], at+n
	}
	return nil
}

func (r *Reader) entry(at int64) (l2Entry, error) {
	t, err := r.table(int(at / r.span()))
	if err != nil || t == nil {
		return l2Entry{}, err
	}
	return t[at%r.span()/r.cluster], nil
}

// Allocated calls f for every run of bytes of the disk that has a place in the file, in ascending order.
// All else reads as zeros.
func (r *Reader) Allocated(f func(off, n int64) error) error {
	begin, end := int64(0), int64(0)
	add := func(at, n int64) error {
		if at != end {
			if end > begin {
				if err := f(begin, end-begin); err != nil {
					return err
				}
			}
			begin = at
		}
		end = min(at+n, r.Size())
		return nil
	}
	for i := range r.l1 {
		t, err := r.table(i)
		if err != nil {
			return err
		}
		for j, entry := range t {
			at, size := int64(i)*r.span()+int64(j)*r.cluster, r.cluster
			if entry.present == 0 || at >= r.Size() {
				continue
			}
			if entry.present == whole {
				if err := add(at, size); err != nil {
					return err
				}
				continue
			}
			size /= subclusters
			for k := range int64(subclusters) {
				if entry.present>>k&1 == 0 || at+k*size >= r.Size() {
					continue
				}
				if err := add(at+k*size, size); err != nil {
					return err
				}
			}
		}
	}
	if end > begin {
		return f(begin, end-begin)
	}
	return nil
}
