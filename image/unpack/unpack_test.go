package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/source"
)

type file struct {
	source.Entry
	content string
}

var at = time.Unix(1_700_000_000, 123_456_789)

func regular(path, content string, mode uint32) file {
	return file{source.Entry{Path: path, Type: source.Regular, Mode: mode, Size: int64(len(content)), ModTime: at}, content}
}

func directory(path string, mode uint32) file {
	return file{source.Entry{Path: path, Type: source.Folder, Mode: mode, ModTime: at}, ""}
}

func link(path, target string, kind source.Type) file {
	return file{source.Entry{Path: path, Type: kind, Mode: 0o777, Link: target, ModTime: at}, ""}
}

// walk gives entries as they are, whatever they say.
func walk(files ...file) Walk {
	return func(ctx context.Context, use source.WalkFunc) error {
		for _, f := range files {
			var content io.Reader
			if f.Type == source.Regular {
				content = strings.NewReader(f.content)
			}
			if err := use(f.Entry, content); err != nil {
				return err
			}
		}
		return nil
	}
}

// tree is a good one with one of everything.
func tree() []file {
	files := []file{
		directory("/", 0o755), directory("/bin", 0o555), regular("/bin/su", "program", 0o4755), link("/bin/su2", "/bin/su", source.HardLink),
		regular("/empty", "", 0o400), link("/lib", "usr/lib", source.Symlink), link("/out", "../../../etc", source.Symlink),
		{source.Entry{Path: "/null", Type: source.CharDevice, Mode: 0o666, Major: 1, Minor: 3, ModTime: at}, ""},
		{source.Entry{Path: "/pipe", Type: source.FIFO, Mode: 0o600, ModTime: at}, ""},
		link("/null2", "/null", source.HardLink),
		directory("/tmp", 0o1777), regular("/tmp/"+strings.Repeat("n", 250), strings.Repeat("0123456789", 50_000), 0o640),
	}
	files[2].UID, files[2].GID = 1000, 70_000
	files[2].Xattrs = []source.Xattr{{Name: "security.capability", Value: []byte("\x01\x00\x00\x02=\n\x00")}, {Name: "user.note", Value: []byte("kept")}}
	return files
}

