// Package gpt writes and strictly reads GUID partition tables (UEFI 2.10, chapter 5) of disks
// with sectors of 512 bytes.
//
// It is our own because the reader has to judge both copies bit by bit, which needs the encoder
// anyway; and because the builder then needs no file system library for a hundred lines. sgdisk
// and go-diskfs read the same tables in its tests.
package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"github.com/sealboot/sealboot/internal/guid"
)

const (
	SectorSize = 512

	entryCount  = 128 // the usual number, and the smallest that the standard allows
	entrySize   = 128
	entriesSize = entryCount * entrySize
	headerSize  = 92
	revision    = 0x00010000

	// HeadSize is what the protective MBR, the first header and its entries take; TailSize what
	// the second copy takes at the disk's end.
	HeadSize = 2*SectorSize + entriesSize
	TailSize = SectorSize + entriesSize
)

var signature = []byte("EFI PART")

// Errors that callers tell apart.
var (
	ErrNotGPT  = errors.New("no GUID partition table")
	ErrDamaged = errors.New("damaged partition table") // either copy
	ErrLayout  = errors.New("partitions do not fit")
)

// Partition is a part of the disk, in bytes.
type Partition struct {
	Type, ID     guid.GUID
	Offset, Size int64
	Attributes   uint64
	Name         string // at most 36 UTF-16 units
}

// Table is a disk's partitions, in the order of the table.
type Table struct {
	DiskID     guid.GUID
	Partitions []Partition
}

// Validate says whether the table can stand on a disk of the given size.
func (t Table) Validate(disk int64) error {
	if disk%SectorSize != 0 || disk < HeadSize+TailSize {
		return fmt.Errorf("%w: a disk of %d bytes", ErrLayout, disk)
	}
	if len(t.Partitions) > entryCount {
		return fmt.Errorf("%w: %d partitions, at most %d", ErrLayout, len(t.Partitions), entryCount)
	}
	for i, p := range t.Partitions {
		switch {
		case p.Type.IsZero() || p.ID.IsZero():
			return fmt.Errorf("%w: partition %d has no identifier", ErrLayout, i+1)
		case p.Offset%SectorSize != 0 || p.Size%SectorSize != 0 || p.Size <= 0 || p.Offset < HeadSize ||
			p.Offset > disk-TailSize || p.Size > disk-TailSize-p.Offset:
			return fmt.Errorf("%w: partition %d of %d bytes at %d, on a disk of %d", ErrLayout, i+1, p.Size, p.Offset, disk)
		case len(utf16.Encode([]rune(p.Name))) > 36:
			return fmt.Errorf("%w: partition %d has a name of more than 36 characters", ErrLayout, i+1)
		}
		for j, q := range t.Partitions[:i] {
			if p.Offset < q.Offset+q.Size && q.Offset < p.Offset+p.Size {
				return fmt.Errorf("%w: partitions %d and %d overlap", ErrLayout, j+1, i+1)
			}
		}
	}
	return nil
}

// Encode gives the first HeadSize and the last TailSize bytes of a disk.
func (t Table) Encode(disk int64) (head, tail []byte, err error) {
	if err := t.Validate(disk); err != nil {
		return nil, nil, err
	}
	entries := make([]byte, entriesSize)
	for i, p := range t.Partitions {
		e := entries[i*entrySize:]
		copy(e[0:], p.Type[:])
		copy(e[16:], p.ID[:])
		binary.LittleEndian.PutUint64(e[32:], uint64(p.Offset/SectorSize))
		binary.LittleEndian.PutUint64(e[40:], uint64((p.Offset+p.Size)/SectorSize-1))
		binary.LittleEndian.PutUint64(e[48:], p.Attributes)
		for j, unit := range utf16.Encode([]rune(p.Name)) {
			binary.LittleEndian.PutUint16(e[56+j*2:], unit)
		}
	}
	last := uint64(disk/SectorSize - 1)
	head = append(protectiveMBR(last), t.header(entries, 1, last, 2, last)...)
	head = append(head, entries...)
	tail = append(entries, t.header(entries, last, 1, last-entriesSize/SectorSize, last)...)
	return head, tail, nil
}

// header encodes the header that stands at sector self (UEFI 2.10, table 5.5).
func (t Table) header(entries []byte, self, other, entriesAt, last uint64) []byte {
	b := make([]byte, SectorSize)
	le := binary.LittleEndian
	copy(b, signature)
	le.PutUint32(b[8:], revision)
	le.PutUint32(b[12:], headerSize)
	le.PutUint64(b[24:], self)
	le.PutUint64(b[32:], other)
	le.PutUint64(b[40:], HeadSize/SectorSize)
	le.PutUint64(b[48:], last-TailSize/SectorSize)
	copy(b[56:], t.DiskID[:])
	le.PutUint64(b[72:], entriesAt)
	le.PutUint32(b[80:], entryCount)
	le.PutUint32(b[84:], entrySize)
	le.PutUint32(b[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:headerSize]))
	return b
}

