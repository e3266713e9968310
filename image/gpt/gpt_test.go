package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	diskfsgpt "github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/internal/testtool"
)

const disk = 8 << 20

var goodTable = Table{
	DiskID: guid.MustParse("8a1b0f53-4f2a-4ad6-9a5e-3f6f4a5b6c7d"),
	Partitions: []Partition{{
		Type: guid.MustParse("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"), ID: guid.MustParse("11111111-2222-4333-8444-555555555555"),
		Offset: 1 << 20, Size: 4 << 20, Name: "sealboot-root",
	}, {
		Type: guid.MustParse("0fc63daf-8483-4772-8e79-3d69d8477de4"), ID: guid.MustParse("66666666-2222-4333-8444-555555555555"),
		Offset: 5 << 20, Size: 512, Name: "Größe 🙂", Attributes: 1 << 60,
	}},
}

func encode(t testing.TB, table Table) []byte {
	t.Helper()
	head, tail, err := table.Encode(disk)
	if err != nil {
		t.Fatal(err)
	}
	image := make([]byte, disk)
	copy(image, head)
	copy(image[disk-TailSize:], tail)
	return image
}

func TestEncodeRead(t *testing.T) {
	got, err := Read(bytes.NewReader(encode(t, goodTable)), disk)
	if err != nil || !reflect.DeepEqual(*got, goodTable) {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestOthersReadWhatWeWrite(t *testing.T) {
	sgdisk := testtool.Program(t, "sgdisk")
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, encode(t, goodTable), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := testtool.Output(t, sgdisk, "-v", path); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
	out := strings.ToLower(testtool.Output(t, sgdisk, "-i", "1", path))
	for _, want := range []string{goodTable.Partitions[0].ID.String(), goodTable.Partitions[0].Type.String(), "first sector: 2048 ", "last sector: 10239 ", "'sealboot-root'"} {
		if !strings.Contains(out, want) {
			t.Errorf("sgdisk -i 1 does not say %s: %s", want, out)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := diskfsgpt.Read(file.New(f, true), SectorSize, SectorSize)
	if err != nil {
		t.Fatal(err)
	}
	if p := table.Partitions[0]; p.Start != 2048 || p.End != 10239 || p.Name != "sealboot-root" || strings.ToLower(p.GUID) != goodTable.Partitions[0].ID.String() {
		t.Errorf("go-diskfs reads %+v", p)
	}
}

func TestReadsWhatSgdiskWrites(t *testing.T) {
	sgdisk := testtool.Program(t, "sgdisk")
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, disk), 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, sgdisk, "-n", "1:2048:4095", "-c", "1:one", "-t", "1:8304", "-n", "2:4096:0", path)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := Read(f, disk)
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Partitions) != 2 || table.Partitions[0].Type != goodTable.Partitions[0].Type || table.Partitions[0].Offset != 1<<20 ||
		table.Partitions[0].Size != 1<<20 || table.Partitions[0].Name != "one" {
		t.Errorf("read %+v", table.Partitions)
	}
}

// seal makes both copies' checksums right again.
func seal(b []byte) []byte {
	for _, at := range []int{SectorSize, disk - SectorSize} {
		h, entries := b[at:][:headerSize], b[2*SectorSize:][:entriesSize]
		if at != SectorSize {
			entries = b[disk-TailSize:][:entriesSize]
		}
		binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		clear(h[16:20])
		binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	}
	return b
}

func TestReadRefuses(t *testing.T) {
	if _, err := Read(bytes.NewReader(seal(encode(t, goodTable))), disk); err != nil {
		t.Fatalf("the good table: %v", err)
	}
	const first, second, tailEntries = SectorSize, disk - SectorSize, disk - TailSize
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		spoil func([]byte)
		want  error
	}{
		"nothing":              {func(b []byte) { clear(b) }, ErrNotGPT},
		"first missing":        {func(b []byte) { clear(b[first:][:512]) }, ErrDamaged},
		"second missing":       {func(b []byte) { clear(b[second:]) }, ErrDamaged},
		"first checksum":       {func(b []byte) { b[first+16]++ }, ErrDamaged},
		"second checksum":      {func(b []byte) { b[second+16]++ }, ErrDamaged},
		"first entries":        {func(b []byte) { b[2*SectorSize+60]++ }, ErrDamaged},
		"second entries":       {func(b []byte) { b[tailEntries+60]++ }, ErrDamaged},
		"copies differ":        {func(b []byte) { b[tailEntries+60]++; seal(b) }, ErrDamaged},
		"disk ids differ":      {func(b []byte) { b[second+56]++; seal(b) }, ErrDamaged},
		"slack of header":      {func(b []byte) { b[first+100]++ }, ErrDamaged},
		"points elsewhere":     {func(b []byte) { b[first+32]++; seal(b) }, ErrDamaged},
		"entries elsewhere":    {func(b []byte) { b[first+72]++; seal(b) }, ErrDamaged},
		"usable range":         {func(b []byte) { b[first+40]++; seal(b) }, ErrDamaged},
		"huge entries":         {func(b []byte) { le.PutUint32(b[first+80:], 1<<31); seal(b) }, ErrDamaged},
		"header size":          {func(b []byte) { le.PutUint32(b[first+12:], 1<<31); seal(b) }, ErrDamaged},
		"partition reversed":   {func(b []byte) { le.PutUint64(b[1024+32:], 1<<40); seal(b) }, ErrDamaged},
		"partition endless":    {func(b []byte) { le.PutUint64(b[1024+40:], 1<<63); seal(b) }, ErrDamaged},
		"partition past end":   {func(b []byte) { le.PutUint64(b[1024+40:], disk/512); seal(b) }, ErrLayout},
		"partitions overlap":   {func(b []byte) { le.PutUint64(b[1024+128+32:], 9000); seal(b) }, ErrLayout},
		"gap in the entries":   {func(b []byte) { clear(b[1024:][:16]); seal(b) }, ErrDamaged},
		"bytes after name":     {func(b []byte) { b[1024+127] = 1; seal(b) }, ErrDamaged},
		"no boot signature":    {func(b []byte) { b[510] = 0 }, ErrDamaged},
		"second MBR partition": {func(b []byte) { b[446+16+4] = 0x83 }, ErrDamaged},
		"MBR type":             {func(b []byte) { b[446+4] = 0x83 }, ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			b := encode(t, goodTable)
			c.spoil(b)
			if table, err := Read(bytes.NewReader(b), disk); table != nil || !errors.Is(err, c.want) {
				t.Errorf("got %+v, %v: want %v", table, err, c.want)
			}
		})
	}
	if _, err := Read(bytes.NewReader(nil), 512); !errors.Is(err, ErrNotGPT) {
		t.Errorf("tiny disk: %v", err)
	}
}

