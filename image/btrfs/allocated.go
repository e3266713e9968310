package btrfs

import (
	"fmt"

	"github.com/sealboot/sealboot/image/fsys"
)

// bootSize is what Linux leaves free at the device's begin (BTRFS_DEVICE_RANGE_RESERVED). The superblock lies in it, and what a boot loader keeps.
const bootSize = 1 << 20

// Allocated calls use for the ranges of bytes whose content counts, in ascending order and without
// overlap: the extents of the extent tree at all their places, superblocks, and the first 1 MiB. Their sum must be what the superblock
// says. A file system with a log tree is refused with fsys.ErrUnclean.
func (f *Reader) Allocated(use func(offset, length int64) error) error {
	if err := f.Clean(); err != nil {
		return err
	}
	root, err := f.root(extentTree)
	if err != nil {
		return err
	}
	u := &union{ranges: fsys.Ranges{Use: use}, fixed: f.fixed()}
	used := uint64(0)
	for _, s := range f.stripes() {
		n, err := f.extentsOf(root, s, u)
		if err != nil {
			return err
		}
		if first, err := f.places(s.address, 1); err == nil && first[0] == s.place {
			used += n
		}
	}
	if used != f.super.used {
		return broken("extent tree", "%d bytes are in use, the superblock says %d", used, f.super.used)
	}
	return u.end()
}

// fixed are ranges that belong to no extent.
func (f *Reader) fixed() []stripe {
	list := []stripe{{place: 0, length: min(bootSize, f.super.size)}}
	for _, at := range superCopies {
		if size := uint64(f.super.sectorSize); uint64(at)+size <= f.super.size {
			list = append(list, stripe{place: uint64(at), length: size})
		}
	}
	return list
}

// extentsOf adds the extents in one place of a chunk, and gives their sum.
func (f *Reader) extentsOf(root pointer, s stripe, u *union) (uint64, error) {
	used, next := uint64(0), s.address
	err := f.walk(root, key{object: s.address}, func(k key, _ []byte) (bool, error) {
		if k.object >= s.address+s.length {
			return false, nil
		}
		length := k.offset
		switch k.kind {
		case itemMetadata:
			length = uint64(f.super.nodeSize)
		case itemExtent:
		default:
			return true, nil
		}
		sector := uint64(f.super.sectorSize)
		if k.object < next || k.object%sector != 0 || length == 0 || length%sector != 0 || length > s.address+s.length-k.object {
			return false, broken(fmt.Sprintf("extent %d", k.object), "%d bytes", length)
		}
		next, used = k.object+length, used+length
		return true, u.add(s.place+k.object-s.address, length)
	})
	if err != nil {
		return 0, fmt.Errorf("extent tree: %w", err)
	}
	return used, nil
}

// union joins extents and fixed ranges, both in ascending order; these may overlap.
type union struct {
	ranges fsys.Ranges
	fixed  []stripe
	next   uint64 // end of what was added
}

func (u *union) add(place, length uint64) error {
	for len(u.fixed) > 0 && u.fixed[0].place <= place {
		first := u.fixed[0]
		u.fixed = u.fixed[1:]
		if err := u.one(first.place, first.length); err != nil {
			return err
		}
	}
	return u.one(place, length)
}

func (u *union) one(place, length uint64) error {
	end := place + length
	place = max(place, u.next)
	if end <= place {
		return nil
	}
	u.next = end
	return u.ranges.Add(int64(place), int64(end-place))
}

func (u *union) end() error {
	for _, s := range u.fixed {
		if err := u.one(s.place, s.length); err != nil {
			return err
		}
	}
	return u.ranges.End()
}
