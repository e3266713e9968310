package ext4

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

// file is an entry with its content.
type file struct {
	source.Entry
	content []byte
}

func testOptions(size int64) Options {
	return Options{
		Size: size, Label: "root", Time: time.Unix(1700000000, 0),
		UUID: [16]byte{0x5e, 0xa1, 0xb0, 7: 1}, HashSeed: [16]byte{1, 2, 3, 15: 4},
	}
}

// build writes files to an image whose unwritten blocks are random bytes (up to 256 MiB; beyond
// that they are zeros) and gives its path.
func build(t testing.TB, o Options, files []file) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ext4.img")
	image, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if o.Size <= 256<<20 {
		if _, err := image.Write(noise(int(o.Size), 1)); err != nil {
			t.Fatal(err)
		}
	} else if err := image.Truncate(o.Size); err != nil {
		t.Fatal(err)
	}
	if err := write(image, o, files); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(to io.WriterAt, o Options, files []file) error {
	w, err := NewWriter(to, o)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Type == source.Regular {
			f.Size = max(f.Size, int64(len(f.content)))
		}
		if err := w.Add(f.Entry, io.MultiReader(bytes.NewReader(f.content), zeroReader{})); err != nil {
			return err
		}
	}
	return w.Close()
}

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// open opens an image with our reader.
func open(t testing.TB, path string) *Reader {
	t.Helper()
	image, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { image.Close() })
	info, err := image.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(image, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checked has e2fsck and our reader check an image.
func checked(t testing.TB, path string) *Reader {
	t.Helper()
	testtool.Output(t, testtool.Program(t, "e2fsck"), "-fn", path)
	r := open(t, path)
	if _, err := r.Check(context.Background(), nil); err != nil {
		t.Fatalf("e2fsck is content, our check is not: %v", err)
	}
	if features := r.UnreadableByGRUB(); len(features) > 0 {
		t.Fatalf("GRUB cannot read %v", features)
	}
	return r
}

// walked reads all entries back.
func walked(t testing.TB, r *Reader) map[string]file {
	t.Helper()
	found := map[string]file{}
	err := r.Walk(context.Background(), func(e source.Entry, content io.Reader) error {
		f := file{Entry: e}
		if content != nil {
			var err error
			if f.content, err = io.ReadAll(content); err != nil {
				return err
			}
		}
		if _, twice := found[e.Path]; twice {
			return fmt.Errorf("%s came twice", e.Path)
		}
		found[e.Path] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// sameFiles compares what was read with what was written; folders that came by themselves are left out.
func sameFiles(t testing.TB, r *Reader, files []file) {
	t.Helper()
	found := walked(t, r)
	if len(files) == 0 || len(found) == 0 {
		t.Fatal("nothing to compare")
	}
	want := map[string]file{}
	for _, f := range files {
		if f.Type == source.Regular {
			f.Size = max(f.Size, int64(len(f.content)))
			f.content = append(bytes.Clone(f.content), make([]byte, f.Size-int64(len(f.content)))...)
		}
		want[f.Path] = f
	}
	equal := cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })
	for path, f := range want {
		got, ok := found[path]
		if !ok {
			t.Errorf("%s is missing", path)
			continue
		}
		if !bytes.Equal(got.content, f.content) {
			t.Errorf("%s has other content", path)
		}
		if diff := cmp.Diff(f.Entry, got.Entry, equal); diff != "" {
			t.Errorf("%s differs:\n%s", path, diff)
		}
	}
	for path, f := range found {
		if _, ok := want[path]; !ok && f.Type != source.Folder {
			t.Errorf("%s was never written", path)
		}
	}
}

// debugfs asks e2fsprogs' own reader.
func debugfs(t testing.TB, path, command string) string {
	t.Helper()
	return testtool.Output(t, testtool.Program(t, "debugfs"), "-R", command, path)
}

// noise is a MiB of random bytes, and again.
func noise(size int, seed byte) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data[:min(size, 1<<20)]) // never fails
	for done := 1 << 20; done < size; {
		done += copy(data[done:], data[:1<<20])
	}
	return data
}

func at(seconds, nanoseconds int64) time.Time { return time.Unix(seconds, nanoseconds).UTC() }

func regular(path, content string) file {
	return file{Entry: source.Entry{Path: path, Type: source.Regular, Mode: 0o644, ModTime: at(1600000000, 123456789)}, content: []byte(content)}
}

func folder(path string) file {
	return file{Entry: source.Entry{Path: path, Type: source.Folder, Mode: 0o755, ModTime: at(1600000001, 0)}}
}

func symlink(path, target string) file {
	return file{Entry: source.Entry{Path: path, Type: source.Symlink, Mode: 0o777, Link: target, ModTime: at(1600000002, 5)}}
}

func hardLink(path, target string) file {
	return file{Entry: source.Entry{Path: path, Type: source.HardLink, Link: target}}
}

func long(prefix string, length int) string {
	return prefix + strings.Repeat("x", length-len(prefix))
}

// readerAt reads from memory.
type readerAt []byte

func (m readerAt) ReadAt(b []byte, at int64) (int, error) {
	return bytes.NewReader(m).ReadAt(b, at)
}
