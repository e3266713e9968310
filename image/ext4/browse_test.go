package ext4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

func TestNodes(t *testing.T) {
	files := []file{
		folder("/dir"), regular("/dir/file", "content"), symlink("/dir/up", "../dir/../../dir/file"), symlink("/abs", "/dir"),
		symlink("/loop", "loop"), hardLink("/other", "/dir/file"),
	}
	r := open(t, build(t, testOptions(16<<20), files))
	if err := r.Clean(); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]source.Type{"/": source.Folder, "": source.Folder, "/abs": source.Folder, "dir/up": source.Regular, "/abs/file": source.Regular} {
		node, err := r.Files().Node(path)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := node.Stat("/name"); err != nil || e.Type != want || e.Path != "/name" {
			t.Errorf("%q: %+v, %v", path, e, err)
		}
		_, err = node.Open()
		if (err == nil) != (want == source.Regular) {
			t.Errorf("%q: opened with %v", path, err)
		}
		if _, err := node.Children(); (err == nil) != (want == source.Folder) {
			t.Errorf("%q: listed with %v", path, err)
		}
	}
	for _, path := range []string{"/none", "/loop", "/dir/file/x"} {
		if node, err := r.Files().Node(path); !errors.Is(err, ErrNotFound) || node != nil {
			t.Errorf("%s: %v, %v", path, node, err)
		}
	}
	dir, err := r.Files().Node("/abs")
	if err != nil {
		t.Fatal(err)
	}
	children, err := dir.Children()
	if err != nil || len(children) != 2 || children[0].Name != "file" || children[1].Name != "up" {
		t.Fatal(children, err)
	}
	for i, want := range []source.Type{source.Regular, source.Symlink} { // not followed
		node, err := children[i].Node()
		if err != nil {
			t.Fatal(err)
		}
		if e, err := node.Stat(""); err != nil || e.Type != want || i == 0 && node.Links() != 2 {
			t.Errorf("%+v, %v", e, err)
		}
	}
}

