package ext4

import (
	"fmt"
)

// Of the orphan file's blocks (struct ext4_orphan_block_tail).
const (
	orphanMagic = 0x0b10ca04
	orphanTail  = 8 // u32 magic, u32 checksum
)

// orphans does what was left to do for files that were deleted or cut short while programs had them open: those
// without a name are freed, the others lose what is behind their size.
func (e *Editor) orphans() error {
	seen := map[uint32]bool{}
	for next := e.super.LastOrphan; next != 0; {
		if seen[next] {
			return broken("superblock", "list of deleted files with inode %d twice", next)
		}
		seen[next] = true
		raw, err := e.orphan(next)
		if err != nil {
			return err
		}
		next = le.Uint32(raw[0x14:])
	}
	e.super.LastOrphan = 0
	if e.super.FeatureROCompat&roOrphanPresent == 0 {
		return nil
	}
	if err := e.orphanFile(); err != nil {
		return err
	}
	e.super.FeatureROCompat &^= roOrphanPresent
	return nil
}

// orphan does it for one, and gives the inode as it was.
func (e *Editor) orphan(number uint32) (before []byte, err error) {
	f, err := e.load(number)
	if err != nil {
		return nil, fmt.Errorf("free what was deleted while open: %w", err)
	}
	if number < e.firstInode() {
		return nil, broken(f.where(), "reserved, and in the list of deleted files")
	}
	e.repairs.Orphans++
	before = append(before, f.raw...)
	if f.links == 0 {
		return before, e.release(f)
	}
	if f.kind() == kindRegular {
		if err := e.shorten(f); err != nil {
			return nil, err
		}
	}
	le.PutUint32(f.raw[0x14:], 0)
	return before, e.save(f)
}

// shorten frees a file's blocks behind its size.
func (e *Editor) shorten(f *draft) error {
	content, nodes, err := e.blocksOf(f.record)
	if err != nil {
		return err
	}
	size := uint64(e.blockSize)
	end := (f.size + size - 1) / size
	var kept []extent
	for _, x := range content {
		keep := min(end, uint64(x.logical)+uint64(x.length)) - min(end, uint64(x.logical))
		if cut := uint64(x.length) - keep; cut > 0 {
			nodes = append(nodes, span{x.start + keep, cut})
		}
		if x.length = uint32(keep); keep > 0 {
			kept = append(kept, x)
		}
	}
	for _, s := range nodes {
		if err := e.freeBlocks(s); err != nil {
			return err
		}
	}
	return e.setBlocks(f, kept)
}

// orphanFile goes through the file that newer kernels keep the list in, and empties it.
func (e *Editor) orphanFile() error {
	if e.super.FeatureCompat&compatOrphanFile == 0 {
		return broken("superblock", "orphan_present without orphan_file")
	}
	n, err := e.readInode(e.super.OrphanFileInum)
	if err != nil {
		return err
	}
	content, _, err := e.blocksOf(n)
	if err != nil {
		return err
	}
	raw := make([]byte, e.blockSize)
	for _, x := range content {
		for block := x.start; block < x.start+uint64(x.length); block++ {
			if err := e.readBlocks(raw, block); err != nil {
				return err
			}
			if err := e.orphanBlock(n, block, raw); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Editor) orphanBlock(n *record, block uint64, raw []byte) error {
	list, tail := raw[:len(raw)-orphanTail], raw[len(raw)-orphanTail:]
	sum := func() uint32 { return crc32c(crc32c(n.seed, le.AppendUint64(nil, block)), list) }
	if le.Uint32(tail) != orphanMagic || e.checksums && le.Uint32(tail[4:]) != sum() {
		return broken(n.where(), "orphan file's block %d without its magic number or with a wrong checksum", block)
	}
	found := false
	for rest := list; len(rest) > 0; rest = rest[4:] {
		if number := le.Uint32(rest); number != 0 {
			found = true
			if _, err := e.orphan(number); err != nil {
				return err
			}
		}
	}
	if !found {
		return nil
	}
	clear(list)
	if e.checksums {
		le.PutUint32(tail[4:], sum())
	}
	return e.over.write(block, raw)
}
