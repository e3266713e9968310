package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// File is what a Writer writes to: an empty file, which reads as zeros where it was not written.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

const (
	l2Entries    = ClusterSize / 8
	l2Span       = ClusterSize * l2Entries // bytes of the disk that an L2 table describes
	refcountSpan = ClusterSize / 2         // clusters of the file that a reference count block describes
)

// Writer makes an image. Its methods may be called by several goroutines; writes to the same
// place at the same time leave either's bytes there.
type Writer struct {
	out  File
	size int64

	mu     sync.Mutex
	next   int64      // where in the file the next cluster goes
	tables [][]uint64 // per L1 entry: nil, or the file offset of each cluster, 0 where there is none
	used   int64      // clusters allocated
	closed bool
}

// NewWriter begins the image of a disk of size bytes in out, which must be empty.
func NewWriter(out File, size int64) (*Writer, error) {
	if size <= 0 || size > MaxSize || size%512 != 0 {
		return nil, fmt.Errorf("write QCOW2: a disk of %d bytes: want a multiple of 512 up to %d", size, int64(MaxSize))
	}
	return &Writer{
		out: out, size: size, next: ClusterSize, // the header's cluster comes first
		tables: make([][]uint64, (size+l2Span-1)/l2Span),
	}, nil
}

// Size gives the size of the disk.
func (w *Writer) Size() int64 { return w.size }

// Allocated gives the bytes of the disk that have a place in the file.
func (w *Writer) Allocated() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.used * ClusterSize
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
	length = min(n, ClusterSize-off%ClusterSize)
	if host == 0 {
		return 0, length, nil
	}
	for length < n && w.place(off+length, allocate) == host+length {
		length += min(n-length, ClusterSize)
	}
	return host, length, nil
}

// place gives off's place in the file, made if asked for.
func (w *Writer) place(off int64, allocate bool) int64 {
	table := w.tables[off/l2Span]
	if table == nil {
		if !allocate {
			return 0
		}
		table = make([]uint64, l2Entries)
		w.tables[off/l2Span] = table
	}
	i := off % l2Span / ClusterSize
	if table[i] == 0 {
		if !allocate {
			return 0
		}
		table[i] = uint64(w.next)
		w.next += ClusterSize
		w.used++
	}
	return int64(table[i]) + off%ClusterSize
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
	l1 := make([]byte, roundUp(int64(len(w.tables))*8, ClusterSize))
	block := make([]byte, ClusterSize)
	for i, table := range w.tables {
		if table == nil {
			continue
		}
		clear(block)
		for j, host := range table {
			if host != 0 {
				binary.BigEndian.PutUint64(block[j*8:], host|flagCopied)
			}
		}
		binary.BigEndian.PutUint64(l1[i*8:], uint64(w.next)|flagCopied)
		if err := w.append(block); err != nil {
			return err
		}
	}
	h := header{clusterBits: clusterBits, size: uint64(w.size), l1Entries: uint32(len(w.tables)), l1Offset: uint64(w.next), length: headerSize}
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
	before := w.next / ClusterSize
	blocks, tables := int64(0), int64(0)
	for { // both count themselves
		needBlocks := (before + blocks + tables + refcountSpan - 1) / refcountSpan
		needTables := (needBlocks*8 + ClusterSize - 1) / ClusterSize
		if needBlocks == blocks && needTables == tables {
			break
		}
		blocks, tables = needBlocks, needTables
	}
	h.refcountOffset, h.refcountClusters = uint64(w.next), uint32(tables)
	table := make([]byte, tables*ClusterSize)
	for i := range blocks {
		binary.BigEndian.PutUint64(table[i*8:], uint64(w.next+(tables+i)*ClusterSize))
	}
	if err := w.append(table); err != nil {
		return err
	}
	block := make([]byte, ClusterSize)
	for left := before + blocks + tables; left > 0; left -= refcountSpan {
		clear(block)
		for i := range min(left, refcountSpan) {
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
