package ext4

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/sealboot/sealboot/image/source"
)

// xattrPrefixes are the names' beginnings that a number stands for (e_name_index).
var xattrPrefixes = []struct {
	index  uint8
	prefix string
	whole  bool // nothing follows
}{
	{1, "user.", false},
	{2, "system.posix_acl_access", true},
	{3, "system.posix_acl_default", true},
	{4, "trusted.", false},
	{6, "security.", false},
}

const (
	xattrEntryHead = 16 // of struct ext4_xattr_entry before the name
	xattrHeader    = 32 // of struct ext4_xattr_header, at the beginning of a block
	xattrEnd       = 4  // zero bytes behind the last entry
	xattrInside    = inodeSize - inodeBase - extraSize
)

// xattr is an attribute in its form on disk.
type xattr struct {
	index uint8
	name  string
	value []byte
}

func (x xattr) entrySize() int { return xattrEntryHead + (len(x.name)+3)&^3 }

func (x xattr) size() int { return x.entrySize() + (len(x.value)+3)&^3 }

func newXattr(x source.Xattr) (xattr, error) {
	for _, p := range xattrPrefixes {
		name, ok := strings.CutPrefix(x.Name, p.prefix)
		if !ok || p.whole != (name == "") {
			continue
		}
		value := x.Value
		if p.whole {
			var err error
			if value, err = aclToDisk(x.Value); err != nil {
				return xattr{}, fmt.Errorf("%w: %s: %w", ErrXattr, x.Name, err)
			}
		}
		if len(name) > nameMax || strings.IndexByte(name, 0) >= 0 {
			return xattr{}, fmt.Errorf("%w: the name %q", ErrXattr, x.Name)
		}
		return xattr{p.index, name, value}, nil
	}
	return xattr{}, fmt.Errorf("%w: no file system keeps an attribute named %q", ErrXattr, x.Name)
}

// setXattrs puts attributes into the inode as far as they fit, and the others into a block.
func (w *Writer) setXattrs(n *inode, list []source.Xattr) error {
	inside, raw, err := layXattrs(list, xattrInside, blockSize)
	n.xattrs = inside
	if err != nil || raw == nil {
		return err
	}
	block := w.alloc.take(1)
	n.own(block)
	n.xattrBlock = block.start
	le.PutUint32(raw[xattrBlockCsum:], xattrChecksum(w.seed, block.start, raw))
	return w.out.write(block.start, raw)
}

// layXattrs lays attributes out in so many bytes of an inode, and those that do not fit in a block, which
// lacks its checksum. Either is nil where it holds none.
func layXattrs(list []source.Xattr, within, size int) (inside, block []byte, err error) {
	var first, others []xattr
	room := within - 4 - xattrEnd // behind the magic number
	need := xattrHeader + xattrEnd
	for _, each := range list {
		x, err := newXattr(each)
		if err != nil {
			return nil, nil, err
		}
		if x.size() <= room {
			room -= x.size()
			first = append(first, x)
		} else {
			need += x.size()
			others = append(others, x)
		}
	}
	if need > size {
		return nil, nil, fmt.Errorf("%w: they take %d bytes of a block of %d", ErrXattr, need, size)
	}
	if len(first) > 0 {
		inside = make([]byte, within)
		le.PutUint32(inside, xattrMagic)
		putXattrs(inside[4:], 0, first, false)
	}
	if len(others) == 0 {
		return inside, nil, nil
	}
	block = make([]byte, size)
	le.PutUint32(block[0:], xattrMagic)
	le.PutUint32(block[4:], 1) // h_refcount
	le.PutUint32(block[8:], 1) // h_blocks
	slices.SortFunc(others, compareXattrs)
	le.PutUint32(block[12:], putXattrs(block, xattrHeader, others, true))
	return inside, block, nil
}

// compareXattrs gives the order in which Linux looks attributes up in a block (ext4_xattr_find_entry).
func compareXattrs(a, b xattr) int {
	if a.index != b.index {
		return int(a.index) - int(b.index)
	}
	if len(a.name) != len(b.name) {
		return len(a.name) - len(b.name)
	}
	return strings.Compare(a.name, b.name)
}

// putXattrs lays entries upward from at and values downward from the end; offsets of values
// count from b's beginning. It gives the hash over all entries, if they are hashed.
func putXattrs(b []byte, at int, list []xattr, hashed bool) (hash uint32) {
	end := len(b)
	for _, x := range list {
		b[at] = uint8(len(x.name))
		b[at+1] = x.index
		if len(x.value) > 0 {
			end -= (len(x.value) + 3) &^ 3
			le.PutUint16(b[at+2:], uint16(end))
			copy(b[end:], x.value)
		}
		le.PutUint32(b[at+8:], uint32(len(x.value)))
		if hashed {
			h := xattrHash(x.name, x.value)
			le.PutUint32(b[at+12:], h)
			hash = bits.RotateLeft32(hash, 16) ^ h
		}
		copy(b[at+xattrEntryHead:], x.name)
		at += x.entrySize()
	}
	return hash
}

// xattrHash is e_hash (ext4_xattr_hash_entry), with names' bytes unsigned as Linux has it since 6.2.
func xattrHash(name string, value []byte) (hash uint32) {
	for i := range len(name) {
		hash = bits.RotateLeft32(hash, 5) ^ uint32(name[i])
	}
	return xattrValueHash(hash, value)
}

// xattrValueHash goes on from the name's hash.
func xattrValueHash(hash uint32, value []byte) uint32 {
	for len(value) > 0 {
		var word [4]byte
		value = value[copy(word[:], value):]
		hash = bits.RotateLeft32(hash, 16) ^ le.Uint32(word[:])
	}
	return hash
}
