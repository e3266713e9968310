package qcow2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrNotInPlace says that a part of the disk cannot be written where it lies.
var ErrNotInPlace = errors.New("image cannot be changed in place")

// SyncFile is an image file that is changed: an *os.File. Sync makes durable all that was written before.
type SyncFile interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// InPlace writes to the disk in an image that is already there: a few clusters, as those of a LUKS header. Nobody else
// may have the image open.
//
// Bytes that have a place in the file are written there, if the place is theirs alone: no compressed cluster, none that
// a snapshot shares, none whose reference count is not one. Others get a place first, in this order, with a sync
// between: reference counts and zeros as content; the entry of the L2 table. Whenever the power goes, and whichever
// sectors of a write reached the device, every reference has its count. What can stay behind are clusters with a count
// and no reference (Summary.Leaked), which hurt nobody; the same change, made again, takes the same ones.
//
// A Reader that was opened before does not see the changes.
type InPlace struct {
	file   SyncFile
	r      *Reader
	used   *clusterMap
	taken  map[int64]bool // clusters that this InPlace gave out
	blocks []int64        // places of reference count blocks, 0 where there is none
}

// NewInPlace begins to change the image that r reads from file.
func NewInPlace(ctx context.Context, file SyncFile, r *Reader) (*InPlace, error) {
	w := &InPlace{file: file, r: r, taken: map[int64]bool{}}
	if r.header.odd != nil {
		return nil, fmt.Errorf("%w: %w (qemu-img convert -O qcow2 makes one that can)", ErrNotInPlace, r.header.odd)
	}
	head := make([]byte, headerSize)
	if err := r.read(head, 0); err != nil {
		return nil, fmt.Errorf("read QCOW2 header: %w", err)
	}
	be := binary.BigEndian
	if be.Uint32(head[4:]) != 3 || be.Uint64(head[72:]) != 0 || be.Uint64(head[88:]) != 0 || be.Uint32(head[96:]) != 4 ||
		be.Uint32(head[60:]) != 0 || be.Uint64(head[8:]) != 0 {
		return nil, fmt.Errorf("%w: only plain images of version 3 are (qemu-img convert -O qcow2 makes one)", ErrNotInPlace)
	}
	total := (r.fileSize + r.cluster - 1) / r.cluster
	if total > maxClusters {
		return nil, unsupported("%d clusters", total)
	}
	w.used = &clusterMap{bits: make([]uint64, (total+63)/64), cluster: r.cluster, total: total}
	if err := r.mark(ctx, w.used, &Summary{}); err != nil {
		return nil, err
	}
	if err := r.compareCounts(ctx, w.used, &Summary{}); err != nil { // marks the blocks of counts too
		return nil, err
	}
	table := make([]byte, int64(r.header.refcountClusters)*r.cluster)
	if err := r.read(table, int64(r.header.refcountOffset)); err != nil {
		return nil, fmt.Errorf("read QCOW2 reference counts: %w", err)
	}
	for ; len(table) > 0; table = table[8:] {
		w.blocks = append(w.blocks, int64(be.Uint64(table)))
	}
	return w, nil
}

// Sync makes durable what was written.
func (w *InPlace) Sync() error {
	return w.file.Sync()
}

