package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/source"
)

// TestEditFull fills a file system to its last block, in pieces and at once. What does not fit leaves nothing behind.
func TestEditFull(t *testing.T) {
	for _, args := range [][]string{{"-b", "1024"}, {"-b", "4096", "-O", "^has_journal"}, {"-b", "1024", "-O", "^extent,^64bit"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			image := made(t, "", "16M", append([]string{"-t", "ext4", "-N", "512"}, args...)...)
			e := edit(t, image)
			// Small files, of which every second one is removed: free space in single blocks.
			for i := range 200 {
				put(t, e, regular(fmt.Sprintf("/few/%d", i), long("", e.blockSize)))
			}
			for i := 0; i < 200; i += 2 {
				if err := e.Remove(fmt.Sprintf("/few/%d", i)); err != nil {
					t.Fatal(err)
				}
			}
			free := func() int64 { return int64(e.super.freeBlocks()) * int64(e.blockSize) }
			large := source.Entry{Path: "/large", Type: source.Regular, Mode: 0o600, Size: free() + 1}
			before, changed := free(), len(e.over.slots)
			var full *NoSpaceError
			if err := e.Put(large, zeroReader{}); !errors.As(err, &full) || full.Free != before || full.Needed <= before || full.Inodes {
				t.Fatalf("%v, %+v", err, full)
			}
			large.Size = before // its map does not fit
			if err := e.Put(large, zeroReader{}); !errors.As(err, &full) || err.Error() == "" {
				t.Fatal(err)
			}
			if free() != before || len(e.over.slots) != changed {
				t.Errorf("%d bytes free, not %d; %d blocks changed, not %d", free(), before, len(e.over.slots), changed)
			}
			for large.Size > 0 {
				err := e.Put(large, io.LimitReader(bytes.NewReader(noise(int(large.Size), 1)), large.Size))
				if err == nil {
					break
				}
				if !errors.As(err, &full) {
					t.Fatal(err)
				}
				large.Size -= int64(e.blockSize)
			}
			if free() > 0 {
				put(t, e, regular("/rest", string(noise(int(free()), 1))))
			}
			if got, err := e.ReadFile("/large", large.Size); err != nil || !bytes.Equal(got, noise(int(large.Size), 1)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if free() != 0 {
				t.Errorf("%d bytes free", free())
			}
			_, after := edited(t, e, len(image))
			onlyChanged(t, e, image, after)
			for i := 0; ; i++ {
				if err := e.Put(regular(fmt.Sprintf("/few/empty-%d", i), "").Entry, nil); err != nil {
					if !errors.As(err, &full) {
						t.Fatal(err)
					}
					break
				}
			}
			edited(t, e, len(image))
		})
	}
}

func TestEditNoInodes(t *testing.T) {
	e := edit(t, made(t, "", "8M", "-t", "ext4", "-N", "16"))
	var full *NoSpaceError
	var err error
	for i := 0; err == nil; i++ {
		err = e.Put(regular(fmt.Sprint("/", i), "").Entry, nil)
	}
	if !errors.As(err, &full) || !full.Inodes || !strings.Contains(err.Error(), "inode") {
		t.Error(err)
	}
	edited(t, e, 8<<20)
}

// TestEditUninitialized has a file system of which most groups were never used, all filled with noise where
// nothing counts, and uses them.
func TestEditUninitialized(t *testing.T) {
	for _, args := range [][]string{
		{"-b", "1024"}, {"-b", "1024", "-O", "^flex_bg"}, {"-b", "1024", "-O", "^metadata_csum,uninit_bg"}, {"-b", "1024", "-I", "128"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			dir := t.TempDir()
			image := made(t, "", "64M", append([]string{"-t", "ext4", "-N", "2048", "-E", "lazy_itable_init=1"}, args...)...)
			path := filepath.Join(dir, "image")
			if err := os.WriteFile(path, image, 0o600); err != nil {
				t.Fatal(err)
			}
			onlyAllocated(t, path)
			image = must(os.ReadFile(path))
			e := edit(t, image)
			for i := range 1500 { // more than one group's inodes and blocks
				put(t, e, regular(fmt.Sprintf("/folder-%d/file-%d", i/100, i), string(noise(20<<10, byte(i)))))
			}
			path, after := edited(t, e, len(image))
			onlyChanged(t, e, image, after)
			onlyAllocated(t, path)
			r := open(t, path)
			for i := range 1500 {
				got, err := r.ReadFile(fmt.Sprintf("/folder-%d/file-%d", i/100, i), 1<<20)
				if err != nil || !bytes.Equal(got, noise(20<<10, byte(i))) {
					t.Fatalf("file %d: %d bytes, %v", i, len(got), err)
				}
			}
		})
	}
}

