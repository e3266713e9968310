package btrfs

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/sealboot/sealboot/image/fsys"
)

// btrfs_file_extent_item.
const (
	extentHead  = 21 // where content that is inline begins
	extentSize  = 53
	extentsMost = 1 << 18   // what a reader holds
	packedMost  = 128 << 10 // BTRFS_MAX_UNCOMPRESSED, and BTRFS_MAX_COMPRESSED

	extentInline    = 0
	extentRegular   = 1
	extentUnwritten = 2
)

// Content gives a regular file's extents, or those of a symbolic link. What is allocated and not written reads as zeros.
func (t *tree) Content(n *fsys.Inode) (*fsys.Content, error) {
	r := n.Form.(*record)
	w := &extentWalk{f: t.f, id: n.ID, sums: r.sums, cache: &unpacked{f: t.f}}
	if err := t.items(n, itemContent, w.item); err != nil {
		return nil, err
	}
	return fsys.NewContent(r.size, w.list), nil
}

type extentWalk struct {
	f     *Reader
	id    fsys.ID
	sums  bool
	cache *unpacked
	list  []fsys.Extent
	next  uint64 // first byte of the content that no extent has spoken of
}

func (w *extentWalk) item(off uint64, b []byte) error {
	if len(w.list) == extentsMost {
		return fmt.Errorf("btrfs tree %d, inode %d: its extents are %w", w.id.Tree, w.id.Number, fsys.ErrTooLarge)
	}
	if len(b) < extentHead {
		return brokenInode(w.id, "an extent of %d bytes", len(b))
	}
	size, packing, kind := le.Uint64(b[8:]), b[16], b[20]
	if int(packing) >= len(packings) || b[17] != 0 || le.Uint16(b[18:]) != 0 {
		return unsupported(fmt.Sprintf("compression %d, encryption %d", packing, b[17]))
	}
	if off < w.next || off > math.MaxInt64/2 {
		return brokenInode(w.id, "extents that overlap at %d", off)
	}
	if kind == extentInline {
		return w.inline(off, b[extentHead:], size, packing)
	}
	if kind != extentRegular && kind != extentUnwritten || len(b) < extentSize {
		return brokenInode(w.id, "an extent of type %d", kind)
	}
	address, stored, into, length := le.Uint64(b[21:]), le.Uint64(b[29:]), le.Uint64(b[37:]), le.Uint64(b[45:])
	sector := uint64(w.f.super.sectorSize)
	if length == 0 || length%sector != 0 || off%sector != 0 || length > math.MaxInt64/2 {
		return brokenInode(w.id, "%d bytes at %d", length, off)
	}
	w.next = off + length
	if address == 0 || kind == extentUnwritten {
		return nil
	}
	if into%sector != 0 || size > math.MaxInt64/2 || into > size || length > size-into || address%sector != 0 || stored%sector != 0 || stored == 0 {
		return brokenInode(w.id, "%d bytes at %d, from %d on of %d", length, off, into, size)
	}
	if _, err := w.f.places(address, stored); err != nil {
		return err
	}
	data := stretch{f: w.f, address: address, length: stored, sums: w.sums}
	e := fsys.Extent{Off: int64(off), Len: int64(length), Data: &data, At: int64(into)}
	switch {
	case packing != 0:
		if size > packedMost || stored > packedMost {
			return brokenInode(w.id, "%d bytes compressed to %d", size, stored)
		}
		e.Data = &packed{stretch: data, size: int(size), packing: packing, cache: w.cache}
	case length > stored || into > stored-length:
		return brokenInode(w.id, "%d bytes from %d on of %d", length, into, stored)
	}
	w.list = append(w.list, e)
	return nil
}

// inline takes content that is in the item.
func (w *extentWalk) inline(off uint64, b []byte, size uint64, packing uint8) error {
	if off != 0 || size > uint64(w.f.super.sectorSize) {
		return brokenInode(w.id, "%d bytes inline at %d", size, off)
	}
	content := bytes.Clone(b)
	if packing != 0 {
		var err error
		if content, err = w.f.unpack(packing, b, int(size)); err != nil {
			return brokenInode(w.id, "content inline: %v", err)
		}
	}
	w.next = uint64(w.f.super.sectorSize)
	w.list = append(w.list, fsys.Extent{Len: int64(len(content)), Data: bytes.NewReader(content)})
	return nil
}

