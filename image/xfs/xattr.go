package xfs

import (
	"encoding/binary"
	"fmt"

	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/source"
)

// Attributes (xfs_da_format.h).
const (
	attrNodeV4   = 0xfebe // XFS_DA_NODE_MAGIC
	attrNodeV5   = 0x3ebe
	attrLeafV4   = 0xfbee // XFS_ATTR_LEAF_MAGIC
	attrLeafV5   = 0x3bee
	attrNodeHead = 16 // xfs_da_node_hdr
	attrNodeHd5  = 64
	attrLeafHead = 32 // xfs_attr_leaf_hdr
	attrLeafHd5  = 80
	attrInfoV4   = 12 // xfs_da_blkinfo, which the counts follow
	attrInfoV5   = 56
	attrDepth    = 5  // XFS_DA_NODE_MAXDEPTH
	valueHead    = 56 // xfs_attr3_rmt_hdr

	attrLocal      = 1 << 0 // the value is in the leaf
	attrRoot       = 1 << 1
	attrSecure     = 1 << 2
	attrParent     = 1 << 3 // a name of the inode, not an attribute
	attrIncomplete = 1 << 7

	valueMost = 64 << 10 // Linux XATTR_SIZE_MAX
	attrsMost = 4 << 20  // of one inode: what a reader holds
)

// Xattrs reads an inode's attributes.
func (t *tree) Xattrs(n *fsys.Inode) ([]source.Xattr, error) {
	r := n.Form.(*record)
	l := &attrs{f: t.f, r: r}
	if len(r.attr.raw) == 0 || r.attr.form == formExtents && r.attr.extents == 0 {
		return nil, nil
	}
	err := l.read()
	if err != nil {
		return nil, err
	}
	return l.list, nil
}

type attrs struct {
	f      *Reader
	r      *record
	blocks []extent
	list   []source.Xattr
	left   int
}

func (l *attrs) broken(format string, args ...any) error {
	return broken(fmt.Sprintf("inode %d, attributes", l.r.number), format, args...)
}

func (l *attrs) read() error {
	l.left = attrsMost
	if l.r.attr.form == formLocal {
		return l.short()
	}
	total := uint64(0)
	err := l.f.extents(l.r, l.r.attr, func(e extent) error {
		if total += e.count; e.unwritten || total > l.f.super.blocks {
			return l.broken("%d blocks at %d", e.count, e.off)
		}
		l.blocks = append(l.blocks, e)
		return nil
	})
	if err != nil {
		return err
	}
	return l.leaves(total)
}

// short reads attributes in the inode (xfs_attr_sf_hdr).
func (l *attrs) short() error {
	b := l.r.attr.raw
	if len(b) < 4 {
		return l.broken("%d bytes", len(b))
	}
	size, count := int(be.Uint16(b)), int(b[2])
	if size < 4 || size > len(b) {
		return l.broken("%d of %d bytes", size, len(b))
	}
	b = b[4:size]
	for range count {
		if len(b) < 3 || len(b) < 3+int(b[0])+int(b[1]) {
			return l.broken("longer than they are")
		}
		name, value := b[3:][:b[0]], b[3+int(b[0]):][:b[1]]
		if err := l.add(b[2], name, value); err != nil {
			return err
		}
		b = b[3+len(name)+len(value):]
	}
	return nil
}

// add takes an attribute under its full name.
func (l *attrs) add(flags uint8, name, value []byte) error {
	if flags&(attrIncomplete|attrParent) != 0 {
		return nil
	}
	if len(name) == 0 {
		return l.broken("one without a name")
	}
	if l.left -= len(name) + len(value) + 64; l.left < 0 {
		return fmt.Errorf("xfs inode %d: its attributes are %w", l.r.number, fsys.ErrTooLarge)
	}
	x := source.Xattr{Value: append([]byte{}, value...)}
	switch flags & (attrRoot | attrSecure) {
	case 0:
		x.Name = "user." + string(name)
	case attrSecure:
		x.Name = "security." + string(name)
	case attrRoot:
		x.Name = "trusted." + string(name)
		acl, known := map[string]string{"SGI_ACL_FILE": "system.posix_acl_access", "SGI_ACL_DEFAULT": "system.posix_acl_default"}[string(name)]
		if known {
			x.Name = acl
			var err error
			if x.Value, err = l.accessList(value); err != nil {
				return err
			}
		}
	default:
		return l.broken("one of flags %#x", flags)
	}
	l.list = append(l.list, x)
	return nil
}

