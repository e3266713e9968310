package partition

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	diskfsgpt "github.com/diskfs/go-diskfs/partition/gpt"
	diskfsmbr "github.com/diskfs/go-diskfs/partition/mbr"

	"github.com/sealboot/sealboot/internal/testtool"
)

const diskSize = 16 << 20

// partitioned makes a disk with sfdisk.
func partitioned(t testing.TB, script string) string {
	t.Helper()
	sfdisk := testtool.Program(t, "sfdisk")
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, diskSize), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(sfdisk, "-q", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	return path
}

func read(t testing.TB, path string) (*Table, error) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return Read(bytes.NewReader(data), int64(len(data)))
}

const (
	scriptGPT = `label: gpt
size=1M, type=U, name=esp
size=2M, type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709, name="Größe 🙂"
start=20480, size=1M, type=L
`
	scriptMBR = `label: dos
label-id: 0xdecafbad
size=1M, type=ef
size=2M, type=83
type=5
size=1M, type=83
size=1M, type=82
size=1M, type=83
`
)

// sfdiskPartition is what sfdisk --json says of a partition.
type sfdiskPartition struct {
	Node             string
	Start, Size      int64
	Type, UUID, Name string
}

// same compares a table with what sfdisk says.
func same(t *testing.T, path string, table *Table) {
	t.Helper()
	var said struct {
		PartitionTable struct {
			Partitions []sfdiskPartition
		}
	}
	out := testtool.Output(t, testtool.Program(t, "sfdisk"), "--json", path)
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		t.Fatal(err)
	}
	want := said.PartitionTable.Partitions
	if table.Scheme == MBR { // sfdisk lists the extended partition too
		var kept []sfdiskPartition
		for _, p := range want {
			if p.Type != "5" && p.Type != "f" {
				kept = append(kept, p)
			}
		}
		want = kept
	}
	if len(want) == 0 || len(want) != len(table.Partitions) {
		t.Fatalf("%d partitions, sfdisk says %d:\n%s", len(table.Partitions), len(want), out)
	}
	for i, p := range table.Partitions {
		w := want[i]
		if !strings.HasSuffix(w.Node, "disk"+itoa(p.Number)) || p.Offset != w.Start*table.SectorSize || p.Size != w.Size*table.SectorSize || p.Name != w.Name {
			t.Errorf("got %+v, sfdisk says %+v", p, w)
		}
		if table.Scheme == GPT && (p.Type.String() != strings.ToLower(w.Type) || p.ID != strings.ToLower(w.UUID)) {
			t.Errorf("got %+v, sfdisk says %+v", p, w)
		}
	}
}

func itoa(n int) string { return string(rune('0' + n)) }

func TestReadsWhatSfdiskWrites(t *testing.T) {
	for name, c := range map[string]struct {
		script, scheme string
	}{
		"GPT": {scriptGPT, GPT}, "MBR": {scriptMBR, MBR},
		"GPT 200 slots": {"label: gpt\ntable-length: 200\nsize=1M, type=L\n", GPT},
	} {
		t.Run(name, func(t *testing.T) {
			path := partitioned(t, c.script)
			table, err := read(t, path)
			if err != nil {
				t.Fatal(err)
			}
			if table.Scheme != c.scheme || table.SectorSize != 512 || table.Backup {
				t.Errorf("got %+v", table)
			}
			same(t, path, table)
		})
	}
	mbr, err := read(t, partitioned(t, scriptMBR))
	if err != nil {
		t.Fatal(err)
	}
	if last := mbr.Partitions[len(mbr.Partitions)-1]; last.Number != 7 || last.ID != "decafbad-07" || last.TypeMBR != 0x83 || mbr.Partitions[0].TypeMBR != 0xef {
		t.Errorf("got %+v", mbr.Partitions)
	}
}

