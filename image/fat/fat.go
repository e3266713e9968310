// Package fat reads FAT file systems (12, 16 and 32 bits, with long names), as EFI system
// partitions are. It follows Microsoft's "FAT: General Overview of On-Disk Format", version 1.03
// ("the specification" below).
//
// Nothing of the file system is believed: a folder's chain of clusters is followed no further than
// there are clusters, a file's no further than its size; folders no deeper than 32 and none twice. The table is read in pieces, so memory is bounded by the largest folder, 2 MiB.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Errors that callers tell apart.
var (
	ErrNotFAT   = errors.New("not a FAT file system")
	ErrNotFound = errors.New("no such file")
)

// FormatError is a broken file system.
type FormatError struct{ Where, Problem string }

func (e *FormatError) Error() string { return fmt.Sprintf("broken FAT: %s: %s", e.Where, e.Problem) }

func broken(where, format string, args ...any) error {
	return &FormatError{where, fmt.Sprintf(format, args...)}
}

// Reader reads a file system. Its methods may be called from several goroutines.
type Reader struct {
	r         io.ReaderAt
	bits      int   // of an entry of the table: 12, 16 or 32
	cluster   int64 // bytes
	table     int64 // offset of the first table
	tableSize int64
	root      int64 // offset of the root folder; 0 with 32 bits
	rootSize  int64
	rootFirst uint32 // the root folder's first cluster, with 32 bits
	data      int64  // offset of cluster 2
	last      uint32 // the last cluster's number
	id        uint32
	label     string
}

const (
	firstCluster = 2
	entrySize    = 32
	maxFolder    = 65536 * entrySize // specification, "Directory Structure"
	maxDepth     = 32
)

// Open reads the boot sector of a file system in r, which has size bytes.
func Open(r io.ReaderAt, size int64) (*Reader, error) {
	b := make([]byte, 512)
	if size < int64(len(b)) {
		return nil, ErrNotFAT
	}
	if err := readFull(r, b, 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	sector, perCluster := int64(le.Uint16(b[11:])), int64(b[13])
	reserved, tables, rootEntries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	total, tableSectors := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if b[510] != 0x55 || b[511] != 0xaa || b[0] != 0xeb && b[0] != 0xe9 || sector < 512 || sector > 4096 || sector&(sector-1) != 0 ||
		perCluster == 0 || perCluster&(perCluster-1) != 0 || reserved == 0 || tables == 0 || tables > 2 || b[21] < 0xf0 {
		return nil, ErrNotFAT
	}
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	f := &Reader{r: r, cluster: sector * perCluster, table: reserved * sector}
	names := b[36:] // where the identifier and the label stand
	if tableSectors == 0 {
		f.bits, tableSectors, names = 32, int64(le.Uint32(b[36:])), b[64:]
		f.rootFirst = le.Uint32(b[44:])
		if flags := le.Uint16(b[40:]); flags&0x80 != 0 { // no mirror: one table is the active one
			if active := int64(flags & 0xf); active < tables {
				f.table += active * tableSectors * sector
			}
		}
	}
	f.tableSize = tableSectors * sector
	rootAt := (reserved + tables*tableSectors) * sector
	f.rootSize = rootEntries * entrySize
	f.data = rootAt + (f.rootSize+sector-1)/sector*sector
	clusters := (total*sector - f.data) / f.cluster
	if total*sector > size || total*sector <= f.data || clusters == 0 {
		return nil, broken("boot sector", "%d sectors of %d bytes, in %d bytes", total, sector, size)
	}
	switch {
	case f.bits == 32 && f.rootSize == 0 && clusters < 0x0ffffff5:
	case f.bits == 32 || clusters >= 65525 || f.rootSize == 0:
		return nil, broken("boot sector", "%d clusters, %d entries in the root folder", clusters, rootEntries)
	case clusters < 4085:
		f.bits, f.root = 12, rootAt
	default:
		f.bits, f.root = 16, rootAt
	}
	f.last = uint32(clusters) + firstCluster - 1
	if int64(f.last+1)*int64(f.bits) > f.tableSize*8 {
		return nil, broken("boot sector", "a table of %d bytes for %d clusters", f.tableSize, clusters)
	}
	if names[2] == 0x29 {
		f.id, f.label = le.Uint32(names[3:]), strings.TrimRight(string(names[7:18]), " ")
	}
	if f.label == "NO NAME" {
		f.label = ""
	}
	return f, nil
}

// UUID gives the volume's number as Linux's tools write it, as in UUID=1234-ABCD.
func (f *Reader) UUID() string { return fmt.Sprintf("%04X-%04X", f.id>>16, f.id&0xffff) }

// Label gives the label of the root folder, or else the boot sector's.
func (f *Reader) Label() string {
	if list, label, err := f.folder(f.rootFirst); err == nil && (label != "" || len(list) > 0) {
		return label
	}
	return f.label
}

// chain calls use for the clusters of a chain.
func (f *Reader) chain(first uint32, use func(cluster uint32) error) error {
	for n, at := uint32(0), first; ; n++ {
		if at < firstCluster || at > f.last {
			return broken(fmt.Sprintf("chain from cluster %d", first), "it leads to cluster %d of %d", at, f.last)
		}
		if n > f.last {
			return broken(fmt.Sprintf("chain from cluster %d", first), "it has no end")
		}
		if err := use(at); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return err
		}
		next, end, err := f.next(at)
		if err != nil || end {
			return err
		}
		at = next
	}
}

var errEnough = errors.New("enough")

// next reads a cluster's entry of the table.
func (f *Reader) next(cluster uint32) (next uint32, end bool, err error) {
	var b [4]byte
	le := binary.LittleEndian
	switch f.bits {
	case 12:
		err = readFull(f.r, b[:2], f.table+int64(cluster)+int64(cluster/2))
		next = uint32(le.Uint16(b[:])) >> (4 * (cluster & 1)) & 0xfff
		end = next >= 0xff8
	case 16:
		err = readFull(f.r, b[:2], f.table+int64(cluster)*2)
		next = uint32(le.Uint16(b[:]))
		end = next >= 0xfff8
	default:
		err = readFull(f.r, b[:], f.table+int64(cluster)*4)
		next = le.Uint32(b[:]) & 0x0fffffff
		end = next >= 0x0ffffff8
	}
	return next, end, err
}

func (f *Reader) place(cluster uint32) int64 {
	return f.data + int64(cluster-firstCluster)*f.cluster
}

func readFull(r io.ReaderAt, p []byte, at int64) error {
	if n, err := r.ReadAt(p, at); n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read FAT at %d: %w", at, err)
	}
	return nil
}