// WriteAt writes to the disk. Places that it gives out are durable before it writes there.
func (w *InPlace) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > w.r.Size() || int64(len(p)) > w.r.Size()-off {
		return 0, fmt.Errorf("write QCOW2: %d bytes at %d do not fit in a disk of %d bytes", len(p), off, w.r.Size())
	}
	cluster := w.r.cluster
	for at := off / cluster * cluster; at < off+int64(len(p)); at += w.r.span() - at%w.r.span() {
		if err := w.reserve(at, min(off+int64(len(p)), at+w.r.span()-at%w.r.span())); err != nil {
			return 0, err
		}
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		n := int(min(int64(len(p)-done), cluster-at%cluster))
		table, err := w.table(at)
		if err != nil {
			return done, err
		}
		_, entry, err := w.entry(table, at)
		if err != nil {
			return done, err
		}
		if err := w.write(p[done:done+n], int64(entry&offsetMask)+at%cluster); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// reserve gives all clusters from at up to end, which one L2 table describes, places of their own.
func (w *InPlace) reserve(at, end int64) error {
	table, err := w.table(at)
	if err != nil {
		return err
	}
	if table == 0 {
		if table, err = w.newTable(at); err != nil {
			return err
		}
	}
	first := at
	entries := []byte{}
	changed := false
	for ; at < end; at += w.r.cluster {
		_, entry, err := w.entry(table, at)
		if err != nil {
			return err
		}
		if entry&offsetMask == 0 || entry&flagZero != 0 {
			place := int64(entry & offsetMask)
			if place == 0 {
				if place, err = w.take(); err != nil {
					return err
				}
			}
			if err := w.write(make([]byte, w.r.cluster), place); err != nil {
				return err
			}
			entry, changed = uint64(place)|flagCopied, true
		}
		entries = binary.BigEndian.AppendUint64(entries, entry)
	}
	if !changed {
		return nil
	}
	if err := w.Sync(); err != nil {
		return err
	}
	if err := w.write(entries, w.entryPlace(table, first)); err != nil {
		return err
	}
	return w.Sync()
}

// table gives the place of the L2 table that describes at, 0 if there is none.
func (w *InPlace) table(at int64) (int64, error) {
	place := int64(w.r.header.l1Offset) + at/w.r.span()*8
	entry, err := w.uint64(place)
	if err != nil {
		return 0, err
	}
	if entry == 0 {
		return 0, nil
	}
	return int64(entry & offsetMask), w.own(place, entry, "an L2 table")
}

func (w *InPlace) newTable(at int64) (int64, error) {
	table, err := w.take()
	if err != nil {
		return 0, err
	}
	if err := w.write(make([]byte, w.r.cluster), table); err != nil {
		return 0, err
	}
	if err := w.file.Sync(); err != nil {
		return 0, err
	}
	if err := w.put64(uint64(table)|flagCopied, int64(w.r.header.l1Offset)+at/w.r.span()*8); err != nil {
		return 0, err
	}
	return table, w.Sync()
}

func (w *InPlace) entryPlace(table, at int64) int64 { return table + at%w.r.span()/w.r.cluster*8 }

// entry reads an entry of an L2 table, and refuses what has its place not for itself.
func (w *InPlace) entry(table, at int64) (place int64, entry uint64, err error) {
	place = w.entryPlace(table, at)
	if entry, err = w.uint64(place); err != nil {
		return 0, 0, err
	}
	if entry&flagCompressed != 0 {
		return 0, 0, fmt.Errorf("%w: at %d of the disk it is compressed (qemu-img convert -O qcow2 undoes that)", ErrNotInPlace, at)
	}
	if entry&offsetMask != 0 {
		return place, entry, w.own(place, entry, "a cluster")
	}
	return place, entry, nil
}

// own checks that what an entry at a place of the file names is used once.
func (w *InPlace) own(at int64, entry uint64, what string) error {
	host := int64(entry & offsetMask)
	if host%w.r.cluster != 0 {
		return broken(at, "%s at %#x", what, host)
	}
	count, err := w.count(host / w.r.cluster)
	if err != nil {
		return err
	}
	if count != 1 || entry&flagCopied == 0 {
		return fmt.Errorf("%w: %s at %#x of the file is used %d times, by a snapshot perhaps (qemu-img convert -O qcow2 makes an image without)", ErrNotInPlace, what, host, count)
	}
	return nil
}

// take finds a cluster of the file that nothing uses and counts it. What it holds is not said.
func (w *InPlace) take() (int64, error) {
	perBlock := w.r.cluster / 2
	for i := int64(1); i < int64(len(w.blocks))*perBlock; i++ {
		if w.used.has(i) || w.taken[i] {
			continue
		}
		if w.blocks[i/perBlock] == 0 {
			if err := w.newBlock(i, perBlock); err != nil {
				return 0, err
			}
			continue // it took this one
		}
		w.taken[i] = true
		return i * w.r.cluster, w.write([]byte{0, 1}, w.blocks[i/perBlock]+i%perBlock*2)
	}
	return 0, fmt.Errorf("%w: its table of reference counts is full (qemu-img convert -O qcow2 makes an image with a larger one)", ErrNotInPlace)
}

// newBlock makes a block of reference counts for clusters that have none so far, in the first of them.
func (w *InPlace) newBlock(i, perBlock int64) error {
	if i%perBlock != 0 { // compareCounts would have found a used one before it
		return broken(i*w.r.cluster, "this cluster is used, but has no reference count")
	}
	block := make([]byte, w.r.cluster)
	binary.BigEndian.PutUint16(block, 1)
	place := i * w.r.cluster
	if err := w.write(block, place); err != nil {
		return err
	}
	if err := w.Sync(); err != nil {
		return err
	}
	if err := w.put64(uint64(place), int64(w.r.header.refcountOffset)+i/perBlock*8); err != nil {
		return err
	}
	if err := w.Sync(); err != nil {
		return err
	}
	w.taken[i], w.blocks[i/perBlock] = true, place
	return nil
}

// count reads a reference count.
func (w *InPlace) count(i int64) (uint16, error) {
	perBlock := w.r.cluster / 2
	if i/perBlock >= int64(len(w.blocks)) || w.blocks[i/perBlock] == 0 {
		return 0, nil
	}
	b := make([]byte, 2)
	if err := w.r.read(b, w.blocks[i/perBlock]+i%perBlock*2); err != nil {
		return 0, fmt.Errorf("read QCOW2 reference counts: %w", err)
	}
	return binary.BigEndian.Uint16(b), nil
}

func (w *InPlace) uint64(at int64) (uint64, error) {
	b := make([]byte, 8)
	if err := w.r.read(b, at); err != nil {
		return 0, fmt.Errorf("read QCOW2 table: %w", err)
	}
	return binary.BigEndian.Uint64(b), nil
}

func (w *InPlace) put64(v uint64, at int64) error {
	return w.write(binary.BigEndian.AppendUint64(nil, v), at)
}

func (w *InPlace) write(p []byte, at int64) error {
	if _, err := w.file.WriteAt(p, at); err != nil {
		return fmt.Errorf("write QCOW2: %w", err)
	}
	return nil
}
