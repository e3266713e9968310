package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/sealboot/sealboot/image/source"
)

// acl is a list for one user more, in the form that Linux hands out.
var acl = []byte("\x02\x00\x00\x00" +
	"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
	"\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff")

// everything has each kind of entry with each of its forms.
func everything() []file {
	device := func(path string, kind source.Type, major, minor uint32) file {
		return file{Entry: source.Entry{Path: path, Type: kind, Mode: 0o600, Major: major, Minor: minor, ModTime: at(5, 0)}}
	}
	owned := regular("/home/owned", "mine")
	owned.UID, owned.GID, owned.Mode = 70000, 2000000000, 0o6755
	attributes := regular("/attributes", strings.Repeat("with attributes\n", 1000))
	attributes.Xattrs = []source.Xattr{
		{Name: "security.capability", Value: noise(20, 1)},
		{Name: "system.posix_acl_access", Value: acl},
		{Name: "trusted.large", Value: noise(1000, 2)},
		{Name: "user.a", Value: []byte("a")},
		{Name: "user.empty"},
		{Name: long("user.long", 255), Value: noise(999, 3)},
		{Name: "user.umläut", Value: noise(200, 4)},
	}
	few := folder("/few")
	few.Xattrs = []source.Xattr{{Name: "system.posix_acl_default", Value: acl}, {Name: "user.a", Value: []byte("a")}}
	future := regular("/future", "")
	future.ModTime = at(1<<34-1<<31-1, 999999999)
	past := regular("/past", "")
	past.ModTime = at(-1<<31, 1)
	scattered := make([]byte, 3<<20) // many holes: more extents than an inode holds
	for i := 0; i < len(scattered); i += 2 * pieceSize {
		copy(scattered[i:], "data")
	}
	return []file{
		{Entry: source.Entry{Path: "/", Type: source.Folder, Mode: 0o711, ModTime: at(1600000009, 9)}},
		folder("/home"), owned, attributes, few, future, past,
		regular("/empty", ""), regular("/block", string(noise(4096, 5))), regular("/blocks", string(noise(100001, 6))),
		regular("/zeros", strings.Repeat("\x00", 200000)), regular("/scattered", string(scattered)),
		{Entry: source.Entry{Path: "/hole", Type: source.Regular, Mode: 0o400, Size: 5 << 30, ModTime: at(1, 0)}, content: []byte("beginning")},
		symlink("/short", "home"), symlink("/fast", long("f", 59)), symlink("/slow", long("s", 60)), symlink("/longest", long("l", 4095)),
		device("/null", source.CharDevice, 1, 3), device("/sda", source.BlockDevice, 8, 0), device("/large", source.BlockDevice, 259, 300),
		device("/largest", source.CharDevice, 4095, 1<<20-1), {Entry: source.Entry{Path: "/fifo", Type: source.FIFO, Mode: 0o622, ModTime: at(3, 3)}},
		hardLink("/home/zlink", "/blocks"), hardLink("/null2", "/null"),
		regular("/"+long("n", 255), "long name"), regular("/umläut \xff\xfe", "odd name"),
		regular("/made/for/it", "in folders that no entry made"),
	}
}