// stretch is content as it is stored.
type stretch struct {
	f               *Reader
	address, length uint64
	sums            bool
}

// readMost is how much is read and checked at once.
const readMost = 128 << 10

// ReadAt reads within the stretch; what has checksums by whole sectors.
func (s *stretch) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || uint64(at) >= s.length {
		return 0, io.EOF
	}
	sector := uint64(s.f.super.sectorSize)
	done := 0
	for done < len(b) && uint64(at) < s.length {
		begin := uint64(at) &^ (sector - 1)
		end := min(s.length, begin+readMost, (uint64(at)+uint64(len(b)-done)+sector-1)&^(sector-1))
		raw, err := s.f.readData(s.address+begin, end-begin, s.sums)
		if err != nil {
			return done, err
		}
		n := copy(b[done:], raw[uint64(at)-begin:])
		done, at = done+n, at+int64(n)
	}
	if done < len(b) {
		return done, io.EOF
	}
	return done, nil
}

// readData reads whole sectors, from their second place if the first has not the right ones.
func (f *Reader) readData(address, length uint64, check bool) ([]byte, error) {
	places, err := f.places(address, length)
	if err != nil {
		return nil, err
	}
	var sums []byte
	if check {
		if sums, err = f.sums(address, length); err != nil {
			return nil, err
		}
	}
	b := make([]byte, length)
	for _, place := range places {
		if _, err = fsys.ReadAt(f.r, b, int64(place)); err != nil {
			err = fmt.Errorf("read btrfs address %d: %w", address, err)
			continue
		}
		if err = f.compareSums(b, sums, address); err == nil {
			return b, nil
		}
	}
	return nil, err
}

func (f *Reader) compareSums(b, sums []byte, address uint64) error {
	for i := 0; len(sums) > 0; i++ {
		sector := b[i*int(f.super.sectorSize):][:f.super.sectorSize]
		if !f.super.sum.right(sums, sector) {
			return broken(fmt.Sprintf("address %d", address+uint64(i)*uint64(f.super.sectorSize)), "content with a wrong checksum")
		}
		sums = sums[f.super.sum.size:]
	}
	return nil
}

// sums gives the checksums of whole sectors, one behind the other (btrfs_csum_item).
func (f *Reader) sums(address, length uint64) ([]byte, error) {
	root, err := f.root(sumTree)
	if err != nil {
		return nil, err
	}
	sector, size := uint64(f.super.sectorSize), uint64(f.super.sum.size)
	var list []byte
	for length > 0 {
		b, k, err := f.floor(root, key{sumObject, itemSums, address})
		if err != nil {
			return nil, fmt.Errorf("checksum tree: %w", err)
		}
		if b == nil || k.object != sumObject || k.kind != itemSums || (address-k.offset)/sector >= uint64(len(b))/size || (address-k.offset)%sector != 0 {
			return nil, broken(fmt.Sprintf("address %d", address), "content without a checksum")
		}
		b = b[(address-k.offset)/sector*size:]
		n := min(uint64(len(b))/size, length/sector)
		list = append(list, b[:n*size]...)
		address, length = address+n*sector, length-n*sector
	}
	return list, nil
}

// packed is content that is compressed.
type packed struct {
	stretch
	size    int // of the content
	packing uint8
	cache   *unpacked
}

// unpacked keeps the extent of a file that was decompressed last.
type unpacked struct {
	f       *Reader
	mutex   sync.Mutex
	address uint64
	data    []byte
}

func (p *packed) ReadAt(b []byte, at int64) (int, error) {
	c := p.cache
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.address != p.address || len(c.data) != p.size {
		raw, err := p.f.readData(p.address, p.length, p.sums)
		if err != nil {
			return 0, err
		}
		if c.data, err = p.f.unpack(p.packing, raw, p.size); err != nil {
			c.data = nil
			return 0, broken(fmt.Sprintf("address %d", p.address), "%v", err)
		}
		c.address = p.address
	}
	return bytes.NewReader(c.data).ReadAt(b, at)
}
