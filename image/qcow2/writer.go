package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
)

// File is what a Writer writes to: an empty file, which reads as zeros where it was not written.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// Options says how a Writer lays its image out.
type Options struct {
	// ClusterSize is the unit of allocation: a power of two from SmallestCluster to LargestCluster. 0: ClusterSize.
	ClusterSize int64
	// MapAll gives each cluster of the disk its place at once, in the disk's order, whether it is written to or not:
	// what qemu-img calls preallocation of metadata.
	MapAll bool
}

// Validate says what is wrong with the options for a disk of size bytes.
func (o Options) Validate(size int64) error {
	cluster := o.cluster()
	if cluster < SmallestCluster || cluster > LargestCluster || cluster&(cluster-1) != 0 {
		return fmt.Errorf("write QCOW2: clusters of %d bytes: want a power of two from %d to %d", cluster, SmallestCluster, LargestCluster)
	}
	most := min(MaxSize, writerL1/8*(cluster/8*cluster))
	if size <= 0 || size > most || size%512 != 0 {
		return fmt.Errorf("write QCOW2: a disk of %d bytes with clusters of %d: want a multiple of 512 up to %d", size, cluster, most)
	}
	return nil
}

func (o Options) cluster() int64 {
	if o.ClusterSize == 0 {
		return ClusterSize
	}
	return o.ClusterSize
}

// Writer makes an image. Its methods may be called by several goroutines; writes to the same
// place at the same time leave either's bytes there.
type Writer struct {
	out     File
	size    int64
	cluster int64 // bytes
	span    int64 // bytes of the disk that an L2 table describes

	mu     sync.Mutex
	next   int64      // where in the file the next cluster goes
	tables [][]uint32 // per L1 entry: nil, or the number of each cluster in the file, 0 where there is none
	used   int64      // clusters allocated
	closed bool
}

// NewWriter begins the image of a disk of size bytes in out, which must be empty.
func NewWriter(out File, size int64) (*Writer, error) { return NewWriterWith(out, size, Options{}) }

// NewWriterWith begins an image that is laid out as the options say.
func NewWriterWith(out File, size int64, o Options) (*Writer, error) {
	if err := o.Validate(size); err != nil {
		return nil, err
	}
	w := &Writer{out: out, size: size, cluster: o.cluster()}
	w.span = w.cluster / 8 * w.cluster
	w.next = w.cluster // the header's cluster comes first
	w.tables = make([][]uint32, (size+w.span-1)/w.span)
	if o.MapAll {
		return w, w.Reserve(0, size)
	}
	return w, nil
}

// Size gives the size of the disk.
func (w *Writer) Size() int64 { return w.size }

// Allocated gives the bytes of the disk that have a place in the file.
func (w *Writer) Allocated() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.used * w.cluster
}

// FileSize gives the bytes of the file up to now, without the tables, which Close writes behind the rest.
func (w *Writer) FileSize() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

// Reserve gives the clusters that hold n bytes at off their places in the file, in ascending order.
func (w *Writer) Reserve(off, n int64) error {
	return w.each(off, n, true, func(_, _, _ int64) error { return nil })
}

// WriteAt writes to the disk. The rest of a cluster that is begun reads as zeros.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	done := 0
	err := w.each(off, int64(len(p)), true, func(host, from, n int64) error {
		if n == 0 {
			return nil
		}
		k, err := w.out.WriteAt(p[from:from+n], host)
		done += k
		return err
	})
	return done, err
}

// ReadAt reads back what was written; the rest reads as zeros.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > w.size {
		return 0, fmt.Errorf("read QCOW2 at %d: outside the disk of %d bytes", off, w.size)
	}
	var end error
	if int64(len(p)) > w.size-off {
		p, end = p[:w.size-off], io.EOF
	}
	clear(p)
	err := w.each(off, int64(len(p)), false, func(host, from, n int64) error {
		if _, err := w.out.ReadAt(p[from:from+n], host); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), end
}