// TestTree gives what Walk gives; below a folder, paths begin there.
func TestTree(t *testing.T) {
	r := open(t, build(t, testOptions(16<<20), []file{folder("/d"), regular("/d/f", "content"), hardLink("/d/g", "/d/f"), folder("/d/e"), symlink("/d/e/s", "x")}))
	list := func(walk func(context.Context, source.WalkFunc) error) (all []string) {
		if err := walk(t.Context(), func(e source.Entry, _ io.Reader) error { all = append(all, fmt.Sprint(e)); return nil }); err != nil {
			t.Fatal(err)
		}
		return all
	}
	root, err := r.Files().Node("/")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := list(root.Tree), list(r.Walk); len(want) != 7 || !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	dir, err := r.Files().Node("/d")
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	if err := dir.Tree(t.Context(), func(e source.Entry, _ io.Reader) error { paths = append(paths, e.Path+e.Link); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/", "/e", "/e/sx", "/f", "/g/f"}; !slices.Equal(paths, want) {
		t.Errorf("%q, want %q", paths, want)
	}
	stop := errors.New("stop")
	if err := dir.Walk(t.Context(), func(string, *fsys.Node) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := dir.Walk(ended, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestRuns reads a file with a hole at its end, and one with blocks behind it.
func TestRuns(t *testing.T) {
	image := make(memory, 8<<20)
	content := noise(3*blockSize, 9)
	if err := write(image, testOptions(8<<20), []file{{Entry: source.Entry{Path: "/f", Type: source.Regular, Size: int64(len(content))}, content: content}}); err != nil {
		t.Fatal(err)
	}
	r := must(Open(readerAt(image), int64(len(image))))
	found := must(r.find("/f"))
	n := *found
	n.size += 5 * blockSize // a hole at the end
	c, err := r.open(&n)
	if err != nil {
		t.Fatal(err)
	}
	if c.Stored() != 3*blockSize {
		t.Errorf("%d bytes stored", c.Stored())
	}
	got := make([]byte, n.size)
	if err := c.Runs(func(off int64, data io.Reader) error {
		_, err := io.ReadFull(data, got[off:][:3*blockSize])
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:len(content)], content) || !bytes.Equal(got[len(content):], make([]byte, 5*blockSize)) {
		t.Error("another content")
	}
	n.size = 2*blockSize + 1 // blocks behind the end do not count
	if c, err := r.open(&n); err != nil || c.Stored() != 2*blockSize+1 {
		t.Errorf("%d bytes stored, %v", c.Stored(), err)
	}
}

// TestBrowseUnclean reads a file system whose journal was not replayed.
func TestBrowseUnclean(t *testing.T) {
	image := must(os.ReadFile(build(t, testOptions(16<<20), []file{regular("/a", "content")})))
	super := image[superOffset:][:superSize]
	le.PutUint32(super[0x60:], le.Uint32(super[0x60:])|incompatRecover)
	le.PutUint32(super[superSize-4:], superChecksum(super))
	r := must(Open(readerAt(image), int64(len(image))))
	if err := r.Clean(); !errors.Is(err, ErrUnclean) {
		t.Errorf("clean: %v", err)
	}
	root, err := r.Files().Node("/")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	if err := root.Tree(t.Context(), func(source.Entry, io.Reader) error { count++; return nil }); err != nil || count != 3 {
		t.Errorf("%d entries, %v", count, err)
	}
}

// TestSocket lists a socket, which Tree leaves out.
func TestSocket(t *testing.T) {
	path := build(t, testOptions(16<<20), []file{regular("/a", "")})
	testtool.Output(t, testtool.Program(t, "debugfs"), "-w", "-R", "set_inode_field /a mode 0140644", path)
	r := open(t, path)
	node, err := r.Files().Node("/a")
	if err != nil {
		t.Fatal(err)
	}
	if e, err := node.Stat("/a"); err != nil || e.Type != fsys.Socket || e.Mode != 0o644 {
		t.Errorf("%+v, %v", e, err)
	}
	root, err := r.Files().Node("/")
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Tree(t.Context(), func(e source.Entry, _ io.Reader) error {
		if e.Path == "/a" {
			t.Error("the socket is in the tree")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// FuzzBrowse changes bytes of file systems and reads all that can be reached, as ls, cat and extract do.
func FuzzBrowse(f *testing.F) {
	var images [][]byte
	for _, name := range seeds {
		images = append(images, must(unpack("testdata/"+name+".img.gz")))
	}
	if len(images) == 0 {
		f.Fatal("no seeds")
	}
	for i := range images {
		f.Add(uint8(i), uint32(5000), []byte{0xff, 0xff}, uint32(20000), []byte{0})
		f.Add(uint8(i), uint32(21*1024), []byte{2, 0, 0, 0}, uint32(superOffset+0x60), []byte{0x46})
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint32, change []byte, then uint32, second []byte) {
		image := bytes.Clone(images[int(which)%len(images)])
		copy(image[int(at)%len(image):], change)
		copy(image[int(then)%len(image):], second)
		r, err := Open(readerAt(image), int64(len(image)))
		if err != nil {
			return
		}
		_ = r.Clean()
		root, err := r.Files().Node("/")
		if err != nil {
			return
		}
		names := 0
		root.Walk(t.Context(), func(path string, n *fsys.Node) error {
			if names++; names > len(image)/entryLeast {
				t.Fatal("more names than there is room for")
			}
			if _, err := n.Stat(path); err != nil {
				return err
			}
			again, err := r.Files().Node(path)
			if err == nil && again.ID().Number == 0 {
				t.Error("inode 0")
			}
			return nil
		})
		root.Tree(t.Context(), func(e source.Entry, content io.Reader) error {
			if content == nil {
				return nil
			}
			read := int64(0)
			err := content.(*fsys.Content).Runs(func(off int64, data io.Reader) error {
				n, err := io.Copy(io.Discard, data)
				read += n
				return err
			})
			if err == nil && read != content.(*fsys.Content).Stored() {
				t.Errorf("%d bytes of %d", read, content.(*fsys.Content).Stored())
			}
			return err
		})
	})
}
