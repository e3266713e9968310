package btrfs

import (
	"cmp"
	"fmt"
	"sort"

	"github.com/sealboot/sealboot/image/fsys"
)

// Sizes of btrfs_disk_key, btrfs_header, btrfs_item and btrfs_key_ptr.
const (
	keySize     = 17
	headSize    = 101
	itemSize    = 25
	pointerSize = 33
	levelsMost  = 8       // BTRFS_MAX_LEVEL
	cacheMost   = 4 << 20 // bytes of tree blocks
)

// key is btrfs_key.
type key struct {
	object uint64
	kind   uint8
	offset uint64
}

func decodeKey(b []byte) (key, bool) {
	if len(b) < keySize {
		return key{}, false
	}
	return key{le.Uint64(b), b[8], le.Uint64(b[9:])}, true
}

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.object, o.object), cmp.Compare(k.kind, o.kind), cmp.Compare(k.offset, o.offset))
}

// block reads a tree block and checks it. First is its first key by the level above, if that says it.
func (f *Reader) block(p pointer, first *key) ([]byte, error) {
	f.mutex.Lock()
	b := f.blocks[p.address]
	f.mutex.Unlock()
	if b == nil {
		var err error
		if b, err = f.readBlock(p.address); err != nil {
			return nil, err
		}
		f.mutex.Lock()
		if len(f.blocks) >= cacheMost/int(f.super.nodeSize) {
			clear(f.blocks)
		}
		f.blocks[p.address] = b
		f.mutex.Unlock()
	}
	where := fmt.Sprintf("tree block %d", p.address)
	if int(b[100]) != p.level || le.Uint64(b[80:]) != p.generation {
		return nil, broken(where, "level %d and generation %d, not %d and %d", b[100], le.Uint64(b[80:]), p.level, p.generation)
	}
	if first != nil {
		if k, _ := decodeKey(b[headSize:]); le.Uint32(b[96:]) == 0 || k != *first {
			return nil, broken(where, "does not begin with the key that leads to it")
		}
	}
	return b, nil
}

// readBlock reads a tree block, from its second place if the first has not the right one, and checks what it holds.
func (f *Reader) readBlock(address uint64) ([]byte, error) {
	where := fmt.Sprintf("tree block %d", address)
	size := uint64(f.super.nodeSize)
	if address%uint64(f.super.sectorSize) != 0 {
		return nil, broken(where, "at no sector's begin")
	}
	places, err := f.places(address, size)
	if err != nil {
		return nil, err
	}
	for _, place := range places {
		b := make([]byte, size)
		if _, err = fsys.ReadAt(f.r, b, int64(place)); err != nil {
			err = fmt.Errorf("read btrfs %s: %w", where, err)
			continue
		}
		switch {
		case !f.super.sum.right(b, b[sumSize:]):
			err = broken(where, "wrong checksum")
		case [16]byte(b[32:]) != f.super.metaUUID:
			err = broken(where, "belongs to another file system")
		case le.Uint64(b[48:]) != address:
			err = broken(where, "says that it is %d", le.Uint64(b[48:]))
		default:
			return b, checkBlock(b, where)
		}
	}
	return nil, err
}

// checkBlock looks whether keys ascend and items lie behind them, apart from each other.
func checkBlock(b []byte, where string) error {
	count, level := int64(le.Uint32(b[96:])), int(b[100])
	width := int64(itemSize)
	if level > 0 {
		width = pointerSize
	}
	if level >= levelsMost || count > (int64(len(b))-headSize)/width || level > 0 && count == 0 {
		return broken(where, "%d items at level %d", count, level)
	}
	var last key
	end := int64(len(b)) - headSize
	for i := range count {
		at := b[headSize+i*width:]
		k, _ := decodeKey(at)
		if i > 0 && k.compare(last) <= 0 {
			return broken(where, "keys that do not ascend")
		}
		last = k
		if level > 0 {
			continue
		}
		off, size := int64(le.Uint32(at[17:])), int64(le.Uint32(at[21:]))
		if off < count*width || off+size > end {
			return broken(where, "an item of %d bytes at %d", size, off)
		}
		end = off
	}
	return nil
}

// walk calls use for the items of a tree from a key on, in ascending order, until use says that it is enough.
func (f *Reader) walk(root pointer, from key, use func(key, []byte) (bool, error)) error {
	w := &treeWalk{f: f, from: from, use: use}
	_, err := w.visit(root, nil)
	return err
}

type treeWalk struct {
	f    *Reader
	from key
	use  func(key, []byte) (bool, error)
	last *key // of the items that were passed
}

// visit takes a tree block. Since keys ascend over the whole tree, and no block but an empty root is without any, none is visited twice.
func (w *treeWalk) visit(p pointer, first *key) (more bool, err error) {
	b, err := w.f.block(p, first)
	if err != nil {
		return false, err
	}
	count, width := int(le.Uint32(b[96:])), itemSize
	if p.level > 0 {
		width = pointerSize
	}
	at := func(i int) key { k, _ := decodeKey(b[headSize+i*width:]); return k }
	i := sort.Search(count, func(i int) bool { return at(i).compare(w.from) >= 0 })
	if p.level > 0 && i > 0 && (i == count || at(i).compare(w.from) > 0) {
		i-- // the key may be below the block before
	}
	for ; i < count; i++ {
		k := at(i)
		if p.level > 0 {
			if w.last != nil && k.compare(*w.last) <= 0 {
				return false, broken(fmt.Sprintf("tree block %d", p.address), "keys that do not ascend")
			}
			raw := b[headSize+i*width+keySize:]
			if more, err := w.visit(pointer{le.Uint64(raw), le.Uint64(raw[8:]), p.level - 1}, &k); err != nil || !more {
				return false, err
			}
			continue
		}
		if w.last != nil && k.compare(*w.last) <= 0 {
			return false, broken(fmt.Sprintf("tree block %d", p.address), "keys that do not ascend")
		}
		w.last = &k
		item := b[headSize+i*width+keySize:]
		off, size := headSize+int(le.Uint32(item)), int(le.Uint32(item[4:]))
		if more, err := w.use(k, b[off:off+size:off+size]); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// one gives the first item of an object and type, from an offset on; nil where there is none.
func (f *Reader) one(root pointer, from key) (found []byte, at key, err error) {
	err = f.walk(root, from, func(k key, b []byte) (bool, error) {
		if k.object == from.object && k.kind == from.kind {
			found, at = b, k
		}
		return false, nil
	})
	return found, at, err
}

// floor gives the last item whose key is not behind k; nil where there is none.
func (f *Reader) floor(p pointer, k key) ([]byte, key, error) {
	var first *key
	for {
		b, err := f.block(p, first)
		if err != nil {
			return nil, key{}, err
		}
		count, width := int(le.Uint32(b[96:])), itemSize
		if p.level > 0 {
			width = pointerSize
		}
		at := func(i int) key { k, _ := decodeKey(b[headSize+i*width:]); return k }
		i := sort.Search(count, func(i int) bool { return at(i).compare(k) > 0 }) - 1
		if i < 0 {
			return nil, key{}, nil
		}
		found := at(i)
		raw := b[headSize+i*width+keySize:]
		if p.level == 0 {
			off, size := headSize+int(le.Uint32(raw)), int(le.Uint32(raw[4:]))
			return b[off : off+size : off+size], found, nil
		}
		p, first = pointer{le.Uint64(raw), le.Uint64(raw[8:]), p.level - 1}, &found
	}
}