func TestEverything(t *testing.T) {
	files := everything()
	path := build(t, testOptions(64<<20), files)
	r := checked(t, path)
	var short []file // 5 GiB of zeros are not read back
	for _, f := range files {
		if f.Path != "/hole" {
			short = append(short, f)
		}
	}
	found := map[string]bool{}
	for _, name := range must(r.ReadDir("/")) {
		found[name] = true
	}
	if !found["hole"] || !found["made"] || !found["lost+found"] {
		t.Errorf("the root has %v", found)
	}
	n, err := r.find("/hole")
	if err != nil || n.size != 5<<30 || n.sectors != pieceSize/512 {
		t.Errorf("the file with a hole: %+v, %v", n, err)
	}
	t.Run("debugfs reads the same", func(t *testing.T) { sameForDebugfs(t, path, short) })
	path = build(t, testOptions(64<<20), short)
	sameFiles(t, checked(t, path), short)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// sameForDebugfs compares with e2fsprogs' reader: content, owners, modes, times, devices, attributes.
func sameForDebugfs(t *testing.T, path string, files []file) {
	count := 0
	for _, f := range files {
		if strings.ContainsAny(f.Path, "\xff ") || f.Type == source.HardLink {
			continue // not to be typed into debugfs
		}
		count++
		stat := debugfs(t, path, "stat "+f.Path)
		wants := []string{
			fmt.Sprintf("Mode:  0%03o", f.Mode), fmt.Sprintf("User: %5d", f.UID), fmt.Sprintf("Group: %5d", f.GID),
			fmt.Sprintf("mtime: 0x%08x:%08x", uint32(f.ModTime.Unix()), newTimestamp(f.ModTime).extra()),
		}
		switch f.Type {
		case source.Regular:
			if got := debugfs(t, path, "cat "+f.Path); got != string(f.content) {
				t.Errorf("%s: debugfs reads other content", f.Path)
			}
			wants = append(wants, "Type: regular", fmt.Sprintf("Size: %d\n", len(f.content)))
		case source.Folder:
			wants = append(wants, "Type: directory")
		case source.FIFO:
			wants = append(wants, "Type: FIFO")
		case source.CharDevice:
			wants = append(wants, "Type: character special", fmt.Sprintf("%02d:%02d (hex", f.Major, f.Minor))
		case source.BlockDevice:
			wants = append(wants, "Type: block special", fmt.Sprintf("%02d:%02d (hex", f.Major, f.Minor))
		case source.Symlink:
			wants = append(wants, "Type: symlink", fmt.Sprintf("Size: %d\n", len(f.Link)))
			if len(f.Link) <= fastLinkMax {
				wants = append(wants, `Fast link dest: "`+f.Link+`"`)
			} else if got := debugfs(t, path, "cat "+f.Path); got != f.Link {
				t.Errorf("%s: debugfs reads the target %q", f.Path, got)
			}
		}
		for _, want := range wants {
			if !strings.Contains(stat, want) {
				t.Errorf("%s: debugfs does not say %q but\n%s", f.Path, want, stat)
			}
		}
		for _, x := range f.Xattrs {
			if strings.HasPrefix(x.Name, "system.") {
				continue // compared in TestACL
			}
			out := t.TempDir() + "/value"
			debugfs(t, path, "ea_get -f "+out+" "+f.Path+" "+x.Name)
			if got := must(os.ReadFile(out)); !bytes.Equal(got, x.Value) {
				t.Errorf("%s: debugfs reads attribute %s as %x, not %x", f.Path, x.Name, got, x.Value)
			}
		}
	}
	if count < 20 {
		t.Errorf("only %d files compared", count)
	}
}

func TestACL(t *testing.T) {
	disk, err := aclToDisk(acl)
	want := "\x01\x00\x00\x00" + "\x01\x00\x06\x00" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00" + "\x10\x00\x04\x00" + "\x20\x00\x04\x00"
	if err != nil || string(disk) != want {
		t.Fatalf("on disk %x, %v, not %x", disk, err, want)
	}
	if back, err := aclFromDisk(disk); err != nil || !bytes.Equal(back, acl) {
		t.Errorf("back %x, %v", back, err)
	}
	for name, bad := range map[string]string{
		"empty": "", "short": want[:3], "version": "\x02" + string(acl[1:]), "cut": string(acl[:len(acl)-1]), "tag": "\x02\x00\x00\x00\x03\x00\x06\x00\xff\xff\xff\xff",
	} {
		if name == "version" {
			bad = "\x01" + string(acl[1:])
		}
		if _, err := aclToDisk([]byte(bad)); !errors.Is(err, errACL) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]string{"empty": "", "version": string(acl), "cut": want[:len(want)-1], "cut id": want[:14], "tag": "\x01\x00\x00\x00\x03\x00\x06\x00"} {
		if _, err := aclFromDisk([]byte(bad)); !errors.Is(err, errACL) {
			t.Errorf("%s on disk: %v", name, err)
		}
	}
}

// TestLater replaces entries by later ones of the same path, as unpacking a tar archive does.
func TestLater(t *testing.T) {
	big := string(noise(20<<20, 7))
	x := regular("/x", "again")
	x.Xattrs = []source.Xattr{{Name: "user.a", Value: noise(3000, 8)}}
	attributed := folder("/dir")
	attributed.Xattrs = x.Xattrs
	late := folder("/late")
	late.Mode = 0o1700
	before := []file{
		regular("/a", big), regular("/a", "small"), // its blocks are free again,
		regular("/b", big), regular("/b", big), // or three times this would not fit into 64 MiB
		x, x, attributed, attributed, folder("/dir"),
		symlink("/s", "dir"), regular("/s", "no link any more"),
		regular("/h", "first"), hardLink("/h2", "/h"), regular("/h", "second"),
		folder("/e"), symlink("/e", "dir"), hardLink("/e/through", "/a"),
		regular("/f", "a file"), folder("/f"), regular("/f/in", "in a folder"),
		hardLink("/a", "/a"), regular("/late/in", "before its folder"), late,
	}
	after := []file{
		regular("/a", "small"), regular("/b", big), x, folder("/dir"), regular("/s", "no link any more"), regular("/h2", "first"),
		regular("/h", "second"), symlink("/e", "dir"), hardLink("/dir/through", "/a"), folder("/f"), regular("/f/in", "in a folder"),
		regular("/late/in", "before its folder"), late,
	}
	sameFiles(t, checked(t, build(t, testOptions(64<<20), before)), after)
}

func TestManyFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("70,000 files")
	}
	var files []file
	for i := range 70000 {
		content := fmt.Sprintf("file %d", i)
		files = append(files, regular(fmt.Sprintf("/usr/%d/%d/file-%d", i%100, i%700, i), content))
	}
	checked(t, build(t, testOptions(2<<30), files))
}