func TestValidate(t *testing.T) {
	for name, spoil := range map[string]func(*Table){
		"no type":        func(t *Table) { t.Partitions[0].Type = guid.GUID{} },
		"no identifier":  func(t *Table) { t.Partitions[0].ID = guid.GUID{} },
		"odd offset":     func(t *Table) { t.Partitions[0].Offset++ },
		"odd size":       func(t *Table) { t.Partitions[0].Size++ },
		"empty":          func(t *Table) { t.Partitions[0].Size = 0 },
		"over the table": func(t *Table) { t.Partitions[0].Offset = HeadSize - 512 },
		"over the end":   func(t *Table) { t.Partitions[1].Size = disk - TailSize - t.Partitions[1].Offset + 512 },
		"size wraps":     func(t *Table) { t.Partitions[1].Size = 1<<63 - 512 },
		"long name":      func(t *Table) { t.Partitions[0].Name = strings.Repeat("x", 37) },
		"overlap":        func(t *Table) { t.Partitions[1].Offset -= 512 },
		"too many":       func(t *Table) { t.Partitions = make([]Partition, 129) },
	} {
		table := Table{DiskID: goodTable.DiskID, Partitions: slices.Clone(goodTable.Partitions)}
		if err := table.Validate(disk); err != nil {
			t.Fatalf("the good table: %v", err)
		}
		spoil(&table)
		if head, tail, err := table.Encode(disk); head != nil || tail != nil || !errors.Is(err, ErrLayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, size := range []int64{0, -512, HeadSize + TailSize - 512, disk + 1} {
		if err := (Table{}).Validate(size); !errors.Is(err, ErrLayout) {
			t.Errorf("a disk of %d bytes: %v", size, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	image := encode(f, goodTable)
	f.Add(image[:HeadSize], image[disk-TailSize:])
	f.Fuzz(func(t *testing.T, head, tail []byte) {
		// A disk of just the two copies; checksums are made right so that the fuzzer gets past them.
		b := make([]byte, disk)
		copy(b, head[:min(len(head), HeadSize)])
		copy(b[disk-TailSize:], tail[:min(len(tail), TailSize)])
		seal(b)
		table, err := Read(bytes.NewReader(b), disk)
		if err != nil {
			return
		}
		again := encode(t, *table)
		copy(again[:446+8], b[:446+8])
		if !bytes.Equal(again, b) {
			t.Error("what was read is encoded otherwise")
		}
	})
}