// TestEditFew counts the blocks that a small change takes.
func TestEditFew(t *testing.T) {
	image := made(t, populated(t), "64M", "-t", "ext4", "-b", "4096")
	e := edit(t, image)
	if err := e.Changed(func(int64, int64) error { return errors.New("something changed") }); err != nil || e.Size() != 64<<20 {
		t.Errorf("%v, %d bytes", err, e.Size())
	}
	put(t, e, regular("/small", "replaced"))
	put(t, e, regular("/many/new", "new"))
	_, after := edited(t, e, len(image))
	// superblock, descriptors, 2 bitmaps, 2 blocks of inodes, a leaf and its parent, 2 of content
	if total := onlyChanged(t, e, image, after); total == 0 || total > 13*4096 {
		t.Errorf("%d bytes changed", total)
	}
}

// TestEditRandom makes random changes, some of which fail, and compares with a map.
func TestEditRandom(t *testing.T) {
	for seed := range uint64(4) {
		args := [][]string{{"-b", "1024"}, {"-b", "2048", "-I", "128"}, {"-b", "1024", "-O", "^extent,^64bit"}, {"-b", "1024", "-O", "^dir_index,^metadata_csum"}}[seed]
		r := rand.New(rand.NewPCG(seed, 1))
		image := made(t, "", "8M", append([]string{"-t", "ext4", "-N", "256"}, args...)...)
		e := edit(t, image)
		want := map[string]string{}
		failed := 0
		for range 1200 {
			path := fmt.Sprintf("/%d/%s-%d", r.IntN(3), long("x", 1+r.IntN(200)), r.IntN(40))
			path = path[:min(len(path), 250)]
			if r.IntN(3) == 0 {
				if err := e.Remove(path); (err == nil) != (want[path] != "") {
					t.Fatalf("remove %s: %v", path, err)
				}
				delete(want, path)
				continue
			}
			content := string(noise(1+r.IntN(100<<10), byte(r.Uint32())))
			entry := regular(path, "").Entry
			entry.Size = int64(len(content))
			var full *NoSpaceError
			if err := e.Put(entry, strings.NewReader(content)); err == nil {
				want[path] = content
			} else if failed++; !errors.As(err, &full) {
				t.Fatal(err)
			}
		}
		if failed == 0 || len(want) < 30 {
			t.Errorf("%d changes failed, %d files", failed, len(want))
		}
		_, after := edited(t, e, len(image))
		onlyChanged(t, e, image, after)
		count := 0
		for path, f := range walked(t, e.Reader) {
			if f.Type == source.Regular {
				if count++; want[path] != string(f.content) {
					t.Errorf("%s has other content", path)
				}
			}
		}
		if count != len(want) {
			t.Errorf("%d files, not %d", count, len(want))
		}
	}
}

// TestScratch keeps changes in a file, and without one no more than fits in memory.
func TestScratch(t *testing.T) {
	image := made(t, "", "200M", "-t", "ext4", "-b", "4096")
	size := int64(100 << 20)
	entry := source.Entry{Path: "/large", Type: source.Regular, Size: size}
	e := edit(t, image)
	if err := e.Put(entry, &striped{}); !errors.Is(err, ErrScratch) {
		t.Fatal(err)
	}
	put(t, e, regular("/after", "after"))
	scratch := must(os.Create(filepath.Join(t.TempDir(), "scratch")))
	defer scratch.Close()
	e, err := NewEditor(readerAt(image), int64(len(image)), EditOptions{Time: editTime, Scratch: scratch})
	if err != nil {
		t.Fatal(err)
	}
	want := noise(int(size), 2)
	if err := e.Put(entry, bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	if got, err := e.ReadFile("/large", size); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	edited(t, e, len(image))
	broken, err := NewEditor(readerAt(image), int64(len(image)), EditOptions{Time: editTime, Scratch: brokenScratch{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := broken.Put(entry, bytes.NewReader(want)); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if _, err := NewEditor(readerAt(image), int64(len(image)), EditOptions{}); err == nil {
		t.Error("no time, and no error")
	}
}

type brokenScratch struct{ io.ReaderAt }

var errBroken = errors.New("scratch is full")

func (brokenScratch) WriteAt([]byte, int64) (int, error) { return 0, errBroken }
