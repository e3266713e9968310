package ext4

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/source"
)

func TestFiles(t *testing.T) {
	r := open(t, build(t, testOptions(16<<20), []file{
		regular("/dir/file", "content"), symlink("/dir/up", "../dir/../../dir/file"), symlink("/abs", "/dir"), symlink("/loop", "loop"),
		symlink("/dangling", "nothing"), regular("/dir/empty", ""),
	}))
	for path, want := range map[string]string{"/dir/file": "content", "dir//file": "content", "/dir/up": "content", "/abs/./up": "content", "/dir/empty": ""} {
		if got, err := r.ReadFile(path, 7); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if names, err := r.ReadDir("/abs"); err != nil || !slices.Equal(names, []string{"empty", "file", "up"}) {
		t.Errorf("/abs has %v, %v", names, err)
	}
	for _, path := range []string{"/none", "/dir", "/loop", "/dangling", "/dir/file/x", "/abs/none"} {
		if got, err := r.ReadFile(path, 100); !errors.Is(err, ErrNotFound) || got != nil {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if _, err := r.ReadDir("/dir/file"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a file as a folder: %v", err)
	}
	if got, err := r.ReadFile("/dir/file", 6); err == nil || !strings.Contains(err.Error(), "7 bytes") || got != nil {
		t.Errorf("one byte too many: %q, %v", got, err)
	}
}

func TestWalkStops(t *testing.T) {
	r := open(t, build(t, testOptions(16<<20), []file{regular("/a", "a"), regular("/b", "b")}))
	stop := errors.New("stop")
	count := 0
	err := r.Walk(context.Background(), func(source.Entry, io.Reader) error {
		if count++; count == 2 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || count != 2 {
		t.Errorf("%v after %d entries", err, count)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Walk(ended, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("walk: %v", err)
	}
	if _, err := r.Check(ended, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("check: %v", err)
	}
}

// written notes which blocks are written, and refuses to write one twice.
type written struct {
	t      *testing.T
	blocks map[int64]bool
	memory
}

func (w *written) WriteAt(b []byte, at int64) (int, error) {
	for block := at / blockSize; block < (at+int64(len(b)))/blockSize; block++ {
		if w.blocks[block] {
			w.t.Errorf("block %d is written twice", block)
		}
		w.blocks[block] = true
	}
	return w.memory.WriteAt(b, at)
}

// TestAllocated compares the blocks that the writer wrote with those whose content counts: they are the same.
func TestAllocated(t *testing.T) {
	for _, size := range []int64{16 << 20, 300 << 20} {
		w := &written{t, map[int64]bool{}, make(memory, size)}
		if err := write(w, testOptions(size), everything()); err != nil {
			t.Fatal(err)
		}
		r := must(Open(readerAt(w.memory), size))
		err := r.Allocated(func(offset, length int64) error {
			for block := offset / blockSize; block < (offset+length)/blockSize; block++ {
				if !w.blocks[block] {
					t.Errorf("block %d counts and was not written", block)
				}
				delete(w.blocks, block)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for block := range w.blocks {
			t.Errorf("block %d was written and does not count", block)
		}
	}
}

// TestWalkRefuses walks images that no check has looked at.
func TestWalkRefuses(t *testing.T) {
	good := spoilable(t)
	image := bytes.Clone(good)
	s := &spoiler{t, image, must(Open(readerAt(good), int64(len(good))))}
	s.leaf("/", 0, func(b []byte) { put32(s.entry(b, "few"), 0, s.find("/home").number) })
	deep := make(memory, 16<<20)
	path := strings.Repeat("/"+long("", 255), 64<<10/256+1) // more than package fsys walks
	if err := write(deep, testOptions(16<<20), []file{folder(path)}); err != nil {
		t.Fatal(err)
	}
	for problem, image := range map[string][]byte{"two names": image, "path of more": deep} {
		r := must(Open(readerAt(image), int64(len(image))))
		err := r.Walk(context.Background(), func(source.Entry, io.Reader) error { return nil })
		var format *FormatError
		if !errors.As(err, &format) || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v", problem, err)
		}
	}
}
