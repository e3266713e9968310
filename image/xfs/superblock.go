package xfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"

	"github.com/sealboot/sealboot/image/fsys"
)

var be = binary.BigEndian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// superLeast is the length of xfs_dsb as far as it is read; it lies in the first sector.
const superLeast = 512

// superblock is what counts of xfs_dsb.
type superblock struct {
	blockSize, sectorSize, inodeSize   uint32
	blockLog, inodeLog, inopLog, agLog uint8
	dirLog                             uint8
	blocks, root, logStart             uint64
	agBlocks, agCount, logBlocks       uint32
	version                            uint16
	features2                          uint32
	compat, roCompat, incompat         uint32
	uuid, metaUUID                     [16]byte
	label                              string
	free                               uint64
	realtime                           bool
}

// v5 says that metadata has checksums.
func (s *superblock) v5() bool { return s.version&versionNumber == 5 }

func (s *superblock) ftype() bool {
	if s.v5() {
		return s.incompat&incompatFtype != 0
	}
	return s.version&versionMoreBits != 0 && s.features2&features2Ftype != 0
}

// decodeSuperblock reads and checks xfs_dsb of a file system that has size bytes. raw is at least a sector.
func decodeSuperblock(raw []byte, size int64) (*superblock, error) {
	s := &superblock{
		blockSize: be.Uint32(raw[4:]), blocks: be.Uint64(raw[8:]), realtime: be.Uint64(raw[16:]) != 0 || be.Uint64(raw[24:]) != 0,
		uuid: [16]byte(raw[32:]), metaUUID: [16]byte(raw[32:]), logStart: be.Uint64(raw[48:]), root: be.Uint64(raw[56:]),
		agBlocks: be.Uint32(raw[84:]), agCount: be.Uint32(raw[88:]), logBlocks: be.Uint32(raw[96:]), version: be.Uint16(raw[100:]),
		sectorSize: uint32(be.Uint16(raw[102:])), inodeSize: uint32(be.Uint16(raw[104:])),
		blockLog: raw[120], inodeLog: raw[122], inopLog: raw[123], agLog: raw[124], free: be.Uint64(raw[144:]),
		dirLog: raw[192], features2: be.Uint32(raw[200:]),
	}
	label, _, _ := bytes.Cut(raw[108:120], []byte{0})
	s.label = string(label)
	if number := s.version & versionNumber; number != 4 && number != 5 {
		return nil, &fsys.UnsupportedError{FileSystem: "xfs", Features: []string{fmt.Sprintf("version %d", number)}}
	}
	if s.v5() {
		s.compat, s.roCompat, s.incompat = be.Uint32(raw[208:]), be.Uint32(raw[212:]), be.Uint32(raw[216:])
		if s.incompat&incompatMetaUUID != 0 {
			s.metaUUID = [16]byte(raw[248:])
		}
	}
	if unknown := s.unknown(); len(unknown) > 0 {
		return nil, &fsys.UnsupportedError{FileSystem: "xfs", Features: unknown}
	}
	return s, s.check(raw, size)
}

// check holds the numbers against each other.
func (s *superblock) check(raw []byte, size int64) error {
	power := func(n uint32, log uint8, least, most uint32) bool {
		return n >= least && n <= most && bits.OnesCount32(n) == 1 && bits.TrailingZeros32(n) == int(log)
	}
	switch {
	case !power(s.blockSize, s.blockLog, 512, 64<<10), !power(s.sectorSize, raw[121], 512, 32<<10), s.sectorSize > s.blockSize:
		return broken("superblock", "blocks of %d bytes, sectors of %d", s.blockSize, s.sectorSize)
	case !power(s.inodeSize, s.inodeLog, 256, 2048), s.inodeSize > s.blockSize, s.blockLog-s.inodeLog != s.inopLog:
		return broken("superblock", "inodes of %d bytes in blocks of %d", s.inodeSize, s.blockSize)
	case s.v5() && s.inodeSize < 512:
		return broken("superblock", "inodes of %d bytes in version 5", s.inodeSize)
	case int(s.blockLog)+int(s.dirLog) > 16:
		return broken("superblock", "folder blocks of 2^(%d+%d) bytes", s.blockLog, s.dirLog)
	case raw[126] != 0:
		return broken("superblock", "mkfs.xfs was not done")
	case s.blocks == 0, s.blocks > uint64(size)/uint64(s.blockSize):
		return broken("superblock", "%d blocks of %d bytes, in %d bytes", s.blocks, s.blockSize, size)
	case s.agBlocks < 64, int(s.agLog) != bits.Len32(s.agBlocks-1): // XFS_MIN_AG_BLOCKS
		return broken("superblock", "groups of %d blocks", s.agBlocks)
	case uint64(s.agCount) != (s.blocks+uint64(s.agBlocks)-1)/uint64(s.agBlocks):
		return broken("superblock", "%d groups of %d blocks, %d blocks", s.agCount, s.agBlocks, s.blocks)
	case s.free > s.blocks:
		return broken("superblock", "%d of %d blocks are free", s.free, s.blocks)
	case s.realtime:
		return &fsys.UnsupportedError{FileSystem: "xfs", Features: []string{"a realtime section"}}
	case s.logStart == 0:
		return &fsys.UnsupportedError{FileSystem: "xfs", Features: []string{"a log on another device"}}
	}
	return nil
}

func broken(where, format string, args ...any) error {
	return &fsys.FormatError{FileSystem: "xfs", Where: where, Problem: fmt.Sprintf(format, args...)}
}

// checksumRight says whether b has its CRC-32C at a place that counts as zeros.
func checksumRight(b []byte, at int) bool {
	sum := crc32.Update(0, castagnoli, b[:at])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	sum = crc32.Update(sum, castagnoli, b[at+4:])
	return sum == binary.LittleEndian.Uint32(b[at:])
}
