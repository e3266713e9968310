package ext4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

var editTime = at(1700000000, 5)

// made makes a file system with mke2fs and gives its bytes.
func made(t testing.TB, dir, size string, args ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ext4.img")
	all := append([]string{"-q", "-F"}, args...)
	if dir != "" {
		all = append(all, "-d", dir)
	}
	testtool.Output(t, testtool.Program(t, "mke2fs"), append(all, path, size)...)
	return must(os.ReadFile(path))
}

func edit(t testing.TB, image []byte) *Editor {
	t.Helper()
	e, err := NewEditor(readerAt(image), int64(len(image)), EditOptions{Time: editTime})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// edited writes an edited file system out and has e2fsck and our reader check it.
func edited(t testing.TB, e *Editor, size int) (string, []byte) {
	t.Helper()
	image := make([]byte, size)
	if _, err := e.ReadAt(image, 0); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "edited.img")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	checked(t, path)
	if _, err := e.Check(context.Background(), nil); err != nil {
		t.Fatalf("the editor's own check: %v", err)
	}
	return path, image
}

// onlyChanged compares an image with its source, and gives the number of bytes that Changed named.
func onlyChanged(t testing.TB, e *Editor, before, after []byte) (total int64) {
	t.Helper()
	rest := bytes.Clone(after)
	last := int64(0)
	err := e.Changed(func(offset, length int64) error {
		if length <= 0 || offset < last {
			t.Errorf("range of %d at %d", length, offset)
		}
		last = offset + length
		total += length
		copy(rest[offset:last], before[offset:])
		return nil
	})
	if err != nil || !bytes.Equal(rest, before) {
		t.Errorf("more was changed than was said: %v", err)
	}
	return total
}

func put(t testing.TB, e *Editor, f file) {
	t.Helper()
	f.Size = int64(len(f.content))
	if err := e.Put(f.Entry, bytes.NewReader(f.content)); err != nil {
		t.Fatal(err)
	}
}

// TestEdit makes the same changes to file systems of all kinds.
func TestEdit(t *testing.T) {
	dir, grub := populated(t), testtool.Program(t, "grub-fstest")
	for _, m := range makers {
		t.Run(m.name, func(t *testing.T) {
			args := m.args
			if strings.Contains(strings.Join(args, " "), "quota") {
				args = []string{"-t", "ext4", "-O", "project"}
			}
			image := made(t, dir, "24M", args...)
			if m.name == revision0 {
				path := filepath.Join(t.TempDir(), "image")
				if err := os.WriteFile(path, image, 0o600); err != nil {
					t.Fatal(err)
				}
				testtool.Output(t, testtool.Program(t, "debugfs"), "-w", "-R", "set_super_value rev_level 0", path)
				image = must(os.ReadFile(path))
			}
			e := edit(t, image)
			want := walked(t, e.Reader)
			puts := []file{
				regular("/boot/sealboot/agent", string(noise(700<<10, 3))), regular("/etc/fstab", "# fstab\n"), regular("/empty", ""),
				folder("/boot/efi"), symlink("/short", "etc/fstab"), symlink("/lengthy", long("/", 300)),
			}
			for i := range min(300, int(e.super.freeBlocks())/2) {
				puts = append(puts, regular(fmt.Sprintf("/boot/sealboot/%s-%d", long("n", 40), i), fmt.Sprint(i)))
			}
			for i := range 20 {
				puts = append(puts, regular(fmt.Sprintf("/many/new-%d", i), "new"))
			}
			for _, f := range puts {
				put(t, e, f)
				f.Size = int64(len(f.content))
				want[f.Path] = f
			}
			for _, path := range []string{"/boot", "/boot/sealboot", "/etc"} {
				want[path] = file{Entry: source.Entry{Path: path, Type: source.Folder, Mode: 0o755, ModTime: editTime}}
			}
			first := "/many/linked" // the other name of /small comes first
			small := want[first]
			small.content, small.Size = []byte("replaced"), 8
			if err := e.Put(source.Entry{Path: "/small", Type: source.Regular, Size: 8, Mode: 0o777, UID: 7}, strings.NewReader("replaced")); err != nil {
				t.Fatal(err)
			}
			want[first] = small
			for _, path := range []string{"/large", "/slow", "/many/a-name-of-some-length-3", "/boot/efi"} {
				if err := e.Remove(path); err != nil {
					t.Fatal(err)
				}
				delete(want, path)
			}
			path, after := edited(t, e, len(image))
			onlyChanged(t, e, image, after)
			if got := testtool.Output(t, grub, path, "cat", "/boot/sealboot/../../etc/fstab"); got != "# fstab\n" {
				t.Errorf("GRUB reads %q", got)
			}
			dump := filepath.Join(t.TempDir(), "dump")
			debugfs(t, path, "dump /boot/sealboot/agent "+dump)
			if got := must(os.ReadFile(dump)); !bytes.Equal(got, noise(700<<10, 3)) {
				t.Errorf("debugfs reads %d other bytes", len(got))
			}
			r := must(Open(readerAt(after), int64(len(after))))
			compareTrees(t, walked(t, r), want, e)
		})
	}
}

