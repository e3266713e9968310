package source

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// stack makes layers of archives. Entries are "path" for a file, "path/" for a folder, "path -> target" for a symbolic and
// "path = target" for a hard link. A file's content is the number of its layer.
func stack(t testing.TB, layers ...[]string) *merged {
	t.Helper()
	m := &merged{}
	for i, entries := range layers {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, e := range entries {
			h := &tar.Header{Name: e, Typeflag: tar.TypeReg, Mode: int64(0o600 + i), Size: int64(i + 1)}
			if path, target, ok := strings.Cut(e, " -> "); ok {
				h = &tar.Header{Name: path, Linkname: target, Typeflag: tar.TypeSymlink}
			} else if path, target, ok := strings.Cut(e, " = "); ok {
				h = &tar.Header{Name: path, Linkname: target, Typeflag: tar.TypeLink}
			} else if strings.HasSuffix(e, "/") {
				h.Typeflag, h.Size = tar.TypeDir, 0
			}
			check(t, w.WriteHeader(h))
			_, err := w.Write(bytes.Repeat([]byte{byte('1' + i)}, int(h.Size)))
			check(t, err)
		}
		check(t, w.Close())
		m.layers = append(m.layers, layer{src: &archive{write(t, out.Bytes())}, whiteouts: true})
	}
	return m
}

// shown gives a source's entries as stack takes them, with content behind a colon, sorted.
func shown(t testing.TB, src Source) []string {
	t.Helper()
	entries, content := read(t, src)
	var list []string
	for _, e := range entries {
		switch e.Type {
		case Regular:
			list = append(list, e.Path+":"+content[e.Path])
		case Folder:
			list = append(list, strings.TrimSuffix(e.Path, "/")+"/")
		case Symlink:
			list = append(list, e.Path+" -> "+e.Link)
		case HardLink:
			list = append(list, e.Path+" = "+e.Link)
		}
	}
	slices.Sort(list)
	return list
}