// accessList brings an access control list (xfs_acl: a number, entries of 12 bytes) to the form in which Linux hands it out (posix_acl_xattr_header,
// version 2, entries of 8 bytes, little endian).
func (l *attrs) accessList(b []byte) ([]byte, error) {
	const head, entry = 4, 12
	if len(b) < head || (len(b)-head)%entry != 0 || uint64(be.Uint32(b)) != uint64(len(b)-head)/entry {
		return nil, l.broken("an access control list of %d bytes", len(b))
	}
	out := []byte{2, 0, 0, 0}
	for b = b[head:]; len(b) > 0; b = b[entry:] {
		out = binary.LittleEndian.AppendUint16(out, uint16(be.Uint32(b)))
		out = binary.LittleEndian.AppendUint16(out, be.Uint16(b[8:]))
		out = binary.LittleEndian.AppendUint32(out, be.Uint32(b[4:]))
	}
	return out, nil
}

// block reads a block of the attributes' tree and gives its magic number.
func (l *attrs) block(off uint64) ([]byte, uint16, error) {
	b, at, err := l.f.contentBlocks(l.r, l.blocks, off, 1)
	if err != nil {
		return nil, 0, err
	}
	if l.f.super.v5() {
		if err := l.f.verify(b, attrHeader, at, l.r.number); err != nil {
			return nil, 0, err
		}
	}
	return b, be.Uint16(b[8:]), nil
}

// leaves goes down to the first leaf and along the leaves' links.
func (l *attrs) leaves(blocks uint64) error {
	node, leaf, info, nodeHead := uint16(attrNodeV4), uint16(attrLeafV4), attrInfoV4, attrNodeHead
	if l.f.super.v5() {
		node, leaf, info, nodeHead = attrNodeV5, attrLeafV5, attrInfoV5, attrNodeHd5
	}
	at := uint64(0)
	b, magic, err := l.block(at)
	for depth := 0; err == nil && magic == node; depth++ {
		if depth == attrDepth || be.Uint16(b[info:]) == 0 {
			return l.broken("a tree that is empty or has more than %d levels", attrDepth)
		}
		at = uint64(be.Uint32(b[nodeHead+4:])) // the first entry: hash, block
		b, magic, err = l.block(at)
	}
	for ; ; blocks-- {
		if err != nil {
			return err
		}
		if magic != leaf || blocks == 0 {
			return l.broken("block %d is no leaf, or one of a ring", at)
		}
		if err := l.leaf(b, info); err != nil {
			return err
		}
		if at = uint64(be.Uint32(b)); at == 0 { // forw
			return nil
		}
		b, magic, err = l.block(at)
	}
}

func (l *attrs) leaf(b []byte, info int) error {
	head := attrLeafHead
	if l.f.super.v5() {
		head = attrLeafHd5
	}
	const entry = 8 // hash, place of the name, flags
	count := int(be.Uint16(b[info:]))
	if count > (len(b)-head)/entry {
		return l.broken("%d in a block", count)
	}
	for i := range count {
		at, flags := int(be.Uint16(b[head+i*entry+4:])), b[head+i*entry+6]
		least := 9 // valueblk, valuelen, namelen
		if flags&attrLocal != 0 {
			least = 3 // valuelen, namelen
		}
		if at < head+count*entry || at > len(b)-least {
			return l.broken("a name at %d", at)
		}
		e := b[at:]
		length := int(e[least-1])
		if flags&attrLocal != 0 {
			size := int(be.Uint16(e))
			if least+length+size > len(e) {
				return l.broken("a name at %d of %d bytes with a value of %d", at, length, size)
			}
			if err := l.add(flags, e[least:][:length], e[least+length:][:size]); err != nil {
				return err
			}
			continue
		}
		if least+length > len(e) {
			return l.broken("a name at %d of %d bytes", at, length)
		}
		if flags&(attrIncomplete|attrParent) != 0 {
			continue
		}
		value, err := l.value(uint64(be.Uint32(e)), be.Uint32(e[4:]))
		if err != nil {
			return err
		}
		if err := l.add(flags, e[least:][:length], value); err != nil {
			return err
		}
	}
	return nil
}

// value reads one that has blocks of its own; in version 5 each has a header.
func (l *attrs) value(block uint64, size uint32) ([]byte, error) {
	if size > valueMost {
		return nil, l.broken("a value of %d bytes", size)
	}
	value := make([]byte, 0, size)
	for ; len(value) < int(size); block++ {
		b, at, err := l.f.contentBlocks(l.r, l.blocks, block, 1)
		if err != nil {
			return nil, err
		}
		left := int(size) - len(value)
		if !l.f.super.v5() {
			value = append(value, b[:min(left, len(b))]...)
			continue
		}
		if err := l.f.verify(b, valueHeader, at, l.r.number); err != nil {
			return nil, err
		}
		n := min(left, len(b)-valueHead)
		if string(b[:4]) != "XARM" || int64(be.Uint32(b[4:])) != int64(len(value)) || int64(be.Uint32(b[8:])) != int64(n) {
			return nil, l.broken("a value's part of %d bytes at %d", be.Uint32(b[8:]), be.Uint32(b[4:]))
		}
		value = append(value, b[valueHead:][:n]...)
	}
	return value, nil
}
