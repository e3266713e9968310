package xfs

import (
	"fmt"

	"github.com/sealboot/sealboot/image/fsys"
)

// Folders (xfs_da_format.h).
const (
	blockMagicV4   = "XD2B" // one block with names and their hashes
	blockMagicV5   = "XDB3"
	dataMagicV4    = "XD2D" // a block of names
	dataMagicV5    = "XDD3"
	folderHeadV4   = 16       // xfs_dir2_data_hdr
	folderHeadV5   = 64       // xfs_dir3_data_hdr
	folderDataEnds = 32 << 30 // XFS_DIR2_LEAF_OFFSET: hashes lie behind
	unusedTag      = 0xffff   // XFS_DIR2_DATA_FREE_TAG
)

// Names reads a folder: in the inode, in one block with its hashes, or in blocks of names. All blocks are read in turn, so
// the hashes are not needed.
func (t *tree) Names(n *fsys.Inode) ([]fsys.Name, error) {
	l := &listing{f: t.f, r: n.Form.(*record)}
	var err error
	switch l.r.data.form {
	case formLocal:
		err = l.short()
	default:
		err = l.blocks()
	}
	if err != nil {
		return nil, err
	}
	return l.list.Names, nil
}

type listing struct {
	f    *Reader
	r    *record
	list fsys.List
}

func (l *listing) broken(format string, args ...any) error {
	return broken(fmt.Sprintf("inode %d", l.r.number), format, args...)
}

func (l *listing) add(name []byte, number uint64) error {
	if err := l.list.Add(name, fsys.ID{Number: number}); err != nil {
		return fmt.Errorf("xfs inode %d: %w", l.r.number, err)
	}
	return nil
}

// short reads a folder in its inode (xfs_dir2_sf_hdr): numbers of 4 bytes, or of 8 if one needs them.
func (l *listing) short() error {
	b := l.r.data.raw
	if l.r.size < 6 || l.r.size > int64(len(b)) {
		return l.broken("a folder of %d bytes", l.r.size)
	}
	b = b[:l.r.size]
	count, width := int(b[0]), 4
	if b[1] != 0 {
		width = 8
	}
	if len(b) < 2+width {
		return l.broken("a folder of %d bytes", len(b))
	}
	b = b[2+width:]
	kind := 0
	if l.f.super.ftype() {
		kind = 1
	}
	for range count {
		if len(b) < 3 || len(b) < 3+int(b[0])+kind+width {
			return l.broken("a folder's names are longer than it")
		}
		length := int(b[0])
		name := b[3:][:length]
		b = b[3+length+kind:]
		number := uint64(be.Uint32(b))
		if width == 8 {
			number = be.Uint64(b)
		}
		if err := l.add(name, number); err != nil {
			return err
		}
		b = b[width:]
	}
	if len(b) != 0 {
		return l.broken("%d bytes behind a folder's names", len(b))
	}
	return nil
}

func (l *listing) blocks() error {
	s := l.f.super
	var list []extent
	blocks := uint64(0)
	err := l.f.extents(l.r, l.r.data, func(e extent) error {
		if e.off<<s.blockLog >= folderDataEnds {
			return nil
		}
		if e.unwritten {
			return l.broken("a folder with blocks that were not written")
		}
		if blocks += e.count; blocks > s.blocks {
			return l.broken("a folder of more blocks than there are")
		}
		list = append(list, e)
		return nil
	})
	if err != nil {
		return err
	}
	per := uint64(1) << s.dirLog
	next := uint64(0)
	for _, e := range list {
		for off := max(next, e.off&^(per-1)); off < e.off+e.count; off += per {
			if int64(off<<s.blockLog) >= l.r.size {
				return l.broken("names behind the end of a folder of %d bytes", l.r.size)
			}
			b, first, err := l.f.contentBlocks(l.r, list, off, per)
			if err != nil {
				return err
			}
			if err := l.block(b, first, off == 0); err != nil {
				return err
			}
			next = off + per
		}
	}
	return nil
}

// block reads the names in a block.
func (l *listing) block(b []byte, at uint64, first bool) error {
	magic, alone, head := dataMagicV4, blockMagicV4, folderHeadV4
	if l.f.super.v5() {
		magic, alone, head = dataMagicV5, blockMagicV5, folderHeadV5
		if err := l.f.verify(b, folderHeader, at, l.r.number); err != nil {
			return err
		}
	}
	end := len(b)
	switch string(b[:4]) {
	case magic:
	case alone:
		hashes := uint64(be.Uint32(b[len(b)-8:])) // xfs_dir2_block_tail, behind the hashes
		if !first || int64(len(b)) != l.r.size || hashes > uint64(len(b)-8-head)/8 {
			return l.broken("block %d: %d hashes in a folder of %d bytes", at, hashes, l.r.size)
		}
		end = len(b) - 8 - int(hashes)*8
	default:
		return l.broken("block %d is no block of names", at)
	}
	kind := 0
	if l.f.super.ftype() {
		kind = 1
	}
	for off := head; off < end; {
		left := end - off
		if left < 8 {
			return l.broken("block %d: %d bytes behind the names", at, left)
		}
		size := int(be.Uint16(b[off+2:]))
		used := be.Uint16(b[off:]) != unusedTag
		if used {
			if left < 12 {
				return l.broken("block %d: %d bytes for a name", at, left)
			}
			size = (8 + 1 + int(b[off+8]) + kind + 2 + 7) &^ 7
		}
		if size < 8 || size%8 != 0 || size > left || int(be.Uint16(b[off+size-2:])) != off {
			return l.broken("block %d: %d bytes at %d of %d", at, size, off, end)
		}
		if used {
			name := b[off+9:][:b[off+8]]
			if dots := string(name); !first || dots != "." && dots != ".." {
				if err := l.add(name, be.Uint64(b[off:])); err != nil {
					return err
				}
			}
		}
		off += size
	}
	return nil
}
