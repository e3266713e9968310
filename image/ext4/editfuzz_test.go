package ext4

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/source"
)

// editSeeds are images in testdata: beside those for the reader, some that NewEditor has work with.
var editSeeds = append([]string{"journal", "inline", "orphans"}, seeds...)

// FuzzEdit changes bytes of file systems and edits them: all must end soon, without a panic and with bounded memory.
// What the check takes for good before must be as good after each change.
func FuzzEdit(f *testing.F) {
	var images [][]byte
	for _, name := range editSeeds {
		images = append(images, must(unpack("testdata/"+name+".img.gz")))
	}
	for i, image := range images {
		f.Add(uint8(i), uint32(superOffset+0x20), []byte{1, 2, 3, 4}, uint32(0), []byte{})
		f.Add(uint8(i), uint32(5000), []byte{0xff, 0xff}, uint32(20000), []byte{0})
		r, err := openAs(readerAt(image), int64(len(image)), removable)
		if err != nil {
			f.Fatal(err)
		}
		for _, block := range []uint64{r.descs[0].BlockBitmap, r.descs[0].InodeBitmap, r.descs[0].InodeTable} {
			f.Add(uint8(i), uint32(block)*uint32(r.blockSize)+0x128, []byte{0xff, 1}, uint32(block)*uint32(r.blockSize)+0x20, []byte{7})
		}
		if r.super.FeatureCompat&compatJournal != 0 {
			if j, err := r.openJournal(must(r.readInode(r.super.JournalInum))); err == nil {
				at := uint32(j.runs[0].start) * uint32(r.blockSize)
				f.Add(uint8(i), at+journalStart, []byte{0, 0, 0, 3}, at+uint32(r.blockSize)+journalHead, []byte{0, 0, 0, 1})
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint32, change []byte, then uint32, second []byte) {
		image := bytes.Clone(images[int(which)%len(images)])
		copy(image[int(at)%len(image):], change)
		copy(image[int(then)%len(image):], second)
		mend(image)
		good := false
		if r, err := Open(readerAt(image), int64(len(image))); err == nil {
			_, err = r.Check(context.Background(), nil)
			good = err == nil
		}
		e, err := NewEditor(readerAt(image), int64(len(image)), EditOptions{Time: editTime})
		if err != nil {
			if e != nil || good && !errors.Is(err, ErrUnsupported) {
				t.Errorf("checked, and refused: %v", err)
			}
			return
		}
		changed := func(err error) {
			if !good {
				return
			}
			if _, bad := e.Check(context.Background(), nil); bad != nil {
				t.Fatalf("good before, and after a change (%v): %v", err, bad)
			}
		}
		content := long("", 3000)
		entry := source.Entry{Type: source.Regular, Mode: 0o644, Size: int64(len(content)), Xattrs: []source.Xattr{{Name: "user.a", Value: noise(150, 1)}}}
		for _, path := range []string{"/a", "/folder/new", "/new/" + long("", 255), "/fast", "/file"} {
			entry.Path = path
			changed(e.Put(entry, strings.NewReader(content)))
		}
		changed(e.Put(symlink("/folder/link", long("", 100)).Entry, nil))
		changed(e.Put(hardLink("/c", "/a").Entry, nil))
		for _, path := range []string{"/a", "/slow", "/folder/new", "/lost+found"} {
			changed(e.Remove(path))
		}
		if names, err := e.ReadDir("/"); err == nil {
			for _, name := range names {
				changed(e.Remove("/" + name))
			}
		}
	})
}

// mend sets the checksums of a superblock and the first descriptor.
func mend(image []byte) {
	super := image[superOffset:][:superSize]
	if le.Uint32(super[0x64:])&roMetadataCsum == 0 {
		return
	}
	le.PutUint32(super[superSize-4:], superChecksum(super))
	s, err := decodeSuperblock(super)
	if err != nil || s.LogBlockSize > 2 {
		return
	}
	size := 32
	if s.FeatureIncompat&incompat64Bit != 0 {
		size = 64
	}
	desc := image[max(2048, 1024<<s.LogBlockSize):][:size]
	le.PutUint16(desc[groupDescCsum:], groupChecksum(fsSeed(s.UUID), 0, desc))
}

// TestEditSeeds makes sure that the seeds are good images, and that those for the editor give it work.
func TestEditSeeds(t *testing.T) {
	worked := Repairs{}
	for _, name := range editSeeds {
		image := must(unpack("testdata/" + name + ".img.gz"))
		mend(image)
		e, err := NewEditor(readerAt(image), int64(len(image)), EditOptions{Time: editTime})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		done := e.Repairs()
		worked.Transactions += done.Transactions
		worked.Orphans += done.Orphans
		worked.TurnedOff = append(worked.TurnedOff, done.TurnedOff...)
		if _, err := e.Check(context.Background(), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if worked.Transactions == 0 || worked.Orphans == 0 || len(worked.TurnedOff) == 0 {
		t.Errorf("the seeds give work of %+v", worked)
	}
}

// TestMakeEditSeeds writes the editor's own; SEALBOOT_MAKE_SEEDS=1 go test -run TestMakeEditSeeds
func TestMakeEditSeeds(t *testing.T) {
	if os.Getenv("SEALBOOT_MAKE_SEEDS") == "" {
		t.Skip("SEALBOOT_MAKE_SEEDS is not set")
	}
	save := func(name string, image []byte) {
		var b bytes.Buffer
		z := must(gzip.NewWriterLevel(&b, gzip.BestCompression))
		if _, err := z.Write(image); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/"+name+".img.gz", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	save("journal", crashed(t, journals[0].open, journals[0].args...)) // no checksums, so that all is reached
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "file"} {
		if err := os.WriteFile(filepath.Join(dir, name), noise(100, 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "folder", "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	save("inline", made(t, dir, "1M", "-t", "ext4", "-b", "1024", "-N", "64", "-O", "inline_data,^has_journal"))
	image := made(t, dir, "1M", "-t", "ext4", "-b", "1024", "-N", "64", "-O", "^has_journal,^metadata_csum")
	save("orphans", debugfsWrite(t, image, "unlink /a", "sif /b links_count 0", "unlink /b", "sif <12> links_count 0", "sif <12> dtime 13",
		"sif <13> links_count 0", "ssv last_orphan 12"))
}
