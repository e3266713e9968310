package ext4

import (
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

// counted counts the bytes that are read.
type counted struct {
	io.ReaderAt
	bytes atomic.Int64
}

func (c *counted) ReadAt(b []byte, at int64) (int, error) {
	c.bytes.Add(int64(len(b)))
	return c.ReaderAt.ReadAt(b, at)
}

const (
	largeSize = 4 << 30
	addedSize = 40 << 20
)

// largeSource is a file system of 4 GiB.
func largeSource(t testing.TB) *counted {
	t.Helper()
	path := filepath.Join(t.TempDir(), "large.img")
	testtool.Output(t, testtool.Program(t, "mke2fs"), "-q", "-F", "-t", "ext4", "-d", populated(t), path, "4G")
	image := must(os.Open(path))
	t.Cleanup(func() { image.Close() })
	return &counted{ReaderAt: image}
}

func scratchFile(t testing.TB) *os.File {
	t.Helper()
	scratch := must(os.Create(filepath.Join(t.TempDir(), "scratch")))
	t.Cleanup(func() { scratch.Close() })
	return scratch
}

func addLarge(t testing.TB, image io.ReaderAt, scratch Scratch, content io.Reader) *Editor {
	t.Helper()
	e, err := NewEditor(image, largeSize, EditOptions{Time: editTime, Scratch: scratch})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Put(source.Entry{Path: "/boot/added", Type: source.Regular, Size: addedSize}, content); err != nil {
		t.Fatal(err)
	}
	return e
}

// BenchmarkEdit adds a file of 40 MiB to a file system of 4 GiB.
func BenchmarkEdit(b *testing.B) {
	image, scratch := largeSource(b), scratchFile(b)
	b.SetBytes(addedSize)
	b.ResetTimer()
	for b.Loop() {
		addLarge(b, image, scratch, zeroReader{})
	}
	b.ReportMetric(float64(image.bytes.Load())/float64(b.N), "read-B/op")
}

// TestEditReadsLittle has an editor read what it needs, not the image.
func TestEditReadsLittle(t *testing.T) {
	image := largeSource(t)
	e := addLarge(t, image, scratchFile(t), zeroReader{})
	if n := image.bytes.Load(); n > 1<<20 {
		t.Errorf("%d bytes read", n)
	}
	changed := int64(0)
	if err := e.Changed(func(_, length int64) error { changed += length; return nil }); err != nil || changed > addedSize+256<<10 {
		t.Errorf("%d bytes changed, %v", changed, err)
	}
	content, _, err := e.blocksOf(must(e.find("/boot/added")))
	if err != nil || len(content) > 4 {
		t.Errorf("%d extents, %v", len(content), err)
	}
	if _, err := e.Check(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