// compareTrees compares entries and contents; changed folders' times and 128-byte inodes' fractions are not compared.
func compareTrees(t testing.TB, got, want map[string]file, e *Editor) {
	t.Helper()
	if len(want) < 10 {
		t.Fatal("nothing to compare")
	}
	for path, w := range want {
		g, ok := got[path]
		switch {
		case !ok:
			t.Errorf("%s is missing", path)
			continue
		case !bytes.Equal(g.content, w.content):
			t.Errorf("%s has other content", path)
		case g.Type != w.Type || g.Mode != w.Mode || g.UID != w.UID || g.GID != w.GID || g.Link != w.Link || g.Size != w.Size:
			t.Errorf("%s is %+v, not %+v", path, g.Entry, w.Entry)
		case w.Type != source.Folder && g.ModTime.Unix() != w.ModTime.Unix():
			t.Errorf("%s is of %v, not %v", path, g.ModTime, w.ModTime)
		case e.inodeSize > inodeBase && w.Type != source.Folder && !g.ModTime.Equal(w.ModTime):
			t.Errorf("%s is of %v, not %v", path, g.ModTime, w.ModTime)
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s was removed", path)
		}
	}
}

// TestEditPaths follows links within the root.
func TestEditPaths(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"usr", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"boot": "usr/boot", "etc/crypttab": "/usr/share/../crypttab", "loop": "loop", "out": "../../../etc/out", "usr/abs": "/etc",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	image := made(t, dir, "8M", "-t", "ext4", "-b", "1024")
	e := edit(t, image)
	for path, lands := range map[string]string{
		"/boot/sealboot/agent": "/usr/boot/sealboot/agent", "/out": "/etc/out", "/usr/abs/there": "/etc/there", "//etc/./x": "/etc/x",
	} {
		put(t, e, regular(path, path))
		if got, err := e.ReadFile(lands, 100); err != nil || string(got) != path {
			t.Errorf("%s: %q, %v", lands, got, err)
		}
	}
	put(t, e, folder("/usr/share"))
	put(t, e, regular("/etc/crypttab", "tab"))
	if got, err := e.ReadFile("/usr/crypttab", 100); err != nil || string(got) != "tab" {
		t.Errorf("%q, %v", got, err)
	}
	if info, err := e.Stat("/etc/crypttab"); err != nil || info.Type != source.Regular || info.Size != 3 {
		t.Errorf("%+v, %v", info, err)
	}
	if info, err := e.Lstat("/etc/crypttab"); err != nil || info.Type != source.Symlink {
		t.Errorf("%+v, %v", info, err)
	}
	for _, c := range []struct {
		entry source.Entry
		err   error
	}{
		{regular("/loop", "").Entry, ErrNotFound},
		{regular("/loop/x", "").Entry, ErrNotFound},
		{regular("/etc", "").Entry, ErrTree},
		{folder("/etc/x").Entry, ErrTree},
		{regular("/etc/x/y", "").Entry, ErrNotFound},
		{regular("/etc/..", "").Entry, ErrTree},
		{regular("/"+long("", 256), "").Entry, ErrTree},
		{symlink("/etc", "x").Entry, ErrTree},
		{symlink("/s", "").Entry, ErrTree},
		{symlink("/s", long("", 1024)).Entry, ErrTree},
		{hardLink("/h", "/none").Entry, ErrTree},
		{hardLink("/h", "/etc").Entry, ErrTree},
		{source.Entry{Path: "/f", Type: source.FIFO}, ErrTree},
		{source.Entry{Path: "/short", Type: source.Regular, Size: 10}, io.ErrUnexpectedEOF},
		{source.Entry{Path: "/x", Type: source.Regular, Xattrs: []source.Xattr{{Name: "none", Value: nil}}}, ErrXattr},
	} {
		before := maps.Clone(e.over.slots)
		if err := e.Put(c.entry, strings.NewReader("short")); !errors.Is(err, c.err) {
			t.Errorf("%+v: %v", c.entry, err)
		}
		if !maps.Equal(before, e.over.slots) {
			t.Errorf("%s left something behind", c.entry.Path)
		}
	}
	for path, want := range map[string]error{"/none": ErrNotFound, "/etc": ErrTree, "/": ErrTree, "/usr/..": ErrTree} {
		if err := e.Remove(path); !errors.Is(err, want) {
			t.Errorf("remove %s: %v", path, err)
		}
	}
	put(t, e, hardLink("/other", "/etc/x"))
	put(t, e, hardLink("/other", "/etc/x"))
	put(t, e, symlink("/etc/x", "../other")) // takes the place of one of the names
	if err := e.Remove("/boot"); err != nil {
		t.Error(err)
	}
	if got, err := e.ReadFile("/etc/x", 100); err != nil || string(got) != "//etc/./x" {
		t.Errorf("%q, %v", got, err)
	}
	edited(t, e, len(image))
}