func TestMerge(t *testing.T) {
	for name, c := range map[string]struct {
		layers [][]string
		want   []string
	}{
		"union":                  {[][]string{{"a/", "a/x"}, {"b/", "a/y"}}, []string{"/a/", "/a/x:1", "/a/y:22", "/b/"}},
		"later counts":           {[][]string{{"a"}, {"a"}}, []string{"/a:22"}},
		"whiteout":               {[][]string{{"a", "b"}, {".wh.a"}}, []string{"/b:1"}},
		"whiteout of a folder":   {[][]string{{"a/", "a/b/", "a/b/c"}, {"a/.wh.b"}}, []string{"/a/"}},
		"whiteout, then anew":    {[][]string{{"a/", "a/old"}, {".wh.a", "a/", "a/new"}}, []string{"/a/", "/a/new:22"}},
		"anew, then whiteout":    {[][]string{{"a/", "a/old"}, {"a/", "a/new", ".wh.a"}}, []string{"/a/", "/a/new:22"}},
		"whiteout of nothing":    {[][]string{{"b"}, {".wh.a", "x/.wh.y"}}, []string{"/b:1"}},
		"opaque":                 {[][]string{{"a/", "a/old", "a/d/", "a/d/e"}, {"a/", "a/.wh..wh..opq", "a/new"}}, []string{"/a/", "/a/new:22"}},
		"opaque comes last":      {[][]string{{"a/", "a/old"}, {"a/", "a/new", "a/.wh..wh..opq"}}, []string{"/a/", "/a/new:22"}},
		"AUFS's own":             {[][]string{{"a"}, {".wh..wh.plnk/", ".wh..wh.aufs"}}, []string{"/a:1"}},
		"whiteout two below":     {[][]string{{"a"}, {"b"}, {".wh.a", ".wh.b"}}, nil},
		"deleted and back":       {[][]string{{"a"}, {".wh.a"}, {"a"}}, []string{"/a:333"}},
		"folder becomes file":    {[][]string{{"a/", "a/x"}, {"a"}}, []string{"/a:22"}},
		"file becomes folder":    {[][]string{{"a"}, {"a/", "a/x"}}, []string{"/a/", "/a/x:22"}},
		"through a link":         {[][]string{{"usr/lib/", "lib -> usr/lib"}, {"lib/x"}}, []string{"/lib -> usr/lib", "/usr/lib/", "/usr/lib/x:22"}},
		"through a link upward":  {[][]string{{"out -> ../../../etc"}, {"out/passwd"}}, []string{"/etc/passwd:22", "/out -> ../../../etc"}},
		"through an absolute":    {[][]string{{"out -> /etc"}, {"out/passwd"}}, []string{"/etc/passwd:22", "/out -> /etc"}},
		"link is replaced":       {[][]string{{"etc/", "passwd -> etc/x"}, {"passwd"}}, []string{"/etc/", "/passwd:22"}},
		"hard link":              {[][]string{{"a", "b = a"}}, []string{"/a:1", "/b = /a"}},
		"hard link across":       {[][]string{{"a"}, {"b = a"}}, []string{"/a:1", "/b = /a"}},
		"hard link outlives":     {[][]string{{"a", "b = a"}, {".wh.a"}}, []string{"/b:1"}},
		"hard link, then gone":   {[][]string{{"a"}, {"b = a", ".wh.a"}}, []string{"/b:1"}},
		"hard link to a replica": {[][]string{{"a", "b = a"}, {"a"}}, []string{"/a:22", "/b:1"}},
		"hard link through link": {[][]string{{"usr/x", "lib -> usr"}, {"y = lib/x"}}, []string{"/lib -> usr", "/usr/x:1", "/y = /usr/x"}},
		"hard link to itself":    {[][]string{{"a", "a = a"}}, []string{"/a:1"}},
		"many names":             {[][]string{{"z", "a = z", "m = a"}, {".wh.z"}}, []string{"/a:1", "/m = /a"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := stack(t, c.layers...)
			for range 2 {
				if got := shown(t, m); !slices.Equal(got, c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		layers [][]string
		want   error
	}{
		"links in a loop":        {[][]string{{"a -> b", "b -> a"}, {"a/x"}}, ErrMerge},
		"through a file":         {[][]string{{"a"}, {"a/x"}}, ErrMerge},
		"hard link to nothing":   {[][]string{{"a = b"}}, ErrMerge},
		"hard link to a folder":  {[][]string{{"b/", "a = b"}}, ErrMerge},
		"hard link to a deleted": {[][]string{{"b"}, {".wh.b", "a = b"}}, ErrMerge},
		"whiteout of itself":     {[][]string{{"a/"}, {"a/.wh.."}}, ErrPath},
		"whiteout upward":        {[][]string{{"a/"}, {"a/.wh..."}}, ErrPath},
		"path upward":            {[][]string{{"../a"}}, ErrPath},
	} {
		t.Run(name, func(t *testing.T) {
			called := false
			err := stack(t, c.layers...).Walk(t.Context(), func(Entry, io.Reader) error { called = true; return nil })
			if !errors.Is(err, c.want) || called {
				t.Errorf("got %v, called: %v", err, called)
			}
		})
	}
}

func TestMounted(t *testing.T) {
	base, over := stack(t, []string{"boot/", "boot/hidden", "etc/", "link -> boot"}), stack(t, []string{"./", "lost+found/", "vmlinuz", "v = vmlinuz"})
	want := []string{"/boot/", "/boot/v:1", "/boot/vmlinuz = /boot/v", "/etc/", "/link -> boot"}
	if got := shown(t, Mounted(base, "/boot", over)); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	want = []string{"/boot/", "/boot/hidden:1", "/efi/", "/efi/v:1", "/efi/vmlinuz = /efi/v", "/etc/", "/link -> boot"}
	if got := shown(t, Mounted(base, "/efi", over)); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestMergeThatChanges(t *testing.T) {
	m := stack(t, []string{"a", "b"})
	shown(t, m)
	for name, other := range map[string][]string{"another name": {"a", "c"}, "another type": {"a", "b/"}, "shorter": {"a"}} {
		m.layers = stack(t, other).layers
		if err := m.Walk(t.Context(), func(Entry, io.Reader) error { return nil }); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExpanding(t *testing.T) {
	packed := &counted{n: 10}
	for size, want := range map[int64]error{1000: nil, 1000 + 10*maxExpansion + maxExpansion - 1: nil, 1000 + 11*maxExpansion: ErrBomb} {
		_, err := io.Copy(io.Discard, &expanding{r: io.LimitReader(zeros{}, size), in: packed, free: 1000})
		if !errors.Is(err, want) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func FuzzMerge(f *testing.F) {
	f.Add("a/ a/b l->a h=a/b", ".wh.a l/x a/.wh..wh..opq", "a/.wh.x h=l/x")
	f.Fuzz(func(t *testing.T, one, two, three string) {
		m := &merged{}
		for _, script := range []string{one, two, three} {
			m.layers = append(m.layers, layer{src: scripted(script), whiteouts: true})
		}
		kinds := map[string]Type{}
		m.Walk(context.Background(), func(e Entry, r io.Reader) error {
			if clean, err := cleanPath(e.Path); err != nil || clean != e.Path {
				t.Fatalf("path %q", e.Path)
			}
			if _, ok := kinds[e.Path]; ok {
				t.Fatalf("%q comes twice", e.Path)
			}
			if kind, ok := kinds[e.Link]; e.Type == HardLink && (!ok || kind == Folder) {
				t.Fatalf("%q is a link to %q", e.Path, e.Link)
			}
			kinds[e.Path] = e.Type
			return nil
		})
	})
}

// scripted is a source made from words.
type scripted string

func (s scripted) Walk(_ context.Context, f WalkFunc) error {
	for word := range strings.FieldsSeq(string(s)) {
		e := Entry{Path: word, Type: Regular}
		if a, b, ok := strings.Cut(word, "->"); ok {
			e = Entry{Path: a, Link: b, Type: Symlink}
		} else if a, b, ok := strings.Cut(word, "="); ok {
			link, err := cleanPath(b)
			if err != nil {
				return err
			}
			e = Entry{Path: a, Link: link, Type: HardLink}
		} else if strings.HasSuffix(word, "/") {
			e.Type = Folder
		}
		var err error
		if e.Path, err = cleanPath(e.Path); err != nil {
			return err
		}
		if err := f(e, strings.NewReader("")); err != nil {
			return err
		}
	}
	return nil
}
