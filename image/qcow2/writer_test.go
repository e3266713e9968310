package qcow2

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// memory is a file that holds its bytes in memory and reads as zeros where it was not written.
type memory struct{ data []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(m.data)) {
		m.Truncate(end)
	}
	return copy(m.data[off:], p), nil
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.data).ReadAt(p, off)
}

func (m *memory) Truncate(size int64) error {
	m.data = append(m.data, make([]byte, max(0, size-int64(len(m.data))))...)[:size]
	return nil
}

// l2Span is what an L2 table describes where clusters have the usual size.
const l2Span = ClusterSize / 8 * ClusterSize

// scatter writes random pieces at random places to all of the given disks.
func scatter(t *testing.T, seed uint64, size int64, disks ...io.WriterAt) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	for range 40 {
		off := random.Int64N(size)
		p := make([]byte, min(random.Int64N(3*ClusterSize)+1, size-off))
		for i := range p {
			p[i] = byte(random.Uint32())
		}
		for _, d := range disks {
			if n, err := d.WriteAt(p, off); n != len(p) || err != nil {
				t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
			}
		}
	}
}

func TestQEMUReadsWhatWeWrite(t *testing.T) {
	qemuImg := testtool.Program(t, "qemu-img")
	for name, c := range map[string]struct {
		size    int64
		options Options
	}{
		"small": {512, Options{}}, "odd": {3*ClusterSize + 512, Options{}}, "two tables": {l2Span + 5*ClusterSize, Options{}}, "large": {5 << 40, Options{}},
		"4k clusters": {9<<20 + 512, Options{ClusterSize: 4 << 10}}, "2M clusters": {9<<20 + 512, Options{ClusterSize: 2 << 20}},
		"mapped": {600<<20 + 512, Options{MapAll: true}}, "mapped 4k": {9<<20 + 512, Options{ClusterSize: 4 << 10, MapAll: true}}, "mapped 2M": {64 << 20, Options{ClusterSize: 2 << 20, MapAll: true}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, size := t.TempDir(), c.size
			image, raw := create(t, filepath.Join(dir, "disk.qcow2")), create(t, filepath.Join(dir, "disk.raw"))
			if err := raw.Truncate(size); err != nil {
				t.Fatal(err)
			}
			w, err := NewWriterWith(image, size, c.options)
			if err != nil {
				t.Fatal(err)
			}
			scatter(t, 1, min(size, 4<<20), w, raw)
			if size > 4<<20 {
				scatter(t, 2, 4<<20, shifted{w, size - 4<<20}, shifted{raw, size - 4<<20})
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			testtool.Output(t, qemuImg, "check", "-f", "qcow2", image.Name())
			testtool.Output(t, qemuImg, "compare", "-f", "qcow2", "-F", "raw", image.Name(), raw.Name())
			var told struct {
				ClusterSize int64 `json:"cluster-size"`
			}
			if err := json.Unmarshal([]byte(testtool.Output(t, qemuImg, "info", "--output=json", image.Name())), &told); err != nil || told.ClusterSize != c.options.cluster() {
				t.Errorf("qemu-img tells clusters of %d bytes, want %d (%v)", told.ClusterSize, c.options.cluster(), err)
			}
			info, err := image.Stat()
			if err != nil {
				t.Fatal(err)
			}
			r, err := Open(image, info.Size())
			if err != nil {
				t.Fatal(err)
			}
			sum, err := r.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if whole := roundUp(size, w.cluster); sum.Allocated != w.Allocated() || c.options.MapAll && sum.Allocated != whole {
				t.Errorf("%d bytes are allocated, the writer tells %d, the disk has %d", sum.Allocated, w.Allocated(), whole)
			}
		})
	}
}

type shifted struct {
	io.WriterAt
	by int64
}

func (s shifted) WriteAt(p []byte, off int64) (int, error) { return s.WriterAt.WriteAt(p, off+s.by) }

