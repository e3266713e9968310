package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealboot/sealboot/image/qcow2"
	"github.com/sealboot/sealboot/luks"
)

const (
	testBase = 3 << 20
	testSize = 40<<20 + 3*pieceSize
)

func testPayload(t testing.TB, ctx context.Context, workers int) (*payload, *qcow2.Writer, *luks.Cipher, *os.File) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	disk, err := qcow2.NewWriter(f, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := luks.Format(luks.Spec{KDF: luks.MinimalPBKDF2}, passphrase, rand.NewChaCha8([32]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	cipher, err := luks.NewCipher(key, 4096, 0)
	if err != nil {
		t.Fatal(err)
	}
	return newPayload(ctx, disk, testBase, testSize, cipher, workers), disk, cipher, f
}

// TestPayloadTakesWritesInAnyOrder writes and copies small and large pieces all over, again and again.
func TestPayloadTakesWritesInAnyOrder(t *testing.T) {
	p, disk, cipher, f := testPayload(t, t.Context(), 3)
	want := make([]byte, testSize)
	written := map[int64]bool{}
	random := rand.New(rand.NewPCG(7, 7))
	for range 400 {
		off := random.Int64N(testSize)
		data := noise(byte(random.Uint32()), int(min(random.Int64N(300_000)+1, testSize-off)))
		if random.IntN(2) == 0 {
			if err := p.CopyAt(shifted{bytes.NewReader(data), off}, off, int64(len(data))); err != nil {
				t.Fatalf("CopyAt(%d, %d bytes): %v", off, len(data), err)
			}
		} else if n, err := p.WriteAt(data, off); n != len(data) || err != nil {
			t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(data), off, n, err)
		}
		copy(want[off:], data)
		for piece := off / pieceSize; piece*pieceSize < off+int64(len(data)); piece++ {
			written[piece] = true
		}
	}
	digest, n, err := p.Close(nil)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(len(written))*pieceSize || disk.Allocated() != n {
		t.Errorf("%d bytes written, %d allocated, want %d", n, disk.Allocated(), len(written)*pieceSize)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	image, err := qcow2.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	got, piece := &plain{disk: image, base: testBase, size: testSize, cipher: cipher}, make([]byte, pieceSize)
	for number := range written {
		if _, err := got.ReadAt(piece, number*pieceSize); err != nil || !bytes.Equal(piece, want[number*pieceSize:][:pieceSize]) {
			t.Fatalf("piece %d differs (%v)", number, err)
		}
	}
	found, err := scanPayload(t.Context(), image, got, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again := digestOf(testSize, found.leaves); again != digest {
		t.Errorf("the content digest is %s when built, %s when read", digest, again)
	}
	if plainly := plainDigest(want, written); plainly != digest {
		t.Errorf("the content digest is %s, by its definition %s", digest, plainly)
	}
}

// shifted is a reader whose bytes begin at an offset.
type shifted struct {
	io.ReaderAt
	by int64
}

func (s shifted) ReadAt(b []byte, off int64) (int, error) { return s.ReaderAt.ReadAt(b, off-s.by) }

// TestPayloadOfShortSource copies from a source that became shorter.
func TestPayloadOfShortSource(t *testing.T) {
	p, _, _, _ := testPayload(t, t.Context(), 2)
	err := p.CopyAt(bytes.NewReader(make([]byte, 3<<20)), 0, 4<<20)
	if d, _, closed := p.Close(err); !errors.Is(closed, io.ErrUnexpectedEOF) || d != (Digest{}) {
		t.Errorf("Close: %v, %v", d, closed)
	}
	p, _, _, _ = testPayload(t, t.Context(), 2)
	defer p.Close(nil)
	for _, bad := range [][2]int64{{-1, 1}, {0, -1}, {testSize, 1}, {1 << 62, 1 << 62}} {
		if err := p.CopyAt(nil, bad[0], bad[1]); err == nil {
			t.Errorf("CopyAt took %d bytes at %d", bad[1], bad[0])
		}
	}
}

// plainDigest computes the content digest as Digest's comment defines it, without any of its code.
func plainDigest(plain []byte, written map[int64]bool) Digest {
	be64 := func(n int) []byte {
		return []byte{0, 0, 0, byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	}
	out := append([]byte("sealboot content digest 2\n"), be64(len(plain))...)
	for chunk := 0; chunk<<20 < len(plain); chunk++ {
		mask, h := 0, sha256.New()
		for piece := range 16 {
			if at := chunk<<20 + piece<<16; written[int64(chunk*16+piece)] {
				mask |= 1 << piece
				sum := sha256.Sum256(plain[at:min(at+1<<16, len(plain))])
				h.Write(sum[:])
			}
		}
		if mask != 0 {
			out = append(append(append(out, be64(chunk)...), byte(mask>>8), byte(mask)), h.Sum(nil)...)
		}
	}
	return sha256.Sum256(out)
}

func TestPayloadIsTheSameWithAnyWorkers(t *testing.T) {
	make1 := func(workers int) (Digest, []byte) {
		p, disk, _, f := testPayload(t, t.Context(), workers)
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(40) {
			if _, err := p.WriteAt(noise(byte(i), 900_000), int64(i)<<20); err != nil {
				t.Fatal(err)
			}
		}
		digest, _, err := p.Close(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := disk.Close(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return digest, data
	}
	oneDigest, one := make1(1)
	fourDigest, four := make1(4)
	if oneDigest != fourDigest || !bytes.Equal(one, four) {
		t.Error("four workers made something else than one")
	}
}

func TestPayloadStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, _, _, _ := testPayload(t, ctx, 2)
	cancel()
	if _, err := p.WriteAt([]byte("x"), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
	if d, n, err := p.Close(nil); !errors.Is(err, context.Canceled) || n != 0 || d != (Digest{}) {
		t.Errorf("Close: %v, %d, %v", d, n, err)
	}
	// A file that cannot be written: the error must come out, at the latest in Close.
	p, _, _, f := testPayload(t, t.Context(), 2)
	f.Close()
	var err error
	for i := int64(0); i < 39 && err == nil; i++ {
		_, err = p.WriteAt(noise(1, chunkSize), i*chunkSize)
	}
	if d, _, closed := p.Close(err); !errors.Is(closed, os.ErrClosed) || d != (Digest{}) {
		t.Errorf("a closed file gave %v, then %v", err, closed)
	}
	p, _, _, _ = testPayload(t, t.Context(), 2)
	for _, off := range []int64{-1, testSize, testSize + 1, 1 << 62} {
		if _, err := p.WriteAt([]byte("x"), off); err == nil {
			t.Errorf("WriteAt took offset %d", off)
		}
	}
	p.Close(nil)
}