// each calls f for every run of [off, off+n) that is contiguous in the file: its place there,
// where it begins within the range, and its length. Without allocate, clusters without a place are left out.
func (w *Writer) each(off, n int64, allocate bool, f func(host, from, n int64) error) error {
	if off < 0 || n < 0 || off > w.size || n > w.size-off {
		return fmt.Errorf("write QCOW2: %d bytes at %d do not fit in a disk of %d bytes", n, off, w.size)
	}
	for from := int64(0); from < n; {
		host, run, err := w.run(off+from, n-from, allocate)
		if err != nil {
			return err
		}
		if host != 0 {
			if err := f(host, from, run); err != nil {
				return err
			}
		}
		from += run
	}
	return nil
}

// run finds the place of off and how many of n bytes follow it without a gap. Place 0 is none.
func (w *Writer) run(off, n int64, allocate bool) (host, length int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, 0, ErrClosed
	}
	host = w.place(off, allocate)
	length = min(n, w.cluster-off%w.cluster)
	if host == 0 {
		return 0, length, nil
	}
	for length < n && w.place(off+length, allocate) == host+length {
		length += min(n-length, w.cluster)
	}
	return host, length, nil
}

// place gives off's place in the file, made if asked for.
func (w *Writer) place(off int64, allocate bool) int64 {
	table := w.tables[off/w.span]
	if table == nil {
		if !allocate {
			return 0
		}
		table = make([]uint32, w.cluster/8)
		w.tables[off/w.span] = table
	}
	i := off % w.span / w.cluster
	if table[i] == 0 {
		if !allocate {
			return 0
		}
		table[i] = uint32(w.next / w.cluster) // fits: see MaxSize
		w.next += w.cluster
		w.used++
	}
	return int64(table[i])*w.cluster + off%w.cluster
}

// Close writes the tables and, last of all, the header: a file that was not finished is no
// image. All writes must have returned. It neither syncs nor closes the file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrClosed
	}
	w.closed = true
	if err := w.finish(); err != nil {
		return fmt.Errorf("write QCOW2: %w", err)
	}
	return nil
}

func (w *Writer) finish() error {
	l1 := make([]byte, roundUp(int64(len(w.tables))*8, w.cluster))
	block := make([]byte, w.cluster)
	for i, table := range w.tables {
		if table == nil {
			continue
		}
		clear(block)
		for j, host := range table {
			if host != 0 {
				binary.BigEndian.PutUint64(block[j*8:], uint64(host)*uint64(w.cluster)|flagCopied)
			}
		}
		binary.BigEndian.PutUint64(l1[i*8:], uint64(w.next)|flagCopied)
		if err := w.append(block); err != nil {
			return err
		}
	}
	h := header{clusterBits: uint32(bits.TrailingZeros64(uint64(w.cluster))), size: uint64(w.size), l1Entries: uint32(len(w.tables)), l1Offset: uint64(w.next), length: headerSize}
	if err := w.append(l1); err != nil {
		return err
	}
	if err := w.refcounts(&h); err != nil {
		return err
	}
	if err := w.out.Truncate(w.next); err != nil {
		return err
	}
	_, err := w.out.WriteAt(h.encode(), 0)
	return err
}

// refcounts writes the reference count table and its blocks: every cluster of the file,
// their own included, is used exactly once.
func (w *Writer) refcounts(h *header) error {
	before, span := w.next/w.cluster, w.cluster/2 // a block describes so many clusters
	blocks, tables := int64(0), int64(0)
	for { // both count themselves
		needBlocks := (before + blocks + tables + span - 1) / span
		needTables := (needBlocks*8 + w.cluster - 1) / w.cluster
		if needBlocks == blocks && needTables == tables {
			break
		}
		blocks, tables = needBlocks, needTables
	}
	h.refcountOffset, h.refcountClusters = uint64(w.next), uint32(tables)
	table := make([]byte, tables*w.cluster)
	for i := range blocks {
		binary.BigEndian.PutUint64(table[i*8:], uint64(w.next+(tables+i)*w.cluster))
	}
	if err := w.append(table); err != nil {
		return err
	}
	block := make([]byte, w.cluster)
	for left := before + blocks + tables; left > 0; left -= span {
		clear(block)
		for i := range min(left, span) {
			binary.BigEndian.PutUint16(block[i*2:], 1)
		}
		if err := w.append(block); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) append(p []byte) error {
	_, err := w.out.WriteAt(p, w.next)
	w.next += int64(len(p))
	return err
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
