package fsys

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/source"
)

// fake is a tree of inodes by their numbers; 1 is the root.
type fake map[uint64]*Inode

// form is the form of its inodes.
type form struct {
	names  []Name
	text   string // content, or a link's target
	xattrs []source.Xattr
}

func (f fake) Inode(id ID) (*Inode, error) {
	if n := f[id.Number]; n != nil {
		return n, nil
	}
	return nil, f.Broken(id, "there is none")
}
func (f fake) Names(n *Inode) ([]Name, error)          { return slices.Clone(n.Form.(form).names), nil }
func (f fake) Readlink(n *Inode) (string, error)       { return n.Form.(form).text, nil }
func (f fake) Xattrs(n *Inode) ([]source.Xattr, error) { return n.Form.(form).xattrs, nil }
func (f fake) Clean() error                            { return nil }
func (f fake) Content(n *Inode) (*Content, error) {
	text := n.Form.(form).text
	return NewContent(n.Entry.Size, []Extent{{Off: 2, Len: int64(len(text)), Data: strings.NewReader(text)}}), nil
}
func (f fake) Broken(ID, string) error { return &FormatError{"fake", "inode", "broken"} }

func (f fake) add(number uint64, kind source.Type, content form) {
	f[number] = &Inode{ID: ID{Number: number}, Links: 1, Entry: source.Entry{Type: kind, Size: 9}, Form: content}
}

func folder(names ...any) form {
	var f form
	for i := 0; i < len(names); i += 2 {
		f.names = append(f.names, Name{names[i].(string), ID{Number: uint64(names[i+1].(int))}})
	}
	return f
}

// good has /a/file, a second name of it, links, a socket.
func good() fake {
	f := fake{}
	f.add(1, source.Folder, folder("up", 5, "a", 2, "loop", 4, "socket", 6, "abs", 7, "b", 3))
	f.add(2, source.Folder, folder("file", 3, "deep", 8))
	f.add(3, source.Regular, form{text: "text", xattrs: []source.Xattr{{Name: "user.b"}, {Name: "user.a"}}})
	f[3].Links = 2
	f.add(4, source.Symlink, form{text: "loop"})
	f.add(5, source.Symlink, form{text: "../../a/./deep/../file"})
	f.add(6, Socket, form{})
	f.add(7, source.Symlink, form{text: "/a"})
	f.add(8, source.Folder, form{})
	return f
}

