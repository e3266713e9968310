package luks

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func testCipher(t testing.TB, sectorSize int) *Cipher {
	t.Helper()
	key, err := newVolumeKey(volumeKeyBytes, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCipher(key, sectorSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestStream compares with one call of the cipher, for lengths around chunks and any number of
// workers.
func TestStream(t *testing.T) {
	compared := 0
	for _, sectorSize := range []int{512, 4096} {
		c := testCipher(t, sectorSize)
		for _, size := range []int{0, sectorSize, chunkSize - sectorSize, chunkSize, chunkSize + sectorSize, 5*chunkSize + 3*sectorSize} {
			plain := make([]byte, size)
			rand.Read(plain)
			const offset = 7 << 20
			want := make([]byte, size)
			if err := c.Encrypt(want, plain, offset); err != nil {
				t.Fatal(err)
			}
			for _, workers := range []int{0, 1, 3} {
				s := Stream{Cipher: c, Offset: offset, Workers: workers}
				var encrypted, decrypted bytes.Buffer
				n, err := s.Encrypt(t.Context(), &encrypted, iotest.HalfReader(bytes.NewReader(plain)))
				if err != nil || n != int64(size) || !bytes.Equal(encrypted.Bytes(), want) {
					t.Errorf("encrypt %d bytes with %d workers: %d, %v", size, workers, n, err)
				}
				n, err = s.Decrypt(t.Context(), &decrypted, bytes.NewReader(want))
				if err != nil || n != int64(size) || !bytes.Equal(decrypted.Bytes(), plain) {
					t.Errorf("decrypt %d bytes with %d workers: %d, %v", size, workers, n, err)
				}
				compared++
			}
		}
	}
	if compared == 0 {
		t.Error("nothing compared")
	}
}

type failingWriter struct{ after int }

var errFull = errors.New("full")

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.after -= len(p); w.after < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// TestStreamFails looks that every failure ends the stream, with the bytes written until then.
func TestStreamFails(t *testing.T) {
	c := testCipher(t, 4096)
	s := Stream{Cipher: c, Workers: 2}
	endless := func() io.Reader { return zeros{} }
	if n, err := s.Encrypt(t.Context(), &failingWriter{3 * chunkSize}, endless()); !errors.Is(err, errFull) || n != 3*chunkSize {
		t.Errorf("full disk: %d, %v", n, err)
	}
	if n, err := s.Encrypt(t.Context(), io.Discard, io.MultiReader(io.LimitReader(endless(), 2*chunkSize), iotest.ErrReader(io.ErrClosedPipe))); !errors.Is(err, io.ErrClosedPipe) || n != 2*chunkSize {
		t.Errorf("broken source: %d, %v", n, err)
	}
	if n, err := s.Encrypt(t.Context(), io.Discard, io.LimitReader(endless(), chunkSize+100)); !errors.Is(err, ErrPartialSector) || n != chunkSize {
		t.Errorf("part of a sector: %d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if _, err := s.Encrypt(ctx, w, endless()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if n, err := (Stream{Cipher: c, Offset: 100}).Encrypt(t.Context(), io.Discard, io.LimitReader(endless(), 4096)); !errors.Is(err, ErrPartialSector) || n != 0 {
		t.Errorf("offset inside a sector: %d, %v", n, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestCipherRefuses has the cipher refuse all but whole sectors.
func TestCipherRefuses(t *testing.T) {
	c := testCipher(t, 4096)
	b := make([]byte, 8192)
	if err := c.Encrypt(b, b, 4096); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"length":   c.Encrypt(b, b[:100], 0),
		"offset":   c.Decrypt(b, b, 512),
		"negative": c.Decrypt(b, b, -4096),
	} {
		if !errors.Is(err, ErrPartialSector) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Encrypt(b[:4096], b, 0); err == nil {
		t.Error("a short destination was taken")
	}
	key, _ := newVolumeKey(64, rand.Reader)
	for _, sectorSize := range []int{0, 256, 513, 8192} {
		if c, err := NewCipher(key, sectorSize, 0); !errors.Is(err, ErrSize) || c != nil {
			t.Errorf("sectors of %d: %v", sectorSize, err)
		}
	}
	if c, err := NewCipher(key, 4096, 3); !errors.Is(err, ErrMalformed) || c != nil {
		t.Errorf("tweak: %v", err)
	}
	key.Wipe()
	if c, err := NewCipher(key, 4096, 0); err == nil || c != nil {
		t.Errorf("a wiped key was taken: %v", err)
	}
}

func BenchmarkStream(b *testing.B) {
	s := Stream{Cipher: testCipher(b, 4096)}
	b.SetBytes(64 << 20)
	for b.Loop() {
		if _, err := s.Encrypt(b.Context(), io.Discard, io.LimitReader(zeros{}, 64<<20)); err != nil {
			b.Fatal(err)
		}
	}
}
