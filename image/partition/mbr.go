package partition

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	sectorMBR  = 512
	maxLogical = 250 // Linux gives a disk 255 partitions at most (block/partitions, DISK_MAX_PARTS)
)

// entry is one of the four in a sector (UEFI 2.10, table 5.2).
type entry struct {
	boot, kind   byte
	start, count int64 // sectors
}

func entriesOf(sector []byte) (list [4]entry) {
	for i := range list {
		e := sector[446+16*i:][:16]
		list[i] = entry{e[0], e[4], int64(binary.LittleEndian.Uint32(e[8:])), int64(binary.LittleEndian.Uint32(e[12:]))}
	}
	return list
}

// extended says whether an entry holds logical partitions (Linux block/partitions/msdos.c, is_extended_partition).
func (e entry) extended() bool { return e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85 }

// readMBR reads a table from the disk's first sector. The boot sector of a bare file system ends
// as an MBR does; it is told apart, as Linux does, by flags that are neither 0 nor 0x80.
func readMBR(disk io.ReaderAt, size int64, first []byte) (*Table, error) {
	t := &Table{Scheme: MBR, SectorSize: sectorMBR}
	id := binary.LittleEndian.Uint32(first[440:])
	entries := entriesOf(first)
	for _, e := range entries {
		if e.boot != 0 && e.boot != 0x80 {
			return nil, ErrNone
		}
	}
	var extended *entry
	for i, e := range entries {
		switch {
		case e.count == 0 || e.kind == 0:
		case e.extended() && extended != nil:
			return nil, fmt.Errorf("%w: two extended partitions", ErrDamaged)
		case e.extended():
			extended = &e
		default:
			t.add(id, i+1, e.kind, e.start, e.count)
		}
	}
	if extended != nil {
		if err := t.readLogical(disk, size, id, *extended); err != nil {
			return nil, err
		}
		for _, p := range t.Partitions {
			if begin, end := extended.start*sectorMBR, (extended.start+extended.count)*sectorMBR; p.Number <= 4 && p.Offset < end && begin < p.Offset+p.Size {
				return nil, fmt.Errorf("%w: partition %d overlaps the extended one", ErrDamaged, p.Number)
			}
		}
	}
	if len(t.Partitions) == 0 {
		return nil, ErrNone
	}
	return t, nil
}

func (t *Table) add(id uint32, number int, kind byte, start, count int64) {
	t.Partitions = append(t.Partitions, Partition{
		Number: number, Offset: start * sectorMBR, Size: count * sectorMBR, TypeMBR: kind, ID: fmt.Sprintf("%08x-%02x", id, number),
	})
}

// readLogical follows the chain of logical partitions: each sector of it has an entry for a
// partition, counted from that sector, and one for the next sector, counted from the extended
// partition's start. No sector may come twice.
func (t *Table) readLogical(disk io.ReaderAt, size int64, id uint32, extended entry) error {
	seen := map[int64]bool{}
	sector := make([]byte, sectorMBR)
	for at, number := extended.start, 5; ; {
		switch {
		case seen[at]:
			return fmt.Errorf("%w: the chain of logical partitions comes back to sector %d", ErrDamaged, at)
		case len(seen) == maxLogical:
			return fmt.Errorf("%w: more than %d logical partitions", ErrDamaged, maxLogical)
		case at < extended.start || at >= extended.start+extended.count || at >= size/sectorMBR:
			return fmt.Errorf("%w: the chain of logical partitions leads to sector %d, outside the extended partition or the disk", ErrDamaged, at)
		}
		seen[at] = true
		if err := readFull(disk, sector, at*sectorMBR); err != nil {
			return err
		}
		if binary.LittleEndian.Uint16(sector[510:]) != signatureMBR {
			return fmt.Errorf("%w: no signature in sector %d of the chain of logical partitions", ErrDamaged, at)
		}
		next, entries := int64(-1), entriesOf(sector)
		for _, e := range entries[:2] {
			switch {
			case e.count == 0 || e.kind == 0:
			case e.extended() && next < 0:
				next = extended.start + e.start
			case e.extended():
				return fmt.Errorf("%w: sector %d of the chain of logical partitions leads to two others", ErrDamaged, at)
			case at+e.start+e.count > extended.start+extended.count:
				return fmt.Errorf("%w: partition %d ends outside the extended one", ErrDamaged, number)
			default:
				t.add(id, number, e.kind, at+e.start, e.count)
				number++
			}
		}
		if next < 0 {
			return nil
		}
		at = next
	}
}
