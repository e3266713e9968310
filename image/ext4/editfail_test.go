package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
)

// flaky is a source of which one read fails.
type flaky struct {
	readerAt
	left int // reads until then
}

var errFlaky = errors.New("the disk is unwell")

func (f *flaky) ReadAt(b []byte, at int64) (int, error) {
	if f.left--; f.left == 0 {
		return 0, errFlaky
	}
	return f.readerAt.ReadAt(b, at)
}

// TestEditFails has each read of a change fail in turn: nothing of the change is left behind, and then it is made.
func TestEditFails(t *testing.T) {
	image := made(t, populated(t), "24M", "-t", "ext4", "-b", "1024")
	source := &flaky{readerAt: image}
	failed := 0
	for left := 1; ; left++ {
		source.left = 0
		e, err := NewEditor(source, int64(len(image)), EditOptions{Time: editTime})
		if err != nil {
			t.Fatal(err)
		}
		super, descs := *e.super, fmt.Sprint(e.descs)
		source.left = left
		f := regular("/many/folder/file", string(noise(50<<10, 1)))
		f.Size = int64(len(f.content))
		if err := e.Put(f.Entry, bytes.NewReader(f.content)); err == nil {
			break
		} else if !errors.Is(err, errFlaky) {
			t.Fatal(err)
		}
		failed++
		if len(e.over.slots) != 0 || *e.super != super || fmt.Sprint(e.descs) != descs {
			t.Fatalf("read %d failed and left something behind", left)
		}
		put(t, e, f)
		if failed%4 == 0 {
			_, after := edited(t, e, len(image))
			onlyChanged(t, e, image, after)
		}
	}
	if failed < 5 {
		t.Errorf("%d reads", failed)
	}
	for left := 1; left < 4; left++ { // opening
		source.left = left
		if e, err := NewEditor(source, int64(len(image)), EditOptions{Time: editTime}); !errors.Is(err, errFlaky) || e != nil {
			t.Errorf("%v", err)
		}
	}
}

// TestTreeLevels makes trees of each depth, and has the reader check them.
func TestTreeLevels(t *testing.T) {
	for _, checksums := range []bool{true, false} {
		for _, c := range []struct {
			entries int
			levels  uint8
		}{{100, 0}, {20000, 1}, {500000, 2}} {
			form := folderForm{size: 1024, checksums: checksums, seed: 7}
			hash := nameHashing{version: hashTEA, levels: 2}
			entries := make([]folderEntry, c.entries)
			for i := range entries {
				entries[i] = folderEntry{name: fmt.Sprintf("%s-%d", long("n", 30), i), number: 12, kind: kindRegular}
			}
			dots := []folderEntry{{name: ".", number: 11, kind: kindFolder}, {name: "..", number: 2, kind: kindFolder}}
			laid, err := form.tree(dots, entries, hash, form.room())
			if err != nil {
				t.Fatal(err)
			}
			blocks := make([]uint64, len(laid))
			for i := range blocks {
				blocks[i] = uint64(i)
			}
			r := &Reader{
				r: readerAt(bytes.Join(laid, nil)), super: &superblock{FeatureIncompat: incompatLargeDir, FeatureCompat: compatDirIndex},
				blockSize: 1024, blocks: uint64(len(laid)), checksums: checksums,
			}
			n := &record{number: 11, mode: modeFolder, seed: 7, flags: inodeIndexed}
			tree, err := r.hashTree(n, blocks)
			if err != nil {
				t.Fatalf("%d entries: %v", c.entries, err)
			}
			if got := laid[0][rootInfo+6]; got != c.levels {
				t.Errorf("%d entries: %d levels", c.entries, got)
			}
			if len(tree.leaves)+len(tree.inner) != len(laid) {
				t.Errorf("%d entries: %d leaves", c.entries, len(tree.leaves))
			}
			for i := 0; i < c.entries; i += c.entries / 50 {
				_, way, _, _, err := r.hashWay(n, blocks, entries[i].name)
				if err != nil || !tree.holds(way[len(way)-1].leaf(), entries[i].name) {
					t.Errorf("%s: %v", entries[i].name, err)
				}
				if number, err := r.lookupIn(n, blocks, way[len(way)-1].leaf(), entries[i].name); number != 12 || err != nil {
					t.Errorf("%s: inode %d, %v", entries[i].name, number, err)
				}
			}
		}
		hash := nameHashing{version: hashTEA}
		form := folderForm{size: 1024, checksums: checksums}
		many := make([]folderEntry, 20000)
		for i := range many {
			many[i].name = fmt.Sprint("name", i)
		}
		if _, err := form.tree(make([]folderEntry, 2), many, hash, form.room()); !errors.Is(err, ErrTree) {
			t.Error(err)
		}
	}
}

var _ io.ReaderAt = (*Editor)(nil)
