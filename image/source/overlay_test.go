package source

import (
	"archive/tar"
	"errors"
	"io"
	"slices"
	"testing"
)

func TestWith(t *testing.T) {
	src := open(t, write(t, pack(t, tar.Header{Name: "boot/", Typeflag: tar.TypeDir, Mode: 0o700}, tar.Header{Name: "lib", Typeflag: tar.TypeSymlink, Linkname: "usr/lib"})))
	with, err := With(src, File{Path: "/boot/sealboot/a", Mode: 0o600, Content: []byte("A")}, File{Path: "/boot/sealboot/b", Content: []byte("B")})
	check(t, err)
	for range 2 {
		entries, content := read(t, with)
		var paths []string
		for _, e := range entries {
			paths = append(paths, e.Type.String()+" "+e.Path)
		}
		if want := []string{"folder /boot", "symbolic link /lib", "folder /boot/sealboot", "file /boot/sealboot/a", "file /boot/sealboot/b"}; !slices.Equal(paths, want) {
			t.Errorf("got %q", paths)
		}
		if content["/boot/sealboot/a"] != "A" || entries[2].Mode != 0o755 {
			t.Errorf("content %q, folder %+v", content, entries[2])
		}
	}
	for _, path := range []string{"", "/", "boot/x", "/boot/../x", "/boot//x", "/x/"} {
		if _, err := With(src, File{Path: path}); !errors.Is(err, ErrPath) {
			t.Errorf("%q: %v", path, err)
		}
	}
	// Through a symbolic link the file would land elsewhere, or replace the link.
	with, err = With(src, File{Path: "/lib/x"})
	check(t, err)
	if err := with.Walk(t.Context(), func(Entry, io.Reader) error { return nil }); !errors.Is(err, ErrEntry) {
		t.Errorf("through a link: %v", err)
	}
}

func TestAllRoot(t *testing.T) {
	src := open(t, write(t, pack(t, tar.Header{Name: "a", Typeflag: tar.TypeReg, Uid: 1000, Gid: 50, Size: 1, Mode: 0o640})))
	before, _ := read(t, src)
	after, content := read(t, AllRoot(src))
	if before[0].UID != 1000 || after[0].UID != 0 || after[0].GID != 0 || after[0].Mode != 0o640 || content["/a"] != "x" {
		t.Errorf("before %+v, after %+v", before, after)
	}
}
