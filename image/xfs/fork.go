package xfs

import (
	"fmt"
	"sort"

	"github.com/sealboot/sealboot/image/fsys"
)

// extent is a run of blocks of a fork (xfs_bmbt_rec): from a place in the fork to blocks of one group.
type extent struct {
	off, block, count uint64 // in blocks
	unwritten         bool
}

// Sizes of what forks are made of (xfs_format.h).
const (
	extentSize  = 16
	extentsMost = 1 << 18 // what a reader holds
	longHeadV4  = 24      // xfs_btree_block with long pointers
	longHeadV5  = 72
	forkDepth   = 9         // XFS_BTREE_MAXLEVELS
	treeMagicV4 = "BMAP"    // XFS_BMAP_MAGIC
	treeMagicV5 = "BMA3"    // XFS_BMAP_CRC_MAGIC
	offsetMost  = 1<<54 - 1 // the field's width
	sizeMost    = 1<<63 - 1 // of a file
)

// extents calls use for the extents of a fork, in ascending order.
func (f *Reader) extents(r *record, k fork, use func(extent) error) error {
	w := &forkWalk{f: f, r: r, use: use}
	switch k.form {
	case formExtents:
		if k.extents > uint64(len(k.raw)/extentSize) {
			return w.broken("%d extents in %d bytes", k.extents, len(k.raw))
		}
		return w.leaf(k.raw, int(k.extents))
	case formTree:
		if k.extents > extentsMost {
			return fmt.Errorf("xfs inode %d: %d extents are %w", r.number, k.extents, fsys.ErrTooLarge)
		}
		if err := w.root(k.raw); err != nil {
			return err
		}
		if w.seen != k.extents {
			return w.broken("%d extents, its tree has %d", k.extents, w.seen)
		}
		return nil
	}
	return w.broken("a fork of form %d", k.form)
}

// forkWalk goes through the extents of a fork.
type forkWalk struct {
	f    *Reader
	r    *record
	use  func(extent) error
	next uint64 // first offset that no extent has spoken of
	seen uint64
}

func (w *forkWalk) broken(format string, args ...any) error {
	return broken(fmt.Sprintf("inode %d", w.r.number), format, args...)
}

// leaf takes extents. raw has room for them.
func (w *forkWalk) leaf(raw []byte, count int) error {
	for i := range count {
		hi, lo := be.Uint64(raw[i*extentSize:]), be.Uint64(raw[i*extentSize+8:])
		e := extent{off: hi >> 9 & offsetMost, block: hi&0x1ff<<43 | lo>>21, count: lo & (1<<21 - 1), unwritten: hi>>63 != 0}
		if w.seen++; w.seen > extentsMost {
			return fmt.Errorf("xfs inode %d: its extents are %w", w.r.number, fsys.ErrTooLarge)
		}
		if e.count == 0 || e.off < w.next || e.off+e.count > sizeMost>>w.f.super.blockLog {
			return w.broken("%d blocks at %d of its content", e.count, e.off)
		}
		if _, err := w.f.place(e.block, e.count); err != nil {
			return w.broken("%d blocks at %d of its content lie outside the file system", e.count, e.off)
		}
		w.next = e.off + e.count
		if err := w.use(e); err != nil {
			return err
		}
	}
	return nil
}

// root takes the root of a fork's tree, which lies in the inode (xfs_bmdr_block).
func (w *forkWalk) root(raw []byte) error {
	if len(raw) < 4 {
		return w.broken("a tree's root in %d bytes", len(raw))
	}
	level, count, most := int(be.Uint16(raw)), int(be.Uint16(raw[2:])), (len(raw)-4)/16
	if level == 0 || level >= forkDepth || count == 0 || count > most {
		return w.broken("a tree's root of level %d with %d of %d keys", level, count, most)
	}
	return w.node(raw[4:], level, count, most)
}

// node takes keys and, behind the room for all keys, pointers.
func (w *forkWalk) node(raw []byte, level, count, most int) error {
	for i := range count {
		key, child := be.Uint64(raw[i*8:]), be.Uint64(raw[most*8+i*8:])
		if key < w.next {
			return w.broken("keys that do not ascend")
		}
		if err := w.visit(child, level-1, key); err != nil {
			return err
		}
	}
	return nil
}

// visit takes a block of the tree. Since offsets ascend and every block has some, none is visited twice.
func (w *forkWalk) visit(block uint64, level int, key uint64) error {
	s := w.f.super
	b := make([]byte, s.blockSize)
	if err := w.f.readBlocks(b, block); err != nil {
		return err
	}
	magic, head := treeMagicV4, longHeadV4
	if s.v5() {
		magic, head = treeMagicV5, longHeadV5
		if err := w.f.verify(b, longTreeHeader, block, w.r.number); err != nil {
			return err
		}
	}
	count, most := int(be.Uint16(b[6:])), (len(b)-head)/16
	if string(b[:4]) != magic || int(be.Uint16(b[4:])) != level || count == 0 || count > most {
		return w.broken("block %d is no block of its tree at level %d", block, level)
	}
	first := be.Uint64(b[head:])
	if level == 0 {
		first = first >> 9 & offsetMost
	}
	if first != key {
		return w.broken("block %d begins with offset %d, not %d", block, first, key)
	}
	if level == 0 {
		return w.leaf(b[head:], count)
	}
	return w.node(b[head:], level, count, most)
}

// contentBlocks reads some blocks of a fork from an offset on, which must all be there, as one piece; extents are the fork's.
func (f *Reader) contentBlocks(r *record, extents []extent, off, count uint64) (b []byte, first uint64, err error) {
	b = make([]byte, 0, count<<f.super.blockLog)
	i := sort.Search(len(extents), func(i int) bool { return extents[i].off+extents[i].count > off })
	for _, e := range extents[i:] {
		if e.off > off || e.unwritten {
			break
		}
		n := min(count, e.off+e.count-off)
		if len(b) == 0 {
			first = e.block + off - e.off
		}
		part := b[len(b):][:n<<f.super.blockLog]
		if err := f.readBlocks(part, e.block+off-e.off); err != nil {
			return nil, 0, err
		}
		b = b[:len(b)+len(part)]
		if off, count = off+n, count-n; count == 0 {
			return b, first, nil
		}
	}
	return nil, 0, broken(fmt.Sprintf("inode %d", r.number), "no block at %d", off)
}
