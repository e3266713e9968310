package ext4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

// TestEditTriple has a file with three levels of blocks of addresses.
func TestEditTriple(t *testing.T) {
	image := made(t, "", "100M", "-t", "ext2", "-b", "1024")
	scratch := scratchFile(t)
	e, err := NewEditor(readerAt(image), int64(len(image)), EditOptions{Time: editTime, Scratch: scratch})
	if err != nil {
		t.Fatal(err)
	}
	want := noise(70<<20, 1)
	put(t, e, file{Entry: source.Entry{Path: "/large", Type: source.Regular}, content: want})
	path, _ := edited(t, e, len(image))
	if got, err := open(t, path).ReadFile("/large", 1<<30); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	put(t, e, regular("/large", "small"))
	edited(t, e, len(image))
}

// zeroless is a file in which zeros are left out, so that a large one takes little.
type zeroless struct{ *os.File }

func (z zeroless) WriteAt(b []byte, at int64) (int, error) {
	if bytes.Count(b, []byte{0}) == len(b) {
		return len(b), z.Truncate(max(at+int64(len(b)), must(z.Stat()).Size()))
	}
	return z.File.WriteAt(b, at)
}

// TestEditLargeFile has the first file that needs large_file, in a file system with block maps and without the feature.
func TestEditLargeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	testtool.Output(t, testtool.Program(t, "mke2fs"), "-q", "-F", "-t", "ext2", "-b", "4096", "-O", "^large_file,^resize_inode", path, "3G")
	image := must(os.Open(path))
	defer image.Close()
	e, err := NewEditor(image, 3<<30, EditOptions{Time: editTime, Scratch: zeroless{scratchFile(t)}})
	if err != nil {
		t.Fatal(err)
	}
	large := source.Entry{Path: "/large", Type: source.Regular, Size: 4 << 30}
	var full *NoSpaceError
	if err := e.Put(large, zeroReader{}); !errors.As(err, &full) || e.super.FeatureROCompat&roLargeFile != 0 {
		t.Error(err)
	}
	large.Size = 1 << 31
	if err := e.Put(large, zeroReader{}); err != nil || e.super.FeatureROCompat&roLargeFile == 0 {
		t.Error(err)
	}
	if _, err := e.Check(context.Background(), nil); err != nil {
		t.Error(err)
	}
	out := must(os.OpenFile(path, os.O_WRONLY, 0))
	defer out.Close()
	zeros := map[int64]bool{} // the file's content, which the image has as it is
	content, _, err := e.blocksOf(must(e.find("/large")))
	for _, x := range content {
		for i := range x.length {
			zeros[int64(x.start)+int64(i)] = true
		}
	}
	if err != nil || len(zeros) != 1<<31/4096 {
		t.Fatalf("%d blocks, %v", len(zeros), err)
	}
	err = e.Changed(func(offset, length int64) error {
		block := make([]byte, 4096)
		for at := offset; at < offset+length; at += 4096 {
			if zeros[at/4096] {
				continue
			}
			if _, err := e.ReadAt(block, at); err != nil {
				return err
			}
			if _, err := out.WriteAt(block, at); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "e2fsck"), "-fn", path)
}

// TestEditXattrs shares and gives up blocks of attributes, and puts attributes of its own.
func TestEditXattrs(t *testing.T) {
	for _, size := range []string{"128", "256"} {
		image := made(t, populated(t), "24M", "-t", "ext4", "-I", size)
		value := filepath.Join(t.TempDir(), "value")
		if err := os.WriteFile(value, noise(600, 1), 0o600); err != nil {
			t.Fatal(err)
		}
		image = debugfsWrite(t, image, "ea_set -f "+value+" /small user.a", "ea_set -f "+value+" /large user.b", "ea_set /many user.c short")
		e := edit(t, image)
		put(t, e, regular("/small", "replaced"))
		if got := must(e.Stat("/small")).Xattrs; len(got) != 1 || got[0].Name != "user.a" || !bytes.Equal(got[0].Value, noise(600, 1)) {
			t.Errorf("%v", got)
		}
		if err := e.Remove("/large"); err != nil {
			t.Error(err)
		}
		for path, length := range map[string]int{"/short": 10, "/longer": 700} {
			f := regular(path, "content")
			f.Xattrs = []source.Xattr{{Name: "security.selinux", Value: noise(length, 2)}, {Name: "user.x", Value: []byte("y")}}
			put(t, e, f)
			if got := must(e.Stat(path)).Xattrs; len(got) != 2 || !bytes.Equal(got[0].Value, noise(length, 2)) {
				t.Errorf("%v", got)
			}
		}
		path, _ := edited(t, e, len(image))
		if out := debugfs(t, path, "ea_get /short user.x"); !strings.Contains(out, "y") {
			t.Error(out)
		}
	}
}

// TestEditSharedXattrs has one block of attributes for three files.
func TestEditSharedXattrs(t *testing.T) {
	image := made(t, populated(t), "24M", "-t", "ext4", "-b", "4096", "-O", "^metadata_csum")
	value := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(value, noise(600, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	image = debugfsWrite(t, image, "ea_set -f "+value+" /small user.a")
	block := must(must(Open(readerAt(image), int64(len(image)))).find("/small")).xattrBlock
	for _, path := range []string{"/large", "/many/a-name-of-some-length-1"} {
		sectors := must(must(Open(readerAt(image), int64(len(image)))).find(path)).sectors
		image = debugfsWrite(t, image, fmt.Sprintf("sif %s file_acl %d", path, block), fmt.Sprintf("sif %s blocks %d", path, sectors+8))
	}
	put32(image, int(block)*4096+4, 3)
	e := edit(t, image)
	edited(t, e, len(image))
	for _, path := range []string{"/large", "/many/a-name-of-some-length-1", "/small", "/many/linked"} {
		if err := e.Remove(path); err != nil {
			t.Fatal(err)
		}
		edited(t, e, len(image))
	}
}

// TestEditFold puts all files of a boot partition into the root's /boot, where some are already.
func TestEditFold(t *testing.T) {
	dir := populated(t)
	if err := os.WriteFile(filepath.Join(dir, "small"), []byte("newer"), 0o644); err != nil {
		t.Fatal(err)
	}
	partition := made(t, dir, "24M", "-t", "ext2")
	boot := must(Open(readerAt(partition), int64(len(partition))))
	image := made(t, populated(t), "40M", "-t", "ext4", "-b", "4096")
	e := edit(t, image)
	put(t, e, regular("/boot/small", "older"))
	err := boot.Walk(context.Background(), func(entry source.Entry, content io.Reader) error {
		entry.Path = "/boot" + strings.TrimSuffix(entry.Path, "/")
		if entry.Type == source.HardLink {
			entry.Link = "/boot" + entry.Link
		}
		return e.Put(entry, content)
	})
	if err != nil {
		t.Fatal(err)
	}
	edited(t, e, len(image))
	want, got := walked(t, boot), walked(t, e.Reader)
	if len(want) < 700 {
		t.Fatal("nothing to compare")
	}
	for path, w := range want {
		g, ok := got["/boot"+strings.TrimSuffix(path, "/")]
		if w.Type == source.HardLink {
			w.Link = "/boot" + w.Link
		}
		if !ok || g.Type != w.Type || g.Link != w.Link || !bytes.Equal(g.content, w.content) || g.Mode != w.Mode {
			t.Errorf("%s is %+v, not %+v", path, g.Entry, w.Entry)
		}
	}
}
