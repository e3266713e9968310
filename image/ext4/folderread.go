package ext4

import (
	"fmt"
	"strings"
)

// folderMost bounds a folder's bytes: twice what Linux makes without large_dir (fs/ext4/dir.c: 2 GiB).
const folderMost = 4 << 30

// folderBlocks gives the block for each place in a folder, without holes.
func (f *Reader) folderBlocks(n *record) ([]uint64, error) {
	var blocks []uint64
	count := n.size / uint64(f.blockSize)
	if count > f.blocks {
		return nil, broken(n.where(), "folder of %d bytes, larger than the file system", n.size)
	}
	if n.size > folderMost {
		return nil, broken(n.where(), "folder of %d bytes, at most %d are read", n.size, int64(folderMost))
	}
	err := f.blockMap(n, func(m mapping) error {
		if m.metadata {
			return nil
		}
		if m.unwritten || m.logical != uint64(len(blocks)) || m.blocks.count > count-uint64(len(blocks)) {
			return broken(n.where(), "folder with a hole or too many blocks at %d of %d", m.logical, count)
		}
		for i := range m.blocks.count {
			blocks = append(blocks, m.blocks.start+i)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if count == 0 || uint64(len(blocks)) != count || n.size%uint64(f.blockSize) != 0 {
		return nil, broken(n.where(), "folder of %d bytes with %d blocks", n.size, len(blocks))
	}
	return blocks, nil
}

// blockKind is what a block of a folder holds.
type blockKind int

const (
	leafKind  blockKind = iota // entries, with a checksum behind them
	indexKind                  // part of a hash tree: hidden behind empty entries, with its own checksum
)

// parseFolder checks a block of entries and calls visit for those in use.
func (f *Reader) parseFolder(n *record, place int, raw []byte, kind blockKind, visit func(folderEntry) error) error {
	problem := func(format string, args ...any) error {
		return broken(fmt.Sprintf("folder inode %d, block %d", n.number, place), format, args...)
	}
	end := len(raw)
	if f.checksums && kind == leafKind {
		end -= dirTailSize
		tail := raw[end:]
		if le.Uint32(tail) != 0 || le.Uint16(tail[4:]) != dirTailSize || tail[6] != 0 || tail[7] != kindTail {
			return problem("no checksum")
		}
		if got, want := le.Uint32(tail[8:]), crc32c(n.seed, raw[:end]); got != want {
			return problem("checksum %#x, not %#x", got, want)
		}
	}
	for at, count := 0, 0; at < end; count++ {
		if end-at < entryHead {
			return problem("entry at %d behind the end", at)
		}
		size, length := f.recordLength(le.Uint16(raw[at+4:])), int(raw[at+6])
		e := folderEntry{number: le.Uint32(raw[at:]), kind: raw[at+7]}
		if size < entryHead+(length+3)&^3 || size < 12 || size%4 != 0 || size > end-at {
			return problem("entry at %d of %d bytes with a name of %d", at, size, length)
		}
		e.name = string(raw[at+entryHead:][:length])
		if place == 0 && count < 2 {
			if dots := [2]string{".", ".."}[count]; e.name != dots || e.number == 0 {
				return problem("entry %d is %q of inode %d, not %q", count, e.name, e.number, dots)
			}
			if count == 0 && e.number != n.number {
				return problem("\".\" is inode %d", e.number)
			}
		} else if e.number != 0 {
			if e.name == "" || e.name == "." || e.name == ".." || strings.ContainsAny(e.name, "/\x00") {
				return problem("entry at %d named %q", at, e.name)
			}
			if kind == indexKind {
				return problem("entry at %d of a hash tree's block", at)
			}
		}
		if e.number != 0 {
			if err := visit(e); err != nil {
				return err
			}
		}
		at += size
	}
	return nil
}

// recordLength is an entry's size; blocks of 64 KiB do not fit in 16 bits (ext4_rec_len_from_disk).
func (f *Reader) recordLength(n uint16) int {
	if f.blockSize < 1<<16 {
		return int(n)
	}
	if n == 0 || n == 0xffff {
		return 1 << 16
	}
	return int(n&0xfffc) | int(n&3)<<16
}
