package ext4

import (
	"time"
)

// inode is what the writer keeps of one until it is closed.
type inode struct {
	number     uint32
	mode       uint16
	links      uint32
	uid, gid   uint32
	size       int64
	time       timestamp
	flags      uint32
	block      [60]byte // i_block: extents, device or short target
	owned      []span   // all blocks of this inode
	target     string   // of a symbolic link
	xattrs     []byte   // those inside the inode
	xattrBlock uint64   // the block with those that did not fit, 0 for none
}

// own notes blocks that are the inode's.
func (n *inode) own(s span) {
	if last := len(n.owned) - 1; last >= 0 && n.owned[last].start+n.owned[last].count == s.start {
		n.owned[last].count += s.count
		return
	}
	n.owned = append(n.owned, s)
}

func (n *inode) kind() uint8 { return kindOfMode(n.mode) }

// timestamp is a time as inodes hold it: 34 bits of seconds from 1901 on, 30 of nanoseconds.
type timestamp struct {
	seconds     int64
	nanoseconds uint32
}

// newTimestamp takes a time to the nearest one that an inode can hold.
func newTimestamp(t time.Time) timestamp {
	const first, last = -1 << 31, 1<<34 - 1<<31 - 1
	switch s := t.Unix(); {
	case s < first:
		return timestamp{first, 0}
	case s > last:
		return timestamp{last, 999999999}
	default:
		return timestamp{s, uint32(t.Nanosecond())}
	}
}

// low is the time's lower 32 bits, extra the upper two beneath the nanoseconds.
func (t timestamp) low() uint32 { return uint32(t.seconds) }

func (t timestamp) extra() uint32 {
	epoch := uint32((t.seconds-int64(int32(t.seconds)))>>32) & 3
	return t.nanoseconds<<2 | epoch
}

// encode fills in struct ext4_inode. The born time is the file system's.
func (n *inode) encode(raw []byte, fs uint32, born timestamp) {
	if n.mode == 0 { // reserved, without a use
		return
	}

	blocks := uint64(0)
	for _, s := range n.owned {
		blocks += s.count * (blockSize / 512)
	}
	le.PutUint16(raw[0x00:], n.mode)
	le.PutUint16(raw[0x02:], uint16(n.uid))
	le.PutUint32(raw[0x04:], uint32(n.size))
	le.PutUint32(raw[0x08:], n.time.low())
	le.PutUint32(raw[0x0c:], n.time.low())
	le.PutUint32(raw[0x10:], n.time.low())
	le.PutUint16(raw[0x18:], uint16(n.gid))
	links := n.links
	if links > linkMax { // a folder with more sub-folders than can be counted (dir_nlink)
		links = 1
	}
	le.PutUint16(raw[0x1a:], uint16(links))
	le.PutUint32(raw[0x1c:], uint32(blocks))
	le.PutUint32(raw[0x20:], n.flags)
	copy(raw[0x28:0x64], n.block[:])
	le.PutUint32(raw[0x68:], uint32(n.xattrBlock))
	le.PutUint32(raw[0x6c:], uint32(n.size>>32))
	le.PutUint16(raw[0x74:], uint16(blocks>>32))
	le.PutUint16(raw[0x76:], uint16(n.xattrBlock>>32))
	le.PutUint16(raw[0x78:], uint16(n.uid>>16))
	le.PutUint16(raw[0x7a:], uint16(n.gid>>16))
	le.PutUint16(raw[inodeBase:], extraSize)
	le.PutUint32(raw[0x84:], n.time.extra())
	le.PutUint32(raw[0x88:], n.time.extra())
	le.PutUint32(raw[0x8c:], n.time.extra())
	le.PutUint32(raw[0x90:], born.low())
	le.PutUint32(raw[0x94:], born.extra())
	copy(raw[inodeBase+extraSize:], n.xattrs)
	crc := inodeChecksum(inodeSeed(fs, n.number, 0), raw)
	le.PutUint16(raw[inodeCsumLo:], uint16(crc))
	le.PutUint16(raw[inodeCsumHi:], uint16(crc>>16))
}

// device gives i_block of a device file: the old form where it is enough, as Linux does
// (old_encode_dev, new_encode_dev).
func device(major, minor uint32) (block [60]byte) {
	if major < 256 && minor < 256 {
		le.PutUint32(block[0:], major<<8|minor)
	} else {
		le.PutUint32(block[4:], minor&0xff|major<<8|minor&^0xff<<12)
	}
	return block
}

// deviceNumbers is the reverse of device.
func deviceNumbers(block [60]byte) (major, minor uint32) {
	if old := le.Uint32(block[0:]); old != 0 {
		return old >> 8 & 0xff, old & 0xff
	}
	n := le.Uint32(block[4:])
	return n >> 8 & 0xfff, n&0xff | n>>12&0xfff00
}
