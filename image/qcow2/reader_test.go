package qcow2

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// good makes a small image with two clusters of data.
func good(t testing.TB) []byte {
	t.Helper()
	image := &memory{}
	w, err := NewWriter(image, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{3 * ClusterSize, 5 * ClusterSize} {
		if _, err := w.WriteAt([]byte("data"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return image.data
}

func check(t testing.TB, image []byte) error {
	r, err := Open(&memory{image}, int64(len(image)))
	if err != nil {
		return err
	}
	_, err = r.Check(t.Context())
	return err
}

// Where good has its parts: header, two clusters of data, L2, L1, reference count table and block.
const (
	goodL2     = 3 * ClusterSize
	goodL1     = 4 * ClusterSize
	goodCounts = 5 * ClusterSize
	goodBlock  = 6 * ClusterSize
	goodEnd    = 7 * ClusterSize
)

func TestRefusesSpoiltImages(t *testing.T) {
	if image := good(t); len(image) != goodEnd {
		t.Fatalf("the good image has %#x bytes", len(image))
	} else if err := check(t, image); err != nil {
		t.Fatalf("the good image: %v", err)
	}
	put32 := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint32(b[at:], v); return b }
	}
	put64 := func(at int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint64(b[at:], v); return b }
	}
	format := errors.New("any *FormatError")
	for name, c := range map[string]struct {
		spoil func([]byte) []byte
		want  error
	}{
		"empty":                 {func([]byte) []byte { return nil }, ErrNotQCOW2},
		"magic":                 {put32(0, magic+1), ErrNotQCOW2},
		"version 2":             {put32(4, 2), ErrUnsupported},
		"header cut":            {func(b []byte) []byte { return b[:100] }, format},
		"header length":         {put32(100, 96), format},
		"header length odd":     {put32(100, 108), format},
		"header beyond cluster": {put32(100, 2*ClusterSize), format},
		"backing file":          {put64(8, 200), ErrUnsupported},
		"encrypted":             {put32(32, 2), ErrUnsupported},
		"snapshots":             {put32(60, 1), ErrUnsupported},
		"dirty":                 {put64(72, 1), ErrUnsupported},
		"corrupt":               {put64(72, 2), ErrUnsupported},
		"external data":         {put64(72, 4), ErrUnsupported},
		"extended L2":           {put64(72, 16), ErrUnsupported},
		"bitmaps":               {put64(88, 1), ErrUnsupported},
		"8-bit counts":          {put32(96, 3), ErrUnsupported},
		"cluster bits 8":        {put32(20, 8), format},
		"cluster bits 22":       {put32(20, 22), format},
		"bitmaps extension":     {put32(104, 0x23852875), ErrUnsupported},
		"endless extension":     {func(b []byte) []byte { return put32(108, 1<<31)(put32(104, 7)(b)) }, format},
		"disk size odd":         {put64(24, 1<<20+1), format},
		"disk size huge":        {put64(24, 1<<63), format},
		"disk larger than L1":   {put64(24, l2Span+512), format},
		"L1 huge":               {put32(36, 1<<31), format},
		"L1 nowhere":            {put64(40, 0), format},
		"L1 beyond the file":    {put64(40, goodEnd), format},
		"L1 overlaps header":    {put32(36, 1<<22), format},
		"L1 entry reserved":     {put64(goodL1, goodL2|flagCopied|1<<60), format},
		"L1 entry not copied":   {put64(goodL1, goodL2), format},
		"L1 entry unaligned":    {put64(goodL1, goodL2|flagCopied|512), format},
		"L1 entry outside":      {put64(goodL1, 1<<40|flagCopied), format},
		"L2 compressed":         {put64(goodL2+24, flagCompressed|ClusterSize), ErrUnsupported},
		"L2 reserved":           {put64(goodL2+24, flagCopied|ClusterSize|2), format},
		"L2 not copied":         {put64(goodL2+24, ClusterSize), format},
		"L2 outside":            {put64(goodL2+24, goodEnd|flagCopied), format},
		"L2 past the disk":      {func(b []byte) []byte { return put64(goodL2+24, 0)(put64(goodL2+16*8, ClusterSize|flagCopied)(b)) }, format},
		"cluster used twice": {func(b []byte) []byte {
			binary.BigEndian.PutUint16(b[goodBlock+2:], 0) // the count of the cluster that is no longer used
			return put64(goodL2+24, 2*ClusterSize|flagCopied)(b)
		}, format},
		"cluster is the header's":  {put64(goodL2+24, goodL1|flagCopied), format},
		"count zero":               {put64(goodBlock, 0), format},
		"count two":                {put32(goodBlock, 2<<16|1), format},
		"no count block":           {put64(goodCounts, 0), format},
		"count block outside":      {put64(goodCounts, goodEnd), format},
		"count block twice":        {put64(goodCounts+8, goodBlock), format},
		"count table nowhere":      {put64(48, 0), format},
		"count table huge":         {put32(56, 1<<20), format},
		"count table empty":        {put32(56, 0), format},
		"file cut before counts":   {func(b []byte) []byte { return b[:goodBlock] }, format},
		"file cut before L1 table": {func(b []byte) []byte { return b[:goodL1] }, format},
	} {
		t.Run(name, func(t *testing.T) {
			err := check(t, c.spoil(good(t)))
			if broken := (*FormatError)(nil); c.want == format && !errors.As(err, &broken) || c.want != format && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestLeaks has clusters that are counted and not used, which is no fault.
func TestLeaks(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func([]byte)
		want  int64
	}{
		"none":            {func([]byte) {}, 0},
		"in the file":     {func(b []byte) { clear(b[goodL2+24:][:8]) }, 1},
		"beyond the file": {func(b []byte) { b[goodBlock+2*7+1], b[goodBlock+2*9] = 1, 1 }, 2},
	} {
		image := good(t)
		c.spoil(image)
		r, err := Open(&memory{image}, int64(len(image)))
		if err != nil {
			t.Fatal(err)
		}
		if sum, err := r.Check(t.Context()); err != nil || sum.Leaked != c.want {
			t.Errorf("%s: %+v, %v", name, sum, err)
		}
	}
}

func TestClusterMap(t *testing.T) {
	m := &clusterMap{bits: make([]uint64, 3), cluster: 512, total: 150}
	if err := errors.Join(m.mark(0, 1, "x"), m.mark(70*512, 2, "x"), m.mark(149*512, 1, "x")); err != nil || m.count != 4 {
		t.Fatalf("%d marked, %v", m.count, err)
	}
	for from, want := range map[int64]int64{0: 0, 1: 70, 70: 70, 71: 71, 72: 149, 149: 149, 150: -1} {
		if got := m.first(from, 1000); got != want {
			t.Errorf("first used from %d: %d, want %d", from, got, want)
		}
	}
	if got := m.first(1, 69); got != -1 {
		t.Errorf("first used of 1 to 69: %d", got)
	}
	for _, at := range []int64{150, 192, 1 << 40} {
		if err := m.mark(at*512, 1, "x"); err == nil || m.has(at) {
			t.Errorf("cluster %d of 150 was marked", at)
		}
	}
	if err := m.mark(69*512, 2, "x"); err == nil {
		t.Error("a cluster was marked twice")
	}
}

// TestReadsWhatQEMUWrites reads images of all cluster sizes, with zero clusters in them.
func TestReadsWhatQEMUWrites(t *testing.T) {
	qemuImg, qemuIO := testtool.Program(t, "qemu-img"), testtool.Program(t, "qemu-io")
	for _, cluster := range []string{"512", "64k", "2M"} {
		t.Run(cluster, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "disk.qcow2")
			testtool.Output(t, qemuImg, "create", "-q", "-f", "qcow2", "-o", "cluster_size="+cluster, image, "9M")
			readable(t, image)
			testtool.Output(t, qemuIO, "-f", "qcow2", "-c", "write -P 7 1M 3M", "-c", "write -P 8 8M 512", "-c", "write -z 2M 64k", image)
			r := readable(t, image)
			for at, want := range map[int64]byte{0: 0, 1 << 20: 7, 2 << 20: 0, 2<<20 + 65535: 0, 2<<20 + 65536: 7, 4<<20 - 1: 7, 4 << 20: 0, 8<<20 + 511: 8, 8<<20 + 512: 0, 9<<20 - 1: 0} {
				var b [1]byte
				if _, err := r.ReadAt(b[:], at); err != nil || b[0] != want {
					t.Errorf("at %#x: %d, %v: want %d", at, b[0], err, want)
				}
			}
		})
	}
}

func readable(t *testing.T, image string) *Reader {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// FuzzOpen looks for images that make the reader fail otherwise than with an error. What
// passes Check must be readable from end to end.
func FuzzOpen(f *testing.F) {
	image, err := os.ReadFile("testdata/small.qcow2") // clusters of 512 bytes; see testdata/README.md
	if err != nil {
		f.Fatal(err)
	}
	if err := check(f, image); err != nil {
		f.Fatalf("the seed: %v", err)
	}
	f.Add(image)
	f.Add(image[:len(image)-512])
	f.Fuzz(func(t *testing.T, image []byte) {
		r, err := Open(&memory{image}, int64(len(image)))
		if err != nil {
			if r != nil {
				t.Fatal("a reader beside an error")
			}
			return
		}
		sum, err := r.Check(t.Context())
		if err != nil {
			if sum != nil {
				t.Fatal("a summary beside an error")
			}
			return
		}
		buf := make([]byte, 4096)
		err = r.Allocated(func(off, n int64) error {
			if off < 0 || n <= 0 || off+n > r.Size() {
				t.Fatalf("allocated: %d bytes at %d of %d", n, off, r.Size())
			}
			_, err := r.ReadAt(buf[:min(n, int64(len(buf)))], off)
			return err
		})
		if err != nil {
			t.Fatalf("Check passed, reading failed: %v", err)
		}
	})
}
