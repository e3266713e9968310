// Package partition reads partition tables as other people's disks have them: GUID partition
// tables (UEFI 2.10, chapter 5) with sectors of 512 or 4096 bytes, from the first copy or, where
// that is damaged, from the one at the disk's end, also behind a hybrid MBR; and MBR tables with
// logical partitions. It takes what Linux takes; package gpt is for the strict view on our own disks.
//
// Every partition that Read gives lies within the disk, and no two overlap.
package partition

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sealboot/sealboot/internal/guid"
)

// Errors that callers tell apart.
var (
	ErrNone    = errors.New("no partition table")
	ErrDamaged = errors.New("damaged partition table")
)

// The kinds of tables.
const (
	GPT = "gpt"
	MBR = "mbr"
)

// Table is a disk's partitions, in the order of their numbers.
type Table struct {
	Scheme     string // GPT or MBR
	SectorSize int64
	Backup     bool // the first copy of a GPT is damaged, this is the other one
	Partitions []Partition
}

// Partition is a part of the disk.
type Partition struct {
	Number       int       // as Linux counts: sda1 is 1; logical partitions of an MBR begin at 5
	Offset, Size int64     // bytes
	Type         guid.GUID // GPT
	TypeMBR      byte      // MBR
	ID           string    // as Linux's PARTUUID
	Name         string    // GPT
}

const (
	signatureMBR = 0xaa55 // at 510
	protective   = 0xee   // the MBR type that stands for a GPT
)

// Read reads the table of a disk of size bytes, or gives ErrNone.
func Read(disk io.ReaderAt, size int64) (*Table, error) {
	if size < sectorMBR {
		return nil, ErrNone
	}
	first := make([]byte, sectorMBR)
	if err := readFull(disk, first, 0); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint16(first[510:]) != signatureMBR {
		return nil, ErrNone
	}
	entries := entriesOf(first)
	var t *Table
	var err error
	if slices.ContainsFunc(entries[:], func(e entry) bool { return e.kind == protective }) {
		t, err = readGPT(disk, size)
	} else {
		t, err = readMBR(disk, size, first)
	}
	if err != nil {
		return nil, err
	}
	if err := t.check(size); err != nil {
		return nil, err
	}
	return t, nil
}

// check finds partitions outside the disk and such as overlap.
func (t *Table) check(size int64) error {
	sorted := slices.Clone(t.Partitions)
	slices.SortFunc(sorted, func(a, b Partition) int { return cmp.Compare(a.Offset, b.Offset) })
	for i, p := range sorted {
		if p.Offset <= 0 || p.Size <= 0 || p.Offset > size || p.Size > size-p.Offset {
			return fmt.Errorf("%w: partition %d has %d bytes at %d, of a disk of %d bytes: is the image whole?", ErrDamaged, p.Number, p.Size, p.Offset, size)
		}
		if i > 0 && sorted[i-1].Offset+sorted[i-1].Size > p.Offset {
			return fmt.Errorf("%w: partitions %d and %d overlap", ErrDamaged, sorted[i-1].Number, p.Number)
		}
	}
	return nil
}

func readFull(r io.ReaderAt, p []byte, at int64) error {
	if n, err := r.ReadAt(p, at); n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read partition table at %d: %w", at, err)
	}
	return nil
}
