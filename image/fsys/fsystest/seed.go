package fsystest

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/source"
)

// Seed loads testdata/NAME.gz, and testdata/NAME.txt, which lists what the kernel, or the tool that made the image, has in it.
func Seed(t testing.TB, name string) (*Image, []string) {
	t.Helper()
	m, err := Load("testdata/" + name + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile("testdata/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	return m, strings.Split(strings.TrimSuffix(string(list), "\n"), "\n")
}

// SaveSeed writes what Seed loads.
func SaveSeed(t testing.TB, image, name string, list []string) {
	t.Helper()
	Save(t, image, "testdata/"+name+".gz")
	if err := os.WriteFile("testdata/"+name+".txt", []byte(strings.Join(list, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Making says whether seeds are to be made: SEALBOOT_MAKE_SEEDS=1, as root.
func Making(t testing.TB) {
	t.Helper()
	if os.Getenv("SEALBOOT_MAKE_SEEDS") == "" {
		t.Skip("SEALBOOT_MAKE_SEEDS is not set")
	}
}

// Unpack writes the image to a file of the test.
func (m *Image) Unpack(t testing.TB) string {
	t.Helper()
	name := t.TempDir() + "/image"
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(m.Size); err != nil {
		t.Fatal(err)
	}
	for number, b := range m.blocks {
		if _, err := file.WriteAt(b[:min(blockSize, m.Size-number*blockSize)], number*blockSize); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// Change puts bytes at a place that counts blocks which are not zero only, and gives where that is in the image.
func (m *Image) Change(at uint32, b []byte) int64 {
	blocks := m.Blocks()
	place := int64(at) % int64(len(blocks)*blockSize)
	off := blocks[place/blockSize] + place%blockSize
	if _, err := m.WriteAt(b[:min(int64(len(b)), m.Size-off)], off); err != nil {
		panic(err)
	}
	return off
}

// Reader is what a package that reads file systems has.
type Reader interface {
	source.Source
	Allocated(func(offset, length int64) error) error
	Facts() fsys.Facts
	Node(path string) (*fsys.Node, error)
	ReadFile(path string, most int64) ([]byte, error)
}

// Exercise reads a file system that may be damaged in any way, up to a limit of content and entries.
func Exercise(t testing.TB, r Reader, size int64) {
	t.Helper()
	next := int64(0)
	_ = r.Allocated(func(off, n int64) error {
		if off < next || n <= 0 || off+n > size {
			t.Errorf("%d bytes at %d, after %d", n, off, next)
		}
		next = off + n
		return nil
	})
	_, _ = r.ReadFile("/boot/vmlinuz", 1<<20)
	left, entries := int64(64<<20), 20000
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_ = r.Walk(ctx, func(_ source.Entry, content io.Reader) error {
		if entries--; entries < 0 {
			return io.EOF
		}
		if content == nil {
			return nil
		}
		n, err := io.Copy(io.Discard, io.LimitReader(content, min(left, 1<<20)))
		if left -= n; left <= 0 {
			return io.EOF
		}
		if errors.Is(err, io.EOF) {
			t.Error("a read that ends with EOF")
		}
		return nil // the others may be whole
	})
}
