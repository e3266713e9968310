package partition

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"github.com/sealboot/sealboot/internal/guid"
)

const (
	headerGPT  = 92      // UEFI 2.10, table 5.5
	entryGPT   = 128     // table 5.6: the smallest entry
	maxEntries = 1 << 20 // bytes of entries that are read; usual tables have 16 KiB
)

var signatureGPT = []byte("EFI PART")

// readGPT tries both copies of a table, for both sizes of sectors.
func readGPT(disk io.ReaderAt, size int64) (*Table, error) {
	problem := fmt.Errorf("%w: the protective MBR stands for a GPT, which is at neither end of the disk", ErrDamaged)
	for _, backup := range []bool{false, true} {
		for _, sector := range []int64{512, 4096} {
			at := sector
			if backup {
				at = size/sector*sector - sector
			}
			t, err := readCopy(disk, size, sector, at)
			if err != nil {
				problem = err
			} else if t != nil {
				t.Backup = backup
				return t, nil
			}
		}
	}
	return nil, problem
}

// readCopy reads the copy whose header is at a place, nil if there is none.
func readCopy(disk io.ReaderAt, size, sector, at int64) (*Table, error) {
	if at < sector || at > size-sector {
		return nil, nil
	}
	header := make([]byte, sector)
	if err := readFull(disk, header, at); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(header, signatureGPT) {
		return nil, nil
	}
	problem := func(format string, args ...any) error {
		return fmt.Errorf("%w: GPT header at %d: %s", ErrDamaged, at, fmt.Sprintf(format, args...))
	}
	le := binary.LittleEndian
	length := int64(le.Uint32(header[12:]))
	if length < headerGPT || length > sector {
		return nil, problem("%d bytes", length)
	}
	sum := le.Uint32(header[16:])
	clear(header[16:20])
	if got := crc32.ChecksumIEEE(header[:length]); got != sum {
		return nil, problem("its checksum is %08x, not %08x", got, sum)
	}
	self, place := le.Uint64(header[24:]), le.Uint64(header[72:])
	count, entrySize := int64(le.Uint32(header[80:])), int64(le.Uint32(header[84:]))
	switch {
	case self != uint64(at/sector):
		return nil, problem("it says that it is at sector %d", self)
	case entrySize < entryGPT || entrySize&(entrySize-1) != 0 || entrySize > maxEntries || count == 0 || count > maxEntries/entrySize:
		return nil, problem("%d entries of %d bytes", count, entrySize)
	case place < 1 || place > uint64(size/sector) || count*entrySize > size-int64(place)*sector:
		return nil, problem("its entries are at sector %d, of a disk of %d bytes", place, size)
	}
	entries := make([]byte, count*entrySize)
	if err := readFull(disk, entries, int64(place)*sector); err != nil {
		return nil, err
	}
	if got, want := crc32.ChecksumIEEE(entries), le.Uint32(header[88:]); got != want {
		return nil, problem("the entries' checksum is %08x, not %08x", got, want)
	}
	t := &Table{Scheme: GPT, SectorSize: sector}
	for i := range count {
		p, err := decodeEntry(entries[i*entrySize:][:entryGPT], int(i)+1, sector, size)
		if err != nil {
			return nil, err
		}
		if !p.Type.IsZero() {
			t.Partitions = append(t.Partitions, p)
		}
	}
	return t, nil
}

func decodeEntry(e []byte, number int, sector, size int64) (Partition, error) {
	le := binary.LittleEndian
	p := Partition{Number: number, Type: guid.GUID(e[0:16]), ID: guid.GUID(e[16:32]).String()}
	if p.Type.IsZero() {
		return p, nil
	}
	first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
	if first == 0 || last < first || last >= uint64(size/sector) {
		return Partition{}, fmt.Errorf("%w: partition %d is from sector %d to %d, of a disk of %d bytes: is the image whole?", ErrDamaged, number, first, last, size)
	}
	p.Offset, p.Size = int64(first)*sector, int64(last-first+1)*sector
	var units []uint16
	for i := 56; i < entryGPT && le.Uint16(e[i:]) != 0; i += 2 {
		units = append(units, le.Uint16(e[i:]))
	}
	p.Name = string(utf16.Decode(units))
	return p, nil
}