func create(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestReadBack(t *testing.T) {
	const size = l2Span + 4<<20
	want, image := &memory{}, &memory{}
	want.Truncate(4 << 20)
	w, err := NewWriter(image, size)
	if err != nil {
		t.Fatal(err)
	}
	const at = l2Span - 2<<20 // across two tables
	scatter(t, 3, 4<<20, want, shifted{w, at})
	got := make([]byte, 4<<20)
	if _, err := w.ReadAt(got, at); err != nil || !bytes.Equal(got, want.data) {
		t.Fatalf("the writer reads other bytes back (%v)", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(image, int64(len(image.data)))
	if err != nil {
		t.Fatal(err)
	}
	clear(got)
	if n, err := r.ReadAt(got, at); n != len(got) || err != nil || !bytes.Equal(got, want.data) {
		t.Fatalf("the reader reads other bytes back (%d, %v)", n, err)
	}
	sum, err := r.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if sum.Allocated != w.Allocated() || sum.Clusters*ClusterSize != int64(len(image.data)) {
		t.Errorf("Check found %+v, written were %d bytes, %d of file", sum, w.Allocated(), len(image.data))
	}
	if n, err := r.ReadAt(got, size-1); n != 1 || !errors.Is(err, io.EOF) {
		t.Errorf("reading over the end gave %d, %v", n, err)
	}
	found := int64(0)
	err = r.Allocated(func(_, n int64) error { found += n; return nil })
	if err != nil || found != sum.Allocated {
		t.Errorf("Allocated listed %d bytes of %d, %v", found, sum.Allocated, err)
	}
}

func TestEqualCallsMakeEqualFiles(t *testing.T) {
	const size, piece = 64 << 20, 1 << 20
	make1 := func(workers int) []byte {
		image := &lockedMemory{}
		w, err := NewWriter(image, size)
		if err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		work := make(chan int64)
		for range workers {
			wait.Go(func() {
				for off := range work {
					if _, err := w.WriteAt(bytes.Repeat([]byte{byte(off / piece)}, piece), off); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for _, off := range rand.New(rand.NewPCG(4, 0)).Perm(size / piece) {
			if err := w.Reserve(int64(off)*piece, piece); err != nil {
				t.Fatal(err)
			}
			work <- int64(off) * piece
		}
		close(work)
		wait.Wait()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return image.data
	}
	if !bytes.Equal(make1(1), make1(4)) {
		t.Error("four workers made another file than one")
	}
}

type lockedMemory struct {
	memory
	mu sync.Mutex
}

func (m *lockedMemory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.memory.WriteAt(p, off)
}

func TestWriterRefuses(t *testing.T) {
	for _, size := range []int64{0, -512, 513, MaxSize + 512} {
		if _, err := NewWriter(&memory{}, size); err == nil {
			t.Errorf("NewWriter took a disk of %d bytes", size)
		}
	}
	good := Options{ClusterSize: SmallestCluster}
	if _, err := NewWriterWith(&memory{}, 2<<40, good); err != nil {
		t.Fatalf("the largest disk of the smallest clusters: %v", err)
	}
	if _, err := NewWriterWith(&memory{}, 2<<40+512, good); err == nil {
		t.Error("NewWriterWith took a disk that its L1 table cannot describe")
	}
	for _, cluster := range []int64{-1, 1, 512, 2048, 65535, 4 << 20} {
		if _, err := NewWriterWith(&memory{}, 1<<20, Options{ClusterSize: cluster}); err == nil {
			t.Errorf("NewWriterWith took clusters of %d bytes", cluster)
		}
	}
	image := &memory{}
	w, err := NewWriter(image, ClusterSize)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{-1, ClusterSize, ClusterSize - 1, 1 << 62} {
		if n, err := w.WriteAt([]byte{1, 2}, off); n != 0 || err == nil {
			t.Errorf("WriteAt at %d gave %d, %v", off, n, err)
		}
	}
	if _, err := Open(image, int64(len(image.data))); !errors.Is(err, ErrNotQCOW2) {
		t.Errorf("an unfinished file is read as %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt([]byte{1}, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("writing after Close gave %v", err)
	}
	if err := w.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("closing twice gave %v", err)
	}
}