// protectiveMBR covers the disk with one partition of type 0xEE (UEFI 2.10, table 5.4).
func protectiveMBR(last uint64) []byte {
	b := make([]byte, SectorSize)
	e := b[446:]
	copy(e, []byte{0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(last, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// Read reads both copies of a disk's table and the protective MBR. All must be whole and say the
// same; a table that Encode would write otherwise, as one of 4096-byte sectors or with more
// than 128 entries, is refused.
func Read(r io.ReaderAt, disk int64) (*Table, error) {
	if disk%SectorSize != 0 || disk < HeadSize+TailSize {
		return nil, fmt.Errorf("%w on a disk of %d bytes", ErrNotGPT, disk)
	}
	head, tail := make([]byte, HeadSize), make([]byte, TailSize)
	if err := readFull(r, head, 0); err != nil {
		return nil, err
	}
	if err := readFull(r, tail, disk-TailSize); err != nil {
		return nil, err
	}
	first, second := head[SectorSize:2*SectorSize], tail[entriesSize:]
	switch one, two := bytes.HasPrefix(first, signature), bytes.HasPrefix(second, signature); {
	case !one && !two:
		return nil, ErrNotGPT
	case !one:
		return nil, fmt.Errorf("%w: the first copy is missing", ErrDamaged)
	case !two:
		return nil, fmt.Errorf("%w: there is no second copy at the disk's end (after a resize, sgdisk -e puts it there)", ErrDamaged)
	}
	if err := checkCopy(first, head[2*SectorSize:]); err != nil {
		return nil, fmt.Errorf("%w: first copy: %s", ErrDamaged, err)
	}
	if err := checkCopy(second, tail[:entriesSize]); err != nil {
		return nil, fmt.Errorf("%w: second copy: %s", ErrDamaged, err)
	}
	t, err := parse(first, head[2*SectorSize:])
	if err != nil {
		return nil, err
	}
	wantHead, wantTail, err := t.Encode(disk)
	if err != nil {
		return nil, err
	}
	// MBR boot code, which some tools leave or write, decides nothing here.
	copy(wantHead[:446], head[:446])
	copy(wantHead[446+1:446+8], head[446+1:446+8]) // cylinders, heads and sectors differ between tools
	wantHead[446+4] = 0xee
	if at := difference(head, wantHead); at >= 0 {
		return nil, fmt.Errorf("%w: first copy: unexpected bytes at %d", ErrDamaged, at)
	}
	if at := difference(tail, wantTail); at >= 0 {
		return nil, fmt.Errorf("%w: second copy: unexpected bytes at %d", ErrDamaged, disk-TailSize+int64(at))
	}
	return t, nil
}

func checkCopy(header, entries []byte) error {
	le := binary.LittleEndian
	if le.Uint32(header[8:]) != revision || le.Uint32(header[12:]) != headerSize {
		return fmt.Errorf("revision %#x, header of %d bytes", le.Uint32(header[8:]), le.Uint32(header[12:]))
	}
	if le.Uint32(header[80:]) != entryCount || le.Uint32(header[84:]) != entrySize {
		return fmt.Errorf("%d entries of %d bytes: want %d of %d", le.Uint32(header[80:]), le.Uint32(header[84:]), entryCount, entrySize)
	}
	sum := bytes.Clone(header[:headerSize])
	clear(sum[16:20])
	if got, want := crc32.ChecksumIEEE(sum), le.Uint32(header[16:]); got != want {
		return fmt.Errorf("the header's checksum is %08x, not %08x", got, want)
	}
	if got, want := crc32.ChecksumIEEE(entries), le.Uint32(header[88:]); got != want {
		return fmt.Errorf("the entries' checksum is %08x, not %08x", got, want)
	}
	return nil
}

// parse reads the entries. Unused ones stand only behind the used ones, as Encode writes them.
func parse(header, entries []byte) (*Table, error) {
	le := binary.LittleEndian
	t := &Table{DiskID: guid.GUID(header[56:72])}
	for i := range entryCount {
		e := entries[i*entrySize:][:entrySize]
		p := Partition{Type: guid.GUID(e[0:16]), ID: guid.GUID(e[16:32]), Attributes: le.Uint64(e[48:])}
		if p.Type.IsZero() {
			continue
		}
		if i != len(t.Partitions) {
			return nil, fmt.Errorf("%w: entry %d is used, the one before is not", ErrDamaged, i+1)
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if last < first || last >= 1<<53 {
			return nil, fmt.Errorf("%w: partition %d from sector %d to %d", ErrDamaged, i+1, first, last)
		}
		p.Offset, p.Size = int64(first)*SectorSize, int64(last-first+1)*SectorSize
		units := make([]uint16, 0, 36)
		for j := range 36 {
			unit := le.Uint16(e[56+j*2:])
			if unit == 0 {
				break
			}
			units = append(units, unit)
		}
		p.Name = string(utf16.Decode(units))
		t.Partitions = append(t.Partitions, p)
	}
	return t, nil
}

func readFull(r io.ReaderAt, p []byte, at int64) error {
	if n, err := r.ReadAt(p, at); n < len(p) {
		return fmt.Errorf("read partition table at %d: %w", at, err)
	}
	return nil
}

// difference gives the first place where a and b differ, or -1.
func difference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
