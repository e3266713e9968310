package ext4

import (
	"bytes"
	"fmt"
)

// inode checks one that is marked as used, and claims its blocks.
func (c *checker) inode(number uint32, raw []byte) error {
	f, s := c.f, c.f.super
	reserved := number < f.firstInode() && number != rootInode
	if reserved && bytes.Count(raw, []byte{0}) == len(raw) {
		return nil // without a use, and as such without a checksum
	}
	n, err := f.decodeInode(number, raw)
	if err != nil {
		return err
	}
	if n.mode == 0 && reserved {
		if n.sectors != 0 || n.size != 0 || n.block != [60]byte{} {
			return fmt.Errorf("%w: a list of bad blocks or the like in inode %d", ErrUnsupported, number)
		}
		return nil
	}
	if n.kind() == 0 {
		return broken(n.where(), "mode %#o", n.mode)
	}
	if n.links == 0 || n.deleted != 0 {
		return broken(n.where(), "%d links, deleted at %d, and marked as used", n.links, n.deleted)
	}
	if bad := n.flags & (inodeEncrypted | inodeEAInode | inodeInlineData | inodeVerity | inodeCasefold); bad != 0 {
		return broken(n.where(), "flags %#x", bad)
	}
	if n.flags&inodeExtents != 0 && s.FeatureIncompat&incompatExtents == 0 {
		return broken(n.where(), "extents, which are not among the features")
	}
	blocks, err := c.xattrs(n)
	if err != nil {
		return err
	}
	if number == resizeInode && s.FeatureCompat&compatResizeInode != 0 {
		return c.resize(n, blocks)
	}
	content, err := c.content(n)
	if err != nil {
		return err
	}
	if want := (blocks + content) * uint64(f.blockSize/512); n.sectors != want {
		return broken(n.where(), "%d sectors of 512 bytes, %d counted", n.sectors, want)
	}
	if number == s.JournalInum && s.FeatureCompat&compatJournal != 0 {
		if _, err := f.journal(n); err != nil {
			return err
		}
		c.journal = true
	}
	hidden := reserved || s.FeatureCompat&compatOrphanFile != 0 && number == s.OrphanFileInum ||
		s.FeatureROCompat&roProject != 0 && number == s.PrjQuotaInum
	state := c.state(number)
	if !hidden {
		*state = inodeState{kind: n.kind(), links: n.links}
	}
	c.count(n, hidden)
	return nil
}

func (c *checker) count(n *record, hidden bool) {
	switch n.kind() {
	case kindFolder:
		c.folders = append(c.folders, n.number)
		c.summary.Folders++
	case kindRegular:
		if !hidden {
			c.summary.Files++
		}
	case kindSymlink:
		c.summary.Symlinks++
	default:
		c.summary.Others++
	}
}

// content claims an inode's blocks and compares them with its size.
func (c *checker) content(n *record) (claimed uint64, err error) {
	f := c.f
	end, mapped := uint64(0), uint64(0) // behind the last written block; number of them
	err = f.blockMap(n, func(m mapping) error {
		if err := c.claims.add(m.blocks); err != nil {
			return broken(n.where(), "%v", err)
		}
		claimed += m.blocks.count
		if !m.metadata && !m.unwritten {
			end = m.logical + m.blocks.count
			mapped += m.blocks.count
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	size := n.size / uint64(f.blockSize)
	if n.size%uint64(f.blockSize) != 0 {
		size++
	}
	switch n.kind() {
	case kindFolder:
		if n.size == 0 || n.size%uint64(f.blockSize) != 0 || end != size || mapped != size {
			return 0, broken(n.where(), "folder of %d bytes with %d blocks up to %d", n.size, mapped, end)
		}
	case kindRegular:
		if end > size {
			return 0, broken(n.where(), "%d bytes, content up to block %d", n.size, end)
		}
	case kindSymlink:
		if !n.fast() && (mapped != 1 || end != 1) {
			return 0, broken(n.where(), "symbolic link of %d bytes with %d blocks", n.size, mapped)
		}
		if _, err := f.readlink(n); err != nil {
			return 0, err
		}
	}
	return claimed, nil
}

// readlink gives a symbolic link's target.
func (f *Reader) readlink(n *record) (string, error) {
	if n.size == 0 || n.size >= uint64(f.blockSize) {
		return "", broken(n.where(), "symbolic link of %d bytes", n.size)
	}
	raw := n.block[:]
	if !n.fast() {
		raw = make([]byte, f.blockSize)
		found := false
		err := f.blockMap(n, func(m mapping) error {
			if m.metadata || m.unwritten || m.logical != 0 {
				return nil
			}
			found = true
			return f.readBlocks(raw, m.blocks.start)
		})
		if err != nil {
			return "", err
		}
		if !found {
			return "", broken(n.where(), "symbolic link without content")
		}
	}
	if length := bytes.IndexByte(raw, 0); length != int(n.size) {
		return "", broken(n.where(), "symbolic link of %d bytes, %d found", n.size, length)
	}
	return string(raw[:n.size]), nil
}

// resize checks the inode that owns the blocks reserved for growth. They were claimed with
// the fixed metadata.
func (c *checker) resize(n *record, blocks uint64) error {
	f := c.f
	double := le.Uint32(n.block[4*indirectDouble:])
	for i := range 15 {
		if i != indirectDouble && le.Uint32(n.block[4*i:]) != 0 {
			return broken(n.where(), "resize inode with blocks of its own")
		}
	}
	if double == 0 && f.reserved == 0 && n.sectors == 0 {
		return nil
	}
	if err := c.claims.add(span{uint64(double), 1}); err != nil {
		return broken(n.where(), "resize inode: %v", err)
	}
	blocks++
	addresses := uint32(f.blockSize / 4)
	want, list := make([]byte, f.blockSize), make([]byte, f.blockSize)
	first := uint32(f.firstBlock()) + 1 + f.descBlocks
	for i := range f.reserved {
		le.PutUint32(want[4*((f.descBlocks+i)%addresses):], first+i)
	}
	if err := f.readBlocks(list, uint64(double)); err != nil {
		return err
	}
	if !bytes.Equal(list, want) {
		return broken(n.where(), "resize inode does not list the reserved blocks")
	}
	var backups []uint32
	for group := uint32(1); group < f.groups; group++ {
		if f.hasBackup(group) {
			backups = append(backups, group*f.groupBlocks)
		}
	}
	if len(backups) > int(addresses) {
		return broken("superblock", "%d backups, too many to reserve descriptors in", len(backups))
	}
	blocks += uint64(f.reserved) * uint64(1+len(backups))
	for i := range f.reserved {
		clear(want)
		for j, start := range backups {
			le.PutUint32(want[4*j:], first+i+start)
		}
		if err := f.readBlocks(list, uint64(first+i)); err != nil {
			return err
		}
		if !bytes.Equal(list, want) {
			return broken(n.where(), "reserved block %d does not list its copies", first+i)
		}
	}
	if got := blocks * uint64(f.blockSize/512); n.sectors != got {
		return broken(n.where(), "%d sectors of 512 bytes, %d counted", n.sectors, got)
	}
	return nil
}