func TestGoDiskfsAgrees(t *testing.T) {
	for script, c := range map[string]func(*os.File) (int64, int64, error){
		scriptGPT: func(f *os.File) (int64, int64, error) {
			t, err := diskfsgpt.Read(file.New(f, true), 512, 512)
			if err != nil {
				return 0, 0, err
			}
			return int64(t.Partitions[1].Start), int64(t.Partitions[1].End - t.Partitions[1].Start + 1), nil
		},
		scriptMBR: func(f *os.File) (int64, int64, error) {
			t, err := diskfsmbr.Read(file.New(f, true), 512, 512)
			if err != nil {
				return 0, 0, err
			}
			return int64(t.Partitions[1].Start), int64(t.Partitions[1].Size), nil
		},
	} {
		path := partitioned(t, script)
		table, err := read(t, path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		start, size, err := c(f)
		if p := table.Partitions[1]; err != nil || p.Offset != start*512 || p.Size != size*512 {
			t.Errorf("got %+v, go-diskfs %d sectors at %d, %v", p, size, start, err)
		}
	}
}

func TestLargeSectors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	made := &diskfsgpt.Table{LogicalSectorSize: 4096, PhysicalSectorSize: 4096, ProtectiveMBR: true, Partitions: []*diskfsgpt.Partition{
		{Index: 1, Start: 256, End: 511, Type: diskfsgpt.EFISystemPartition, Name: "esp"}, {Index: 3, Start: 512, End: 1000, Type: diskfsgpt.LinuxFilesystem},
	}}
	if err := made.Write(f, diskSize); err != nil {
		t.Fatal(err)
	}
	table, err := read(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if p := table.Partitions; table.SectorSize != 4096 || len(p) != 2 || p[0].Offset != 1<<20 || p[0].Size != 1<<20 || p[0].Name != "esp" || p[1].Offset != 2<<20 {
		t.Errorf("got %+v", table)
	}
}

func TestBackupAndHybrid(t *testing.T) {
	path := partitioned(t, scriptGPT)
	want, err := read(t, path)
	if err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "sgdisk"), "-h", "1:2", path)
	hybrid, err := read(t, path)
	if err != nil || hybrid.Scheme != GPT || len(hybrid.Partitions) != len(want.Partitions) {
		t.Errorf("hybrid: %+v, %v", hybrid, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(data[512:1024])
	backup, err := Read(bytes.NewReader(data), diskSize)
	if err != nil || !backup.Backup || len(backup.Partitions) != len(want.Partitions) || backup.Partitions[1] != want.Partitions[1] {
		t.Errorf("backup: %+v, %v", backup, err)
	}
	clear(data[diskSize-512:])
	if table, err := Read(bytes.NewReader(data), diskSize); table != nil || !errors.Is(err, ErrDamaged) {
		t.Errorf("neither copy: %+v, %v", table, err)
	}
}

// sealGPT makes the first copy's checksums right again and takes the second away.
func sealGPT(b []byte) {
	le := binary.LittleEndian
	n := le.Uint32(b[512+80:]) * le.Uint32(b[512+84:])
	if n <= 16384 {
		le.PutUint32(b[512+88:], crc32.ChecksumIEEE(b[1024:][:n]))
	}
	clear(b[512+16 : 512+20])
	le.PutUint32(b[512+16:], crc32.ChecksumIEEE(b[512:][:min(le.Uint32(b[512+12:]), 512)]))
	clear(b[len(b)-512:])
}

func TestRefuses(t *testing.T) {
	le := binary.LittleEndian
	var good [2][]byte
	for i, script := range []string{scriptGPT, scriptMBR} {
		data, err := os.ReadFile(partitioned(t, script))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			sealGPT(data)
		}
		if _, err := Read(bytes.NewReader(data), diskSize); err != nil {
			t.Fatalf("the good disk %d: %v", i, err)
		}
		good[i] = data
	}
	const entry3 = 446 + 2*16 // the extended partition
	chain := int64(le.Uint32(good[1][entry3+8:])) * 512
	for name, c := range map[string]struct {
		which int
		spoil func([]byte)
		want  error
	}{
		"no signature":     {0, func(b []byte) { b[510] = 0 }, ErrNone},
		"header checksum":  {0, func(b []byte) { b[512+56]++ }, ErrDamaged},
		"entries checksum": {0, func(b []byte) { b[1024+60]++ }, ErrDamaged},
		"header length":    {0, func(b []byte) { le.PutUint32(b[512+12:], 4096); sealGPT(b) }, ErrDamaged},
		"self elsewhere":   {0, func(b []byte) { b[512+24] = 2; sealGPT(b) }, ErrDamaged},
		"huge table":       {0, func(b []byte) { le.PutUint32(b[512+80:], 1<<31); sealGPT(b) }, ErrDamaged},
		"odd entries":      {0, func(b []byte) { le.PutUint32(b[512+84:], 129); sealGPT(b) }, ErrDamaged},
		"entries outside":  {0, func(b []byte) { le.PutUint64(b[512+72:], 1<<60); sealGPT(b) }, ErrDamaged},
		"ends outside":     {0, func(b []byte) { le.PutUint64(b[1024+40:], diskSize/512); sealGPT(b) }, ErrDamaged},
		"reversed":         {0, func(b []byte) { le.PutUint64(b[1024+40:], 1); sealGPT(b) }, ErrDamaged},
		"overlap":          {0, func(b []byte) { le.PutUint64(b[1024+40:], 5000); sealGPT(b) }, ErrDamaged},
		"boot sector":      {1, func(b []byte) { b[446] = 0x33 }, ErrNone},
		"empty MBR":        {1, func(b []byte) { clear(b[446:510]) }, ErrNone},
		"MBR outside":      {1, func(b []byte) { le.PutUint32(b[446+12:], 1<<31) }, ErrDamaged},
		"MBR overlap":      {1, func(b []byte) { le.PutUint32(b[446+12:], 2049) }, ErrDamaged},
		"two extended":     {1, func(b []byte) { b[446+4] = 0x0f }, ErrDamaged},
		"chain signature":  {1, func(b []byte) { b[chain+510] = 0 }, ErrDamaged},
		"chain loops":      {1, func(b []byte) { le.PutUint32(b[chain+446+16+8:], 0) }, ErrDamaged},
		"chain leaves":     {1, func(b []byte) { le.PutUint32(b[chain+446+16+8:], 1<<30) }, ErrDamaged},
		"chain splits":     {1, func(b []byte) { b[chain+446+4] = 5 }, ErrDamaged},
		"logical outside":  {1, func(b []byte) { le.PutUint32(b[chain+446+12:], 1<<30) }, ErrDamaged},
		"extended overlap": {1, func(b []byte) { le.PutUint32(b[446+16+12:], 5000) }, ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(good[c.which])
			c.spoil(b)
			if table, err := Read(bytes.NewReader(b), diskSize); table != nil || !errors.Is(err, c.want) {
				t.Errorf("got %+v, %v: want %v", table, err, c.want)
			}
		})
	}
	if table, err := Read(bytes.NewReader(good[0]), 511); table != nil || !errors.Is(err, ErrNone) {
		t.Errorf("tiny: %+v, %v", table, err)
	}
	if table, err := Read(bytes.NewReader(good[1]), 2<<20); table != nil || !errors.Is(err, ErrDamaged) {
		t.Errorf("cut: %+v, %v", table, err)
	}
}

func FuzzRead(f *testing.F) {
	for _, script := range []string{scriptGPT, scriptMBR} {
		data, err := os.ReadFile(partitioned(f, script))
		if err != nil {
			f.Fatal(err)
		}
		at := 0
		if script == scriptMBR {
			at = int(binary.LittleEndian.Uint32(data[446+2*16+8:])) * 512
		}
		f.Add(data[:34*512], data[at:at+512], uint32(at))
	}
	f.Fuzz(func(t *testing.T, head, more []byte, at uint32) {
		b := make([]byte, 4<<20)
		copy(b, head)
		copy(b[at%(4<<20):], more)
		if bytes.HasPrefix(b[512:], signatureGPT) {
			sealGPT(b)
		}
		table, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if table != nil {
				t.Fatal("a table beside an error")
			}
			return
		}
		for _, p := range table.Partitions {
			if p.Offset <= 0 || p.Size <= 0 || p.Offset+p.Size > int64(len(b)) {
				t.Fatalf("%+v", p)
			}
		}
	})
}
