package ext4

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

func TestSizes(t *testing.T) {
	for _, size := range []int64{
		8 << 20, 16 << 20, 127 << 20, 128 << 20, 128<<20 + 4096, 130 << 20, 131 << 20, 257 << 20, 1 << 30,
		2<<30 + 17, 2<<30 + 30<<20, 6 << 30, 100e9, 1 << 40,
	} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			files := []file{regular("/a", "a"), folder("/b")}
			r := checked(t, build(t, testOptions(size), files))
			if size < 1<<35 {
				sameFiles(t, r, files)
			}
			if lost := size - int64(r.blocks)*blockSize; lost < 0 || lost > 40<<20 {
				t.Errorf("%d bytes are not used", lost)
			}
		})
	}
}

func TestSizesRefused(t *testing.T) {
	for _, o := range []Options{
		{Size: -1}, {Size: 0}, {Size: 8<<20 - 1}, {Size: 16 << 40}, {Size: 1 << 62}, {Size: 16 << 20, Inodes: 1 << 31},
		{Size: 16 << 20, Inodes: 33000}, {Size: 8 << 20, Inodes: 16000}, {Size: 16 << 20, Label: "seventeen letters"},
	} {
		if _, err := NewWriter(nil, o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

func TestInodes(t *testing.T) {
	for _, inodes := range []uint32{1, 11, 1000, 300000, 1 << 20} {
		o := testOptions(4 << 30)
		o.Inodes = inodes
		if r := checked(t, build(t, o, nil)); r.super.InodesCount < inodes {
			t.Errorf("%d inodes, %d were asked for", r.super.InodesCount, inodes)
		}
	}
}

// TestTooLarge asks for less room than the tree needs, then for what the refusal names, and a MiB less.
func TestTooLarge(t *testing.T) {
	var small []file
	for i := range 2000 {
		small = append(small, regular(fmt.Sprintf("/%d", i), "x"))
	}
	fixed := testOptions(16 << 20)
	fixed.Inodes = 500
	g := must(newGeometry(8<<20, 0))
	all := int(g.free()) - int(journalBlocks(g.blocks)) - 1 // of the resize inode; none is left for folders
	for name, c := range map[string]struct {
		o     Options
		files []file
	}{
		"content": {testOptions(16 << 20), []file{regular("/a", string(noise(30<<20, 1))), regular("/b", string(noise(5<<20, 2)))}},
		"inodes":  {testOptions(16 << 20), small},
		"folders": {testOptions(8 << 20), []file{regular("/a", string(noise(all*blockSize, 1)))}},
	} {
		t.Run(name, func(t *testing.T) {
			var refused *SizeError
			if err := write(make(memory, c.o.Size), c.o, c.files); !errors.As(err, &refused) || !strings.Contains(err.Error(), fmt.Sprint(refused.Needed)) {
				t.Fatalf("the tree should not fit: %v", err)
			}
			c.o.Size = refused.Needed
			checked(t, build(t, c.o, c.files))
			c.o.Size -= 1 << 20
			if err := write(make(memory, c.o.Size), c.o, c.files); !errors.As(err, &refused) {
				t.Errorf("it fits into less than %d: %v", refused.Needed, err)
			}
		})
	}
	var refused *SizeError
	if err := write(make(memory, fixed.Size), fixed, small); !errors.As(err, &refused) || refused.Files != 2011 || refused.Inodes != 512 {
		t.Errorf("too few inodes: %v", err)
	}
}

// TestGrow has resize2fs use the room that is reserved for descriptors.
func TestGrow(t *testing.T) {
	resize, e2fsck := testtool.Program(t, "resize2fs"), testtool.Program(t, "e2fsck")
	for _, c := range []struct{ from, to int64 }{{16 << 20, 600 << 20}, {1 << 30, 2 << 30}, {7 << 30, 20 << 30}} {
		files := []file{regular("/a", "a"), regular("/b/c", string(noise(1<<20, 1)))}
		path := build(t, testOptions(c.from), files)
		if err := os.Truncate(path, c.to); err != nil {
			t.Fatal(err)
		}
		testtool.Output(t, e2fsck, "-fy", path)
		testtool.Output(t, resize, path)
		r := checked(t, path)
		if size := int64(r.blocks) * blockSize; size < c.to-c.to/8 {
			t.Errorf("grown from %d to %d only, not %d", c.from, size, c.to)
		}
		sameFiles(t, r, files)
	}
}

// TestGRUB is the premise that GRUB 2.12 reads what the writer writes.
func TestGRUB(t *testing.T) {
	grub := testtool.Program(t, "grub-fstest")
	scattered := make([]byte, 3<<20)
	for i := 0; i < len(scattered); i += 2 * pieceSize {
		copy(scattered[i:], fmt.Sprint(i))
	}
	files := []file{
		regular("/boot/vmlinuz-1", string(noise(9<<20, 1))), regular("/boot/scattered", string(scattered)), symlink("/vmlinuz", "boot/vmlinuz-1"),
		symlink("/slow", strings.Repeat("/boot/..", 20)+"/boot/vmlinuz-1"),
	}
	for i := range 3000 {
		files = append(files, regular(fmt.Sprintf("/many/%d", i), fmt.Sprint(i)))
	}
	path := build(t, testOptions(256<<20), files)
	for name, want := range map[string]string{
		"/boot/vmlinuz-1": string(files[0].content), "/vmlinuz": string(files[0].content), "/slow": string(files[0].content),
		"/boot/scattered": string(scattered), "/many/2999": "2999", "/many/0": "0",
	} {
		if got := testtool.Output(t, grub, path, "cat", name); got != want {
			t.Errorf("GRUB reads %d bytes of %s, or others", len(got), name)
		}
	}
	if got := strings.Fields(testtool.Output(t, grub, path, "ls", "/many/")); len(got) != 3000 {
		t.Errorf("GRUB lists %d files", len(got))
	}
}

// refusals are entries that cannot be stored, each after a good beginning.
func TestRefused(t *testing.T) {
	good := []file{regular("/file", "x"), folder("/full"), regular("/full/in", ""), symlink("/loop", "loop")}
	value := func(name string, size int) file {
		f := regular("/x", "")
		f.Xattrs = []source.Xattr{{Name: name, Value: make([]byte, size)}}
		return f
	}
	device := file{Entry: source.Entry{Path: "/d", Type: source.CharDevice, Major: 4096}}
	if err := write(make(memory, 16<<20), testOptions(16<<20), good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		bad  file
		want error
	}{
		"no path":               {regular("", ""), ErrTree},
		"relative":              {regular("a", ""), ErrTree},
		"up":                    {regular("/a/..", ""), ErrTree},
		"zero byte":             {regular("/a\x00b", ""), ErrTree},
		"long name":             {regular("/"+long("", 256), ""), ErrTree},
		"long folder":           {regular("/"+long("", 256)+"/a", ""), ErrTree},
		"through a file":        {regular("/file/x", ""), ErrTree},
		"through a loop":        {regular("/loop/x", ""), ErrTree},
		"instead of a folder":   {regular("/full", ""), ErrTree},
		"instead of lost+found": {regular("/lost+found", ""), ErrTree},
		"link to nothing":       {hardLink("/a", "/nothing"), ErrTree},
		"link to a folder":      {hardLink("/a", "/full"), ErrTree},
		"link behind nothing":   {hardLink("/a", "/nothing/at/all"), ErrTree},
		"no target":             {symlink("/a", ""), ErrTree},
		"long target":           {symlink("/a", long("", 4096)), ErrTree},
		"root no folder":        {regular("/", ""), ErrTree},
		"no type":               {file{Entry: source.Entry{Path: "/a"}}, ErrTree},
		"device number":         {device, ErrTree},
		"unknown attribute":     {value("com.apple.quarantine", 1), ErrXattr},
		"attribute, no name":    {value("user.", 1), ErrXattr},
		"attribute, long name":  {value(long("user.", 261), 1), ErrXattr},
		"attribute, zero byte":  {value("user.a\x00b", 1), ErrXattr},
		"large attribute":       {value("user.a", 5000), ErrXattr},
		"bad list":              {value("system.posix_acl_access", 5), ErrXattr},
		"too large a file":      {file{Entry: source.Entry{Path: "/a", Type: source.Regular, Size: 1 << 60}}, ErrTree},
	} {
		if err := write(make(memory, 16<<20), testOptions(16<<20), append(good[:4:4], c.bad)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTooManyLinks(t *testing.T) {
	o := testOptions(64 << 20)
	files := []file{regular("/file", "")}
	for i := range linkMax - 1 {
		files = append(files, hardLink(fmt.Sprintf("/links/%d", i), "/file"))
	}
	checked(t, build(t, o, files))
	if err := write(make(memory, o.Size), o, append(files, hardLink("/more", "/file"))); !errors.Is(err, ErrTree) {
		t.Errorf("%d links: %v", linkMax+1, err)
	}
}

func TestContentEndsEarly(t *testing.T) {
	w := must(NewWriter(make(memory, 16<<20), testOptions(16<<20)))
	err := w.Add(source.Entry{Path: "/a", Type: source.Regular, Size: 10}, strings.NewReader("short"))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("content that ends early: %v", err)
	}
	if again := w.Close(); !errors.Is(again, io.ErrUnexpectedEOF) {
		t.Errorf("then it closes with %v", again)
	}
}

func TestWriteFails(t *testing.T) {
	full := &failing{}
	for full.after = 0; ; full.after++ {
		full.left = full.after
		err := write(full, testOptions(16<<20), []file{regular("/a", string(noise(3<<20, 1)))})
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrClosed) {
			t.Fatalf("after %d writes: %v", full.after, err)
		}
	}
	if full.after < 5 {
		t.Errorf("only %d writes", full.after)
	}
}

type failing struct{ after, left int }

func (f *failing) WriteAt(b []byte, _ int64) (int, error) {
	if f.left--; f.left < 0 {
		return 0, os.ErrClosed
	}
	return len(b), nil
}

func TestClosed(t *testing.T) {
	w := must(NewWriter(make(memory, 16<<20), testOptions(16<<20)))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Add(source.Entry{Path: "/a", Type: source.Folder}, nil); !errors.Is(err, errClosed) {
		t.Errorf("Add after Close: %v", err)
	}
}

// TestLayouts lays out sizes up to the largest: fixed metadata within its group, and room for the rest.
func TestLayouts(t *testing.T) {
	sizes := []int64{16<<40 - blockSize, 15 << 40, 5<<40 + 77<<20}
	for size := int64(8 << 20); size < 16<<40; size += size/3 + 12345*blockSize {
		sizes = append(sizes, size)
	}
	for _, size := range sizes {
		for _, inodes := range []uint32{0, 1, 1 << 16} {
			g, err := newGeometry(size, inodes)
			if err != nil {
				if inodes == 1<<16 && size < 1<<30 {
					continue // too many for it
				}
				t.Fatalf("%d bytes, %d inodes: %v", size, inodes, err)
			}
			for group := range g.groups {
				if g.head(group) > g.groupLen(group) {
					t.Fatalf("%d bytes: group %d has %d blocks, %d of metadata", size, group, g.groupLen(group), g.head(group))
				}
			}
			last := g.groups - 1
			leader := last - last%g.flex
			if _, _, table := g.place(last); table+uint64(g.tableBlocks) != g.groupStart(leader)+uint64(g.head(leader)) {
				t.Fatalf("%d bytes: the last table ends at %d", size, table+uint64(g.tableBlocks))
			}
		}
	}
	if len(sizes) < 30 {
		t.Errorf("only %d sizes", len(sizes))
	}
}