// TestLargeFolders has hash trees of one and two levels, and a list that shrinks to one block.
func TestLargeFolders(t *testing.T) {
	var files []file
	for i := range 6000 {
		files = append(files, regular(fmt.Sprintf("/flat/%d", i), ""))
	}
	// A leaf holds 15 names of 255 bytes, the root leads to 507 leaves: 8000 names make a second level.
	for i := range 8000 {
		files = append(files, regular("/deep/"+long(fmt.Sprint(i), 255), ""))
	}
	for i := range 600 {
		files = append(files, folder(fmt.Sprintf("/folders/%d", i)), regular(fmt.Sprintf("/lost+found/%d", i), long("", 200)))
	}
	o := testOptions(128 << 20)
	o.Inodes = 20000
	path := build(t, o, files)
	r := checked(t, path)
	sameFiles(t, r, files)
	for name, want := range map[string]string{"flat": "Indirect levels: 0", "deep": "Indirect levels: 1"} {
		if tree := debugfs(t, path, "htree /"+name); !strings.Contains(tree, want) {
			t.Errorf("%s is not indexed by a tree with %q", name, want)
		}
	}
}

// TestFullFolders has more sub-folders than links can count.
func TestFullFolders(t *testing.T) {
	if testing.Short() {
		t.Skip("66,000 folders")
	}
	var files []file
	for i := range 66000 {
		files = append(files, folder(fmt.Sprintf("/%d", i)))
	}
	o := testOptions(512 << 20)
	o.Inodes = 70000
	checked(t, build(t, o, files))
}

// hollow leaves out content that is all ones, which no check reads.
type hollow struct{ *os.File }

func (h hollow) WriteAt(b []byte, at int64) (int, error) {
	ones := bytes.Repeat([]byte{1}, blockSize)
	for i := 0; i < len(b); i += blockSize {
		if block := b[i : i+blockSize]; !bytes.Equal(block, ones) {
			if _, err := h.File.WriteAt(block, at+int64(i)); err != nil {
				return 0, err
			}
		}
	}
	return len(b), nil
}

// TestLargeFiles has extents through many groups, more than an inode holds, and so many that
// the tree has two levels; the journal has several extents too.
func TestLargeFiles(t *testing.T) {
	path := t.TempDir() + "/ext4.img"
	image := must(os.Create(path))
	defer image.Close()
	o := testOptions(9 << 30)
	if err := image.Truncate(o.Size); err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(hollow{image}, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []source.Entry{{Path: "/large", Size: 1300 << 20}, {Path: "/scattered", Size: 200 << 20}} {
		f.Type = source.Regular
		var content io.Reader = &striped{}
		if f.Path == "/large" {
			content = ones{}
		}
		if err := w.Add(f, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := checked(t, path)
	for name, want := range map[string]uint16{"/large": 1, "/scattered": 2} {
		n, err := r.find(name)
		if err != nil || le.Uint16(n.block[6:]) != want {
			t.Errorf("the extents of %s have depth %d, not %d; %v", name, le.Uint16(n.block[6:]), want, err)
		}
	}
	want := make([]byte, 200<<20)
	_, _ = (&striped{}).Read(want)
	if got := must(r.ReadFile("/scattered", 1<<30)); !bytes.Equal(got, want) {
		t.Error("/scattered has other content")
	}
}

// striped is pieces of twos and zeros in turn.
type striped struct{ at int }

func (s *striped) Read(b []byte) (int, error) {
	for i := 0; i < len(b); {
		n := min(pieceSize-s.at%pieceSize, len(b)-i)
		fill(b[i:i+n], byte(2*(1-s.at/pieceSize%2)))
		i, s.at = i+n, s.at+n
	}
	return len(b), nil
}

func fill(b []byte, with byte) {
	if len(b) > 0 {
		b[0] = with
		for done := 1; done < len(b); done *= 2 {
			copy(b[done:], b[:done])
		}
	}
}

type ones struct{}

func (ones) Read(b []byte) (int, error) {
	fill(b, 1)
	return len(b), nil
}

// TestSame writes twice, the second time with content that comes in small parts.
func TestSame(t *testing.T) {
	o := testOptions(16 << 20)
	first, second := make(memory, o.Size), make(memory, o.Size)
	for i, image := range []memory{first, second} {
		w := must(NewWriter(image, o))
		for _, f := range everything() {
			f.Size = int64(len(f.content))
			var content io.Reader = bytes.NewReader(f.content)
			if i == 1 {
				content = iotest.HalfReader(content)
			}
			if err := w.Add(f.Entry, content); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first, second) {
		t.Error("the same entries gave different bytes")
	}
}

// memory is an image; writes must be of whole blocks.
type memory []byte

func (m memory) WriteAt(b []byte, at int64) (int, error) {
	if at%blockSize != 0 || len(b)%blockSize != 0 || at+int64(len(b)) > int64(len(m)) {
		return 0, fmt.Errorf("write of %d bytes at %d", len(b), at)
	}
	return copy(m[at:], b), nil
}
