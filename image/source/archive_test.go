package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	bounded "github.com/sealboot/sealboot/image/source/xz"
	"github.com/sealboot/sealboot/internal/testtool"
)

// pack makes a tar archive; content is 'x' as often as Size says.
func pack(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		check(t, w.WriteHeader(&h))
		_, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
		check(t, err)
	}
	check(t, w.Close())
	return out.Bytes()
}

func write(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(path, content, 0o600))
	return path
}

var (
	made = time.Unix(1_700_000_000, 987_654_321)
	all  = []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: made, Format: tar.FormatPAX},
		{Name: "./usr/bin/su", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 3_000_000, Gid: 7, Size: 4, ModTime: made, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02", "SCHILY.xattr.user.a": "1", "LIBARCHIVE.xattr.user.%C3%A9": "Zm9v"}},
		{Name: "usr/bin/su2", Typeflag: tar.TypeLink, Linkname: "./usr/bin/su"},
		{Name: "/bin", Typeflag: tar.TypeSymlink, Linkname: "../usr/bin", Mode: 0o777},
		{Name: "dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Name: "se", Typeflag: tar.TypeDir, PAXRecords: map[string]string{"RHT.security.selinux": "u:r:t:s0"}},
		{Name: "dev/sda", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 8, Devminor: 0},
		{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600},
	}
)

func TestArchive(t *testing.T) {
	plain := pack(t, all...)
	var zipped, xzed, zstded bytes.Buffer
	g := gzip.NewWriter(&zipped)
	_, err := g.Write(plain)
	check(t, err, g.Close())
	x, err := xz.NewWriter(&xzed)
	check(t, err)
	_, err = x.Write(plain)
	check(t, err, x.Close())
	z, err := zstd.NewWriter(&zstded)
	check(t, err)
	_, err = z.Write(plain)
	check(t, err, z.Close())
	for name, archive := range map[string][]byte{"plain": plain, "gzip": zipped.Bytes(), "xz": xzed.Bytes(), "zstd": zstded.Bytes()} {
		t.Run(name, func(t *testing.T) {
			src := open(t, write(t, archive))
			entries, content := read(t, src)
			if len(entries) != len(all) {
				t.Fatalf("%d entries: %+v", len(entries), entries)
			}
			su := Entry{Path: "/usr/bin/su", Type: Regular, Mode: 0o4755, UID: 3_000_000, GID: 7, Size: 4, Xattrs: []Xattr{
				{"security.capability", []byte{1, 0, 0, 2}}, {"user.a", []byte("1")}, {"user.é", []byte("foo")}}}
			if !entries[1].ModTime.Equal(made) {
				t.Errorf("time %v", entries[1].ModTime)
			}
			entries[1].ModTime = time.Time{}
			if !reflect.DeepEqual(entries[1], su) || content["/usr/bin/su"] != "xxxx" {
				t.Errorf("got %+v, want %+v", entries[1], su)
			}
			if want := (Entry{Path: "/usr/bin/su2", Type: HardLink, Link: "/usr/bin/su"}); !reflect.DeepEqual(entries[2], want) {
				t.Errorf("got %+v", entries[2])
			}
			if e := entries[3]; e.Path != "/bin" || e.Link != "../usr/bin" {
				t.Errorf("got %+v", e)
			}
			if x := entries[5].Xattrs; !reflect.DeepEqual(x, []Xattr{{"security.selinux", []byte("u:r:t:s0\x00")}}) {
				t.Errorf("got %q", x)
			}
			if e := entries[6]; e.Type != BlockDevice || e.Major != 8 || e.Minor != 0 || e.Mode != 0o660 {
				t.Errorf("got %+v", e)
			}
			again, _ := read(t, src)
			if len(again) != len(all) {
				t.Errorf("the second walk gave %d entries", len(again))
			}
		})
	}
}

// TestArchiveDictionary opens an archive whose block asks for 1.5 GiB.
func TestArchiveDictionary(t *testing.T) {
	head, err := hex.DecodeString("fd377a585a0000016922de36" + "02002101250000003b787b41") // of the stream, of the block
	check(t, err)
	if _, err := Open(write(t, head)); !errors.As(err, new(*bounded.DictionaryError)) {
		t.Errorf("got %v", err)
	}
}