// fileSystem makes an ext4 file system of the entries.
func fileSystem(t testing.TB, files ...file) *fsys.Node {
	t.Helper()
	const size = 16 << 20
	f, err := os.Create(filepath.Join(t.TempDir(), "fs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w, err := ext4.NewWriter(f, ext4.Options{Size: size, Time: at})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range files {
		if err := w.Add(e.Entry, strings.NewReader(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), f.Truncate(size)); err != nil {
		t.Fatal(err)
	}
	r, err := ext4.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	node, err := r.Files().Node("/")
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// TestFolder unpacks a file system and looks at every file.
func TestFolder(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	t.Cleanup(func() { os.Chmod(name+"/bin", 0o700) })
	asRoot := os.Geteuid() == 0
	made, err := Folder(t.Context(), name, fileSystem(t, tree()...).Tree, Options{Most: 16 << 20, AsRoot: asRoot})
	if err != nil {
		t.Fatal(err)
	}
	if made.Files != 3 || made.Folders != 4 || made.Devices != 2 { // lost+found is there too
		t.Errorf("made %+v", made)
	}
	for _, f := range tree() {
		path := name + f.Path
		info, err := os.Lstat(path)
		device := f.Type == source.CharDevice || f.Type == source.FIFO || f.Path == "/null2"
		if device && !asRoot {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: is there: %v", f.Path, err)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		stat := info.Sys().(*syscall.Stat_t)
		switch f.Type {
		case source.Symlink:
			if got, err := os.Readlink(path); got != f.Link || err != nil {
				t.Errorf("%s leads to %q, %v", f.Path, got, err)
			}
		case source.HardLink:
			if first, err := os.Lstat(name + f.Link); err != nil || !os.SameFile(first, info) {
				t.Errorf("%s is another file than %s: %v", f.Path, f.Link, err)
			}
		default:
			mode := f.Mode
			if !asRoot {
				mode &^= 0o6000
			}
			if stat.Mode&0o7777 != mode || !info.ModTime().Equal(f.ModTime) {
				t.Errorf("%s: mode %o, time %v; want %o, %v", f.Path, stat.Mode&0o7777, info.ModTime(), mode, f.ModTime)
			}
			if asRoot && (stat.Uid != f.UID || stat.Gid != f.GID) {
				t.Errorf("%s belongs to %d:%d", f.Path, stat.Uid, stat.Gid)
			}
			if asRoot && f.Type == source.CharDevice && stat.Rdev != 0x103 {
				t.Errorf("%s is device %#x", f.Path, stat.Rdev)
			}
		}
		if f.Type == source.Regular {
			if got, err := os.ReadFile(path); err != nil || string(got) != f.content {
				t.Errorf("%s holds %d bytes, %v", f.Path, len(got), err)
			}
		}
	}
	left, err := os.ReadDir(filepath.Dir(name))
	if err != nil || len(left) != 1 {
		t.Errorf("beside it stand %v, %v", left, err)
	}
}

// TestOrdinaryUser leaves owners, devices and the bits of other users out, even as root.
func TestOrdinaryUser(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	t.Cleanup(func() { os.Chmod(name+"/bin", 0o700) })
	made, err := Folder(t.Context(), name, walk(tree()...), Options{Most: 16 << 20})
	if err != nil || made.Devices != 2 {
		t.Fatal(made, err)
	}
	info, err := os.Lstat(name + "/bin/su")
	if err != nil || info.Mode() != 0o755 || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		t.Errorf("%v, %v", info, err)
	}
	for _, device := range []string{"/null", "/null2", "/pipe"} {
		if _, err := os.Lstat(name + device); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", device, err)
		}
	}
}

// TestOneFile unpacks a file and a folder below the root.
func TestOneFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "su")
	made, err := Folder(t.Context(), name, walk(regular("/", "program", 0o755)), Options{Most: 100})
	if err != nil || *made != (Unpacked{Files: 1, Bytes: 7}) {
		t.Fatalf("%+v, %v", made, err)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != "program" {
		t.Errorf("%q, %v", got, err)
	}
	var out bytes.Buffer
	if err := Tar(t.Context(), &out, walk(regular("/", "program", 0o755)), 100, "su"); err != nil {
		t.Fatal(err)
	}
	h, err := tar.NewReader(&out).Next()
	if err != nil || h.Name != "./su" || h.Size != 7 {
		t.Errorf("%+v, %v", h, err)
	}
}

// TestHostileTrees unpacks a good tree, and then such that want to get out of the folder, or too much.
func TestHostileTrees(t *testing.T) {
	top := directory("/", 0o755)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	any := errors.New("any error")
	for name, c := range map[string]struct {
		files []file
		want  error // nil: a good tree
	}{
		"good":                         {tree(), nil},
		"upward":                       {[]file{top, regular("/../evil", "x", 0o644)}, ErrName},
		"upward inside":                {[]file{top, directory("/a", 0o755), regular("/a/../../evil", "x", 0o644)}, ErrName},
		"relative":                     {[]file{top, regular("evil", "x", 0o644)}, ErrName},
		"zero byte":                    {[]file{top, regular("/e\x00vil", "x", 0o644)}, ErrName},
		"dot":                          {[]file{top, regular("/a/./b", "x", 0o644)}, ErrName},
		"file through a link":          {[]file{top, link("/l", outside, source.Symlink), regular("/l/evil", "x", 0o644)}, any},
		"file through a link upward":   {[]file{top, link("/l", "../..", source.Symlink), regular("/l/evil", "x", 0o644)}, any},
		"folder through a link":        {[]file{top, link("/l", outside, source.Symlink), directory("/l/evil", 0o755)}, any},
		"folder over a link":           {[]file{top, link("/l", outside, source.Symlink), directory("/l", 0o755), regular("/l/evil", "x", 0o644)}, fs.ErrExist},
		"file over a link":             {[]file{top, link("/l", outside+"/secret", source.Symlink), regular("/l", "x", 0o644)}, fs.ErrExist},
		"hard link to the outside":     {[]file{top, link("/l", outside, source.Symlink), link("/h", "/l/secret", source.HardLink)}, any},
		"hard link upward":             {[]file{top, link("/h", "/../secret", source.HardLink)}, ErrName},
		"hard link to nothing":         {[]file{top, link("/h", "/nothing", source.HardLink)}, fs.ErrNotExist},
		"name twice":                   {[]file{top, regular("/a", "x", 0o644), regular("/a", "y", 0o644)}, fs.ErrExist},
		"no folder for it":             {[]file{top, regular("/a/b", "x", 0o644)}, fs.ErrNotExist},
		"more than the file system":    {[]file{top, regular("/a", strings.Repeat("x", 600_000), 0o644), regular("/b", strings.Repeat("x", 600_000), 0o644)}, ErrTooMuch},
		"content longer than its size": {[]file{top, {source.Entry{Path: "/a", Type: source.Regular, Size: 1}, "longer"}}, any},
		"no kind":                      {[]file{top, {source.Entry{Path: "/a", Type: 99}, ""}}, ErrName},
		"nothing":                      {nil, ErrName},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			out := filepath.Join(dir, "out")
			t.Cleanup(func() { os.Chmod(out+"/bin", 0o700) }) // an ordinary user could not remove it
			_, err := Folder(t.Context(), out, walk(c.files...), Options{Most: 1 << 20})
			if (c.want == nil) != (err == nil) || c.want != nil && c.want != any && !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			left, _ := os.ReadDir(dir)
			if c.want != nil && len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if there, _ := os.ReadDir(outside); len(there) != 1 {
				t.Errorf("something was made outside: %v", there)
			}
			if got, _ := os.ReadFile(filepath.Join(outside, "secret")); string(got) != "secret" {
				t.Errorf("the file outside holds %q", got)
			}
		})
	}
	there := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(there, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Folder(t.Context(), there, walk(tree()...), Options{Most: 1 << 20}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Folder(ended, filepath.Join(t.TempDir(), "out"), walk(tree()...), Options{Most: 1 << 20}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// TestTar writes a file system to an archive and reads it with our own reader of archives: nothing may differ.
func TestTar(t *testing.T) {
	node := fileSystem(t, tree()...)
	path := filepath.Join(t.TempDir(), "out.tar")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Tar(t.Context(), out, node.Tree, 16<<20, ""), out.Close()); err != nil {
		t.Fatal(err)
	}
	archive, err := source.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	list := func(walk Walk) (all []string) {
		if err := walk(t.Context(), func(e source.Entry, content io.Reader) error {
			e.ModTime = e.ModTime.UTC()
			if e.Type == source.HardLink { // the rest does not count
				e = source.Entry{Path: e.Path, Type: e.Type, Link: e.Link}
			}
			text := fmt.Sprintf("%+v", e)
			if content != nil {
				data, err := io.ReadAll(content)
				if err != nil {
					return err
				}
				text += string(data)
			}
			all = append(all, text)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}
	want, got := list(node.Tree), list(archive.Walk)
	if len(want) != len(tree())+1 || !slices.Equal(got, want) {
		t.Errorf("%d entries: %.300q; want %d: %.300q", len(got), got, len(want), want)
	}
	for name, c := range map[string]struct {
		files []file
		want  error
	}{
		"upward":                    {[]file{regular("/../x", "x", 0o644)}, ErrName},
		"more than the file system": {[]file{regular("/a", strings.Repeat("x", 60), 0o644), regular("/b", strings.Repeat("x", 60), 0o644)}, ErrTooMuch},
		"holes without an end":      {[]file{{source.Entry{Path: "/a", Type: source.Regular, Size: 1 << 50}, ""}}, ErrTooMuch},
		"shorter than its size":     {[]file{{source.Entry{Path: "/a", Type: source.Regular, Size: 5}, "x"}}, io.ErrUnexpectedEOF},
	} {
		if err := Tar(t.Context(), io.Discard, walk(c.files...), 100, ""); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSparse keeps holes: a file of 1 TiB with two blocks.
func TestSparse(t *testing.T) {
	content := &holes{map[int64]string{1 << 20: "here", 1<<40 - 5: "there"}}
	name := filepath.Join(t.TempDir(), "out")
	big := source.Entry{Path: "/", Type: source.Regular, Mode: 0o600, Size: 1 << 40}
	made, err := Folder(t.Context(), name, func(_ context.Context, use source.WalkFunc) error { return use(big, content) }, Options{Most: 100})
	if err != nil || made.Bytes != 9 {
		t.Fatal(made, err)
	}
	info, err := os.Stat(name)
	if err != nil || info.Size() != 1<<40 || info.Sys().(*syscall.Stat_t).Blocks > 1<<12 {
		t.Fatal(info, err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, 5)
	if _, err := f.ReadAt(got, 1<<40-5); err != nil || string(got) != "there" {
		t.Errorf("%q, %v", got, err)
	}
}

// holes is content of which only some runs are stored.
type holes struct{ runs map[int64]string }

func (h *holes) Read([]byte) (int, error) { return 0, errors.New("read as a whole") }

func (h *holes) Stored() (n int64) {
	for _, run := range h.runs {
		n += int64(len(run))
	}
	return n
}

func (h *holes) Runs(use func(off int64, data io.Reader) error) error {
	for off, run := range h.runs {
		if err := use(off, strings.NewReader(run)); err != nil {
			return err
		}
	}
	return nil
}