func TestPaths(t *testing.T) {
	f := New(good(), ID{Number: 1}, 100)
	for _, path := range []string{"/a/file", "a//./file", "up", "/abs/file", "/abs/../up", "b", "../../b"} {
		if got, err := f.ReadFile(path, 9); err != nil || string(got) != "\x00\x00text\x00\x00\x00" {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for _, path := range []string{"/none", "/loop", "/a", "/a/file/x", "/socket", "/abs"} {
		if got, err := f.ReadFile(path, 9); !errors.Is(err, ErrNotFound) || got != nil {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if got, err := f.ReadFile("b", 8); err == nil || got != nil {
		t.Errorf("one byte too many: %q, %v", got, err)
	}
	if names, err := f.ReadDir("/abs"); err != nil || !slices.Equal(names, []string{"deep", "file"}) {
		t.Errorf("/abs has %v, %v", names, err)
	}
	n, err := f.Link("/abs")
	if err != nil {
		t.Fatal(err)
	}
	if e, err := n.Stat("/abs"); err != nil || e.Type != source.Symlink || e.Link != "/a" {
		t.Errorf("%v, %v", e, err)
	}
	if n, err = f.Node("/b"); err != nil {
		t.Fatal(err)
	}
	if e, err := n.Stat("/b"); err != nil || len(e.Xattrs) != 2 || e.Xattrs[0].Name != "user.a" {
		t.Errorf("%v, %v", e, err)
	}
}

// TestMount lays a file system over a folder of another: both have the same numbers of inodes, and links lead from each into the other.
func TestMount(t *testing.T) {
	over := fake{}
	over.add(1, source.Folder, folder("file", 2, "up", 3, "root", 4))
	over.add(2, source.Regular, form{text: "over"})
	over.add(3, source.Symlink, form{text: "../b"})
	over.add(4, source.Symlink, form{text: "/a/file"})
	base := good()
	base.add(9, source.Symlink, form{text: "a/root"})
	base[1].Form = folder("a", 2, "b", 3, "through", 9)
	root := New(base, ID{Number: 1}, 100)
	f, err := root.Mount("/a", New(over, ID{Number: 1}, 100))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/a/file": "over", "/b": "text", "/a/up": "text", "/through": "over", "/a/../b": "text"} {
		if got, err := f.ReadFile(path, 9); err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if got, err := root.ReadFile("/a/file", 9); err != nil || !strings.Contains(string(got), "text") {
		t.Errorf("without the mount: %q, %v", got, err)
	}
	var paths []string
	if err := f.Walk(context.Background(), func(e source.Entry, _ io.Reader) error { paths = append(paths, e.Path); return nil }); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(paths, " "); got != "/ /a /a/file /a/root /a/up /b /through" {
		t.Errorf("walked %s", got)
	}
	for _, path := range []string{"/none", "/b"} {
		if f, err := root.Mount(path, root); f != nil || !errors.Is(err, ErrNotFound) {
			t.Errorf("mounted at %s: %v", path, err)
		}
	}
}

func walkAll(f fake, names int64) (paths []string, err error) {
	err = New(f, ID{Number: 1}, names).Walk(context.Background(), func(e source.Entry, content io.Reader) error {
		if e.Type == source.HardLink {
			e.Path += "=" + e.Link
		}
		paths = append(paths, e.Path)
		return nil
	})
	return paths, err
}

func TestWalk(t *testing.T) {
	want := "/ /a /a/deep /a/file /abs /b=/a/file /loop /up"
	if got, err := walkAll(good(), 9); err != nil || strings.Join(got, " ") != want {
		t.Errorf("%v, %v", got, err)
	}
	for name, spoil := range map[string]func(fake){
		"cycle":         func(f fake) { f.add(8, source.Folder, folder("again", 2)) },
		"two names":     func(f fake) { f.add(8, source.Folder, folder("x", 9, "y", 9)); f.add(9, source.Folder, form{}) },
		"slash":         func(f fake) { f.add(8, source.Folder, folder("a/b", 3)) },
		"dots":          func(f fake) { f.add(8, source.Folder, folder("..", 3)) },
		"empty":         func(f fake) { f.add(8, source.Folder, folder("", 3)) },
		"zero":          func(f fake) { f.add(8, source.Folder, folder("a\x00", 3)) },
		"long":          func(f fake) { f.add(8, source.Folder, folder(strings.Repeat("n", 256), 3)) },
		"same":          func(f fake) { f.add(8, source.Folder, folder("n", 3, "n", 5)) },
		"no inode":      func(f fake) { f.add(8, source.Folder, folder("n", 99)) },
		"one attribute": func(f fake) { f[3].Form = form{xattrs: []source.Xattr{{Name: "user.a"}, {Name: "user.a"}}} },
		"deep": func(f fake) {
			for i := range 300 {
				f.add(uint64(8+i), source.Folder, folder(strings.Repeat("n", 255), 9+i))
			}
			f.add(308, source.Folder, form{})
		},
	} {
		f := good()
		spoil(f)
		format := new(*FormatError)
		if _, err := walkAll(f, 1000); !errors.As(err, format) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := walkAll(good(), 8); err == nil {
		t.Error("more names than there is room for")
	}
}

func TestContent(t *testing.T) {
	text := strings.NewReader("0123456789")
	extents := []Extent{{Off: 3, Len: 4, Data: text, At: 1}, {Off: 7, Len: 2, Data: text, At: 8}, {Off: 12, Len: 5, Data: text, At: 5}}
	c := NewContent(14, slices.Clone(extents))
	if c.Stored() != 8 {
		t.Errorf("%d bytes stored", c.Stored())
	}
	runs := ""
	err := c.Runs(func(off int64, data io.Reader) error {
		b, err := io.ReadAll(data)
		runs += string(rune('a'+off)) + string(b)
		return err
	})
	if err != nil || runs != "d1234h89m56" {
		t.Errorf("runs %q, %v", runs, err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "\x00\x00\x00123489\x00\x00\x0056" {
		t.Errorf("%q, %v", got, err)
	}
	short := NewContent(20, []Extent{{Off: 0, Len: 20, Data: text, At: 0}})
	if _, err := io.ReadAll(short); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an extent that is cut short: %v", err)
	}
}

func TestList(t *testing.T) {
	for size, most := range map[int]int{1: namesMost, 255: bytesMost / 255} {
		var l List
		name := make([]byte, size)
		for i := range most {
			if err := l.Add(name, ID{}); err != nil {
				t.Fatalf("%d names of %d bytes: %v", i, size, err)
			}
		}
		if err := l.Add(name, ID{}); !errors.Is(err, ErrTooLarge) || len(l.Names) != most {
			t.Errorf("one name too many of %d bytes: %v", size, err)
		}
	}
}
