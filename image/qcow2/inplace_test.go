package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// synced is a file in memory that counts its syncs and writes.
type synced struct {
	memory
	writes, syncs int
}

func (s *synced) WriteAt(p []byte, off int64) (int, error) {
	s.writes++
	return s.memory.WriteAt(p, off)
}

func (s *synced) Sync() error { s.syncs++; return nil }

func inPlace(t testing.TB, file *synced) (*InPlace, error) {
	t.Helper()
	r, err := Open(file, int64(len(file.data)))
	if err != nil {
		t.Fatal(err)
	}
	return NewInPlace(t.Context(), file, r)
}

// TestInPlace writes all over images as several programs and cluster sizes make them; QEMU agrees with every byte and
// count.
func TestInPlace(t *testing.T) {
	qemuImg := testtool.Program(t, "qemu-img")
	const size = 8 << 20
	ours := &memory{}
	w, err := NewWriter(ours, size)
	if err != nil {
		t.Fatal(err)
	}
	scatter(t, 1, size, w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	from := filepath.Join(dir, "from")
	if err := os.WriteFile(from, ours.data, 0o600); err != nil {
		t.Fatal(err)
	}
	images := map[string][]byte{"ours": ours.data}
	for _, options := range []string{"cluster_size=512", "cluster_size=4096", "cluster_size=2M", "preallocation=metadata"} {
		to := filepath.Join(dir, options)
		testtool.Output(t, qemuImg, "convert", "-f", "qcow2", "-O", "qcow2", "-o", options, from, to)
		b, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		images[options] = b
	}
	for name, image := range images {
		t.Run(name, func(t *testing.T) {
			r, err := Open(&memory{image}, int64(len(image)))
			if err != nil {
				t.Fatal(err)
			}
			want := make([]byte, size)
			if _, err := r.ReadAt(want, 0); err != nil {
				t.Fatal(err)
			}
			file := &synced{memory: memory{bytes.Clone(image)}}
			w, err := inPlace(t, file)
			if err != nil {
				t.Fatal(err)
			}
			plain := &memory{want}
			scatter(t, 2, size, w, plain)
			after, err := Open(file, int64(len(file.data)))
			if err != nil {
				t.Fatal(err)
			}
			if sum, err := after.Check(t.Context()); err != nil || sum.Leaked != 0 {
				t.Fatalf("%+v, %v", sum, err)
			}
			got := make([]byte, size)
			if _, err := after.ReadAt(got, 0); err != nil || !bytes.Equal(got, plain.data) {
				t.Errorf("other content: %v", err)
			}
			path, raw := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "raw")
			if err := os.WriteFile(path, file.data, 0o600); err != nil {
				t.Fatal(err)
			}
			testtool.Output(t, qemuImg, "check", "-f", "qcow2", path)
			testtool.Output(t, qemuImg, "convert", "-f", "qcow2", "-O", "raw", path, raw)
			if b, err := os.ReadFile(raw); err != nil || !bytes.Equal(b, plain.data) {
				t.Errorf("QEMU reads other content: %v", err)
			}
		})
	}
}

// TestInPlaceRefuses writes to a good image, and then not to such as another could be harmed by.
func TestInPlaceRefuses(t *testing.T) {
	write := func(image []byte) (*synced, error) {
		file := &synced{memory: memory{image}}
		w, err := inPlace(t, file)
		if err != nil {
			return file, err
		}
		_, err = w.WriteAt([]byte("data"), 3*ClusterSize)
		return file, err
	}
	if file, err := write(good(t)); err != nil || file.writes != 1 || file.syncs != 0 {
		t.Fatalf("%d writes, %d syncs, %v", file.writes, file.syncs, err)
	}
	w, err := inPlace(t, &synced{memory: memory{good(t)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{-1, 1<<20 - 3, 1 << 62} {
		if n, err := w.WriteAt([]byte("data"), off); n != 0 || err == nil {
			t.Errorf("wrote at %d", off)
		}
	}
	// What changed after the image was checked.
	for name, spoil := range map[string]func(b []byte){
		"compressed":     func(b []byte) { b[goodL2+24] |= 0x40 },
		"shared":         func(b []byte) { b[goodL2+24] &^= 0x80 },
		"used twice":     func(b []byte) { binary.BigEndian.PutUint16(b[goodBlock+2:], 2) },
		"table shared":   func(b []byte) { b[goodL1] &^= 0x80 },
		"not a cluster":  func(b []byte) { b[goodL2+24+6] = 2 },
		"not in a count": func(b []byte) { b[goodL2+24+3] = 0xff },
	} {
		file := &synced{memory: memory{good(t)}}
		w, err := inPlace(t, file)
		if err != nil {
			t.Fatal(err)
		}
		spoil(file.data)
		if _, err := w.WriteAt([]byte("data"), 3*ClusterSize); err == nil || file.writes > 0 {
			t.Errorf("%s: %d writes, %v", name, file.writes, err)
		}
	}
	full := &synced{memory: memory{good(t)}}
	if w, err = inPlace(t, full); err != nil {
		t.Fatal(err)
	}
	w.blocks = nil // no room for more counts
	if _, err := w.take(); !errors.Is(err, ErrNotInPlace) {
		t.Errorf("a full table: %v", err)
	}
}

// FuzzInPlace changes bytes of an image and writes to it: what was in order stays so, and holds what was written.
func FuzzInPlace(f *testing.F) {
	image := good(f)
	f.Add(uint32(goodL2+24), []byte{0x80}, uint32(goodBlock+2), []byte{0}, uint32(3*ClusterSize))
	f.Add(uint32(goodL2+24), make([]byte, 8), uint32(goodBlock+14), []byte{0, 1}, uint32(7*ClusterSize-2))
	f.Fuzz(func(t *testing.T, at uint32, change []byte, then uint32, second []byte, off uint32) {
		file := &synced{memory: memory{bytes.Clone(image)}}
		copy(file.data[int(at)%len(file.data):], change)
		copy(file.data[int(then)%len(file.data):], second)
		r, err := Open(file, int64(len(file.data)))
		if err != nil {
			return
		}
		if _, err := r.Check(t.Context()); err != nil {
			return
		}
		w, err := NewInPlace(t.Context(), file, r)
		if err != nil {
			return
		}
		place := int64(off) % r.Size()
		data := make([]byte, min(rand.New(rand.NewPCG(uint64(off), 0)).Int64N(2*ClusterSize), r.Size()-place))
		for i := range data {
			data[i] = byte(i) | 1
		}
		if _, err := w.WriteAt(data, place); err != nil {
			t.Fatalf("an image in order: %v", err)
		}
		after, err := Open(file, int64(len(file.data)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := after.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		if _, err := after.ReadAt(got, place); err != nil || !bytes.Equal(got, data) {
			t.Errorf("reads otherwise than was written: %v", err)
		}
	})
}