// TestArchiveOfGNUTar reads what tar itself packs, attributes and holes too.
func TestArchiveOfGNUTar(t *testing.T) {
	program := testtool.Program(t, "tar")
	top := t.TempDir()
	check(t, os.WriteFile(filepath.Join(top, "sparse"), []byte("begin"), 0o600), os.Truncate(filepath.Join(top, "sparse"), 1<<20),
		os.WriteFile(filepath.Join(top, strings.Repeat("long", 50)), nil, 0o600))
	for _, format := range []string{"gnu", "pax"} {
		archive := filepath.Join(t.TempDir(), "x.tar")
		testtool.Output(t, program, "--format="+format, "--sparse", "-C", top, "-cf", archive, ".")
		entries, content := read(t, open(t, archive))
		if len(entries) != 3 || len(content["/sparse"]) != 1<<20 || !strings.HasPrefix(content["/sparse"], "begin\x00") {
			t.Errorf("%s: %d entries, sparse of %d bytes", format, len(entries), len(content["/sparse"]))
		}
	}
}

func TestArchiveRefuses(t *testing.T) {
	good := tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 3}
	walk := func(h tar.Header) error {
		return open(t, write(t, pack(t, h))).Walk(t.Context(), func(Entry, io.Reader) error { return nil })
	}
	if err := walk(good); err != nil {
		t.Fatalf("the good entry: %v", err)
	}
	for name, c := range map[string]struct {
		spoil func(*tar.Header)
		want  error
	}{
		"climbs out":       {func(h *tar.Header) { h.Name = "../f" }, ErrPath},
		"climbs inside":    {func(h *tar.Header) { h.Name = "a/../../f" }, ErrPath},
		"link climbs out":  {func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeLink, "../../etc/shadow", 0 }, ErrPath},
		"negative owner":   {func(h *tar.Header) { h.Uid, h.Format = -1, tar.FormatGNU }, ErrEntry},
		"huge group":       {func(h *tar.Header) { h.Gid, h.Format = 1<<32, tar.FormatGNU }, ErrEntry},
		"unknown type":     {func(h *tar.Header) { h.Typeflag = 'Q' }, ErrEntry},
		"ACL as text":      {func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.acl.access": "user::rw-"} }, ErrEntry},
		"broken attribute": {func(h *tar.Header) { h.PAXRecords = map[string]string{"LIBARCHIVE.xattr.user.x": "!"} }, ErrEntry},
	} {
		t.Run(name, func(t *testing.T) {
			h := good
			c.spoil(&h)
			if err := walk(h); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestArchiveCutShort(t *testing.T) {
	whole := pack(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 5000})
	for _, n := range []int{600, 1024, 4000, 512 + 5000, 512 + 5120, 512 + 5120 + 512} {
		err := open(t, write(t, whole[:n])).Walk(t.Context(), func(_ Entry, r io.Reader) error {
			_, err := io.ReadAll(r)
			return err
		})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
}

func TestOpenRecognizes(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	for name, content := range map[string][]byte{"empty": nil, "text": []byte("hello"), "zeros": make([]byte, 10240), "zip": []byte("PK\x03\x04"), "gzip of text": gzipped1(t, []byte("hello"))} {
		if src, err := Open(write(t, content)); src != nil || !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v, %v", name, src, err)
		}
	}
	if src, err := Open(write(t, []byte{0x1f, 0x8b, 8, 0})); src != nil || err == nil {
		t.Errorf("broken gzip: %v, %v", src, err)
	}
	image := make([]byte, 8192)
	image[1024+0x38], image[1024+0x39] = 0x53, 0xef
	if src, err := Open(write(t, image)); src != nil || !errors.Is(err, ErrExt4) {
		t.Errorf("ext4: %v, %v", src, err)
	}
	// An archive whose second entry has ext4's magic number in just that place is an archive.
	tricky := pack(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 4096})
	tricky[1024+0x38], tricky[1024+0x39] = 0x53, 0xef
	if _, err := Open(write(t, tricky)); err != nil {
		t.Errorf("archive that looks like ext4: %v", err)
	}
}

func gzipped1(t *testing.T, content []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(content)
	check(t, err, w.Close())
	return out.Bytes()
}

func FuzzArchive(f *testing.F) {
	f.Add(pack(f, all...))
	f.Add(pack(f, tar.Header{Name: "../x", Typeflag: tar.TypeReg, Size: 3}))
	f.Fuzz(func(t *testing.T, archive []byte) {
		walkArchive(t.Context(), "archive", bytes.NewReader(archive), true, func(e Entry, r io.Reader) error {
			if !strings.HasPrefix(e.Path, "/") || strings.Contains(e.Path+"/", "/../") || strings.Contains(e.Path, "//") || e.Size < 0 {
				t.Errorf("entry %+v", e)
			}
			if r != nil {
				io.CopyN(io.Discard, r, 1<<20)
			}
			return nil
		})
	})
}
