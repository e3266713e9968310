package btrfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/crypto/blake2b"

	"github.com/sealboot/sealboot/image/fsys"
)

var le = binary.LittleEndian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Where the superblock lies (BTRFS_SUPER_INFO_OFFSET), and its copies (btrfs_sb_offset).
const (
	superOffset = 64 << 10
	superSize   = 4096
	superMagic  = "_BHRfS_M"
	sumSize     = 32 // room for a checksum
)

var superCopies = []int64{64 << 20, 256 << 30}

// superblock is what counts of btrfs_super_block.
type superblock struct {
	uuid, metaUUID       [16]byte
	generation           uint64
	root, chunkRoot      pointer
	logRoot              uint64
	size, used           uint64
	rootFolder           uint64
	device               uint64
	sectorSize, nodeSize uint32
	roCompat, incompat   uint64
	sum                  checksum
	label                string
	chunks               []byte // sys_chunk_array
}

// pointer leads to a tree block.
type pointer struct {
	address, generation uint64
	level               int
}

// checksum is a kind of checksum: its length and how it is computed.
type checksum struct {
	name string
	size int
	of   func(b []byte) []byte
}

// Kinds of checksums (enum btrfs_csum_type).
var checksums = []checksum{
	{"crc32c", 4, func(b []byte) []byte { return le.AppendUint32(nil, crc32.Checksum(b, castagnoli)) }},
	{"xxhash", 8, func(b []byte) []byte { return le.AppendUint64(nil, xxhash.Sum64(b)) }},
	{"sha256", 32, func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }},
	{"blake2", 32, func(b []byte) []byte { s := blake2b.Sum256(b); return s[:] }},
}

func (c checksum) right(sum, b []byte) bool { return bytes.Equal(sum[:c.size], c.of(b)) }

// Flags of a superblock (BTRFS_SUPER_FLAG_*): what says that the file system is no whole one.
const flagsBad = 1<<33 | 1<<34 | 1<<35 | 1<<36 | 1<<37 | 1<<38 | 1<<39 | 1<<40 // METADUMP, METADUMP_V2, CHANGING_FSID and what btrfstune leaves

func decodeSuperblock(raw []byte, size int64) (*superblock, error) {
	if kind := le.Uint16(raw[196:]); int(kind) >= len(checksums) {
		return nil, unsupported(fmt.Sprintf("checksums of type %d", kind))
	}
	s := &superblock{
		uuid: [16]byte(raw[32:]), metaUUID: [16]byte(raw[32:]), generation: le.Uint64(raw[72:]),
		root: pointer{le.Uint64(raw[80:]), le.Uint64(raw[72:]), int(raw[198])}, chunkRoot: pointer{le.Uint64(raw[88:]), le.Uint64(raw[164:]), int(raw[199])},
		logRoot: le.Uint64(raw[96:]), size: le.Uint64(raw[112:]), used: le.Uint64(raw[120:]), rootFolder: le.Uint64(raw[128:]),
		sectorSize: le.Uint32(raw[144:]), nodeSize: le.Uint32(raw[148:]), roCompat: le.Uint64(raw[180:]), incompat: le.Uint64(raw[188:]),
		sum: checksums[le.Uint16(raw[196:])], device: le.Uint64(raw[201:]),
	}
	if !s.sum.right(raw, raw[sumSize:]) {
		return nil, broken("superblock", "wrong checksum")
	}
	label, _, _ := bytes.Cut(raw[299:299+256], []byte{0})
	s.label = string(label)
	if s.incompat&incompatMetadataUUID != 0 {
		s.metaUUID = [16]byte(raw[571:])
	}
	if unknown := s.unknown(); len(unknown) > 0 {
		return nil, unsupported(unknown...)
	}
	if n := le.Uint64(raw[136:]); n != 1 {
		return nil, unsupported(fmt.Sprintf("%d devices", n))
	}
	chunks := le.Uint32(raw[160:])
	power := func(n, least, most uint32) bool { return n >= least && n <= most && bits.OnesCount32(n) == 1 }
	switch {
	case le.Uint64(raw[48:]) != superOffset:
		return nil, broken("superblock", "says that it lies at %d", le.Uint64(raw[48:]))
	case le.Uint64(raw[56:])&flagsBad != 0:
		return nil, unsupported(fmt.Sprintf("flags %#x: a dump of metadata, or a change by btrfstune that was not finished", le.Uint64(raw[56:])&flagsBad))
	case !power(s.sectorSize, 4096, 64<<10), !power(s.nodeSize, s.sectorSize, 64<<10):
		return nil, broken("superblock", "sectors of %d bytes, tree blocks of %d", s.sectorSize, s.nodeSize)
	case s.size < superOffset+superSize || s.size > uint64(size):
		return nil, broken("superblock", "%d bytes, in %d", s.size, size)
	case s.used > s.size:
		return nil, broken("superblock", "%d of %d bytes are in use", s.used, s.size)
	case chunks > 2048: // BTRFS_SYSTEM_CHUNK_ARRAY_SIZE
		return nil, broken("superblock", "%d bytes of chunks", chunks)
	}
	s.chunks = bytes.Clone(raw[811:][:chunks])
	return s, nil
}

func broken(where, format string, args ...any) error {
	return &fsys.FormatError{FileSystem: "btrfs", Where: where, Problem: fmt.Sprintf(format, args...)}
}

func unsupported(features ...string) error {
	return &fsys.UnsupportedError{FileSystem: "btrfs", Features: features}
}
