package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// read walks a source and gives its entries, in order, and the content of its files.
func read(t testing.TB, src Source) ([]Entry, map[string]string) {
	t.Helper()
	var entries []Entry
	content := map[string]string{}
	err := src.Walk(t.Context(), func(e Entry, r io.Reader) error {
		entries = append(entries, e)
		if (r != nil) != (e.Type == Regular) {
			t.Errorf("%s is a %v, its content %v", e.Path, e.Type, r)
		}
		if r != nil {
			b, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			if int64(len(b)) != e.Size {
				t.Errorf("%s: %d bytes, announced were %d", e.Path, len(b), e.Size)
			}
			content[e.Path] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries, content
}

func open(t testing.TB, path string) Source {
	t.Helper()
	src, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// check ends the test at the first error.
func check(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestFolder(t *testing.T) {
	top := t.TempDir()
	in := func(name string) string { return filepath.Join(top, name) }
	at := time.Unix(1_700_000_000, 123_456_789)
	check(t, os.MkdirAll(in("b/sub"), 0o755), os.WriteFile(in("b/file"), []byte("content"), 0o640), os.Link(in("b/file"), in("c")),
		os.Symlink("/etc/passwd", in("a")), syscall.Mkfifo(in("fifo"), 0o600), os.Chmod(in("b/file"), 0o640|fs.ModeSetuid), os.Chtimes(in("b/file"), at, at))
	if l, err := net.Listen("unix", in("socket")); err == nil {
		defer l.Close()
	}
	src := open(t, top)
	entries, content := read(t, src)
	var got []string
	for _, e := range entries {
		got = append(got, e.Type.String()+" "+e.Path+" "+e.Link)
	}
	want := []string{"folder / ", "symbolic link /a /etc/passwd", "folder /b ", "file /b/file ", "folder /b/sub ", "hard link /c /b/file", "named pipe /fifo "}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
	if e := entries[3]; e.Mode != 0o4640 || !e.ModTime.Equal(at) || int(e.UID) != os.Getuid() || content["/b/file"] != "content" {
		t.Errorf("/b/file: %+v, %q", e, content["/b/file"])
	}
	if again, _ := read(t, src); !reflect.DeepEqual(again, entries) {
		t.Error("the second walk gave other entries")
	}
}

func TestFolderKeepsAttributes(t *testing.T) {
	top := t.TempDir()
	file := filepath.Join(top, "file")
	check(t, os.WriteFile(file, nil, 0o600))
	if err := unix.Setxattr(file, "user.b", []byte("2"), 0); err != nil {
		t.Skipf("this file system takes no attributes: %v", err)
	}
	check(t, unix.Setxattr(file, "user.a", []byte{0, 1}, 0), unix.Setxattr(file, "user.empty", nil, 0))
	entries, _ := read(t, open(t, top))
	want := []Xattr{{"user.a", []byte{0, 1}}, {"user.b", []byte("2")}, {"user.empty", nil}}
	if got := entries[1].Xattrs; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestFolderOfRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root makes devices and gives files away")
	}
	top := t.TempDir()
	in := func(name string) string { return filepath.Join(top, name) }
	check(t, unix.Mknod(in("char"), unix.S_IFCHR|0o600, int(unix.Mkdev(511, 0x12345))), unix.Mknod(in("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(8, 1))),
		os.Chmod(in("disk"), 0o660), os.WriteFile(in("other"), nil, 0o600), os.Chown(in("other"), 70_000, 80_000))
	entries, _ := read(t, open(t, top))
	if e := entries[1]; e.Type != CharDevice || e.Major != 511 || e.Minor != 0x12345 {
		t.Errorf("got %+v", e)
	}
	if e := entries[2]; e.Type != BlockDevice || e.Major != 8 || e.Minor != 1 || e.Mode != 0o660 {
		t.Errorf("got %+v", e)
	}
	if e := entries[3]; e.UID != 70_000 || e.GID != 80_000 {
		t.Errorf("got %+v", e)
	}
	check(t, os.Mkdir(in("proc"), 0o755))
	if err := unix.Mount("proc", in("proc"), "proc", 0, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer unix.Unmount(in("proc"), 0)
	err := open(t, top).Walk(t.Context(), func(Entry, io.Reader) error { return nil })
	if !errors.Is(err, ErrEntry) || !strings.Contains(err.Error(), "mounted on "+in("proc")) {
		t.Errorf("a mounted file system gave %v", err)
	}
}

func TestFolderThatChanges(t *testing.T) {
	top := t.TempDir()
	file := filepath.Join(top, "file")
	check(t, os.WriteFile(file, bytes.Repeat([]byte("x"), 1000), 0o600))
	err := open(t, top).Walk(t.Context(), func(e Entry, r io.Reader) error {
		if r == nil {
			return nil
		}
		check(t, os.Truncate(file, 10))
		_, err := io.ReadAll(r)
		return err
	})
	if !errors.Is(err, ErrChanged) {
		t.Errorf("a file that became shorter gave %v", err)
	}
}

// A folder may not tell what is in it (readdir(3), DT_UNKNOWN), and may tell what is no longer so.
func TestFolderKinds(t *testing.T) {
	top := t.TempDir()
	in := func(name string) string { return filepath.Join(top, name) }
	check(t, os.WriteFile(in("file"), []byte("content"), 0o600), syscall.Mkfifo(in("fifo"), 0o600), os.Symlink("file", in("link")))
	d, err := os.Open(top)
	check(t, err)
	defer d.Close()
	visit := func(name string, regular bool) (got []Type, err error) {
		w := &folderWalk{ctx: t.Context(), top: top, names: map[inode]string{}, f: func(e Entry, _ io.Reader) error {
			got = append(got, e.Type)
			return nil
		}}
		err = w.visit(place{int(d.Fd()), name, "/" + name}, regular)
		return got, err
	}
	for name, want := range map[string]Type{"file": Regular, "fifo": FIFO, "link": Symlink} {
		if got, err := visit(name, false); err != nil || !slices.Equal(got, []Type{want}) {
			t.Errorf("%s of unknown kind: %v, %v", name, got, err)
		}
	}
	if got, err := visit("file", true); err != nil || !slices.Equal(got, []Type{Regular}) {
		t.Errorf("a file: %v, %v", got, err)
	}
	if got, err := visit("fifo", true); !errors.Is(err, ErrChanged) || got != nil {
		t.Errorf("a named pipe in a file's place: %v, %v", got, err)
	}
	if got, err := visit("link", true); !errors.Is(err, unix.ELOOP) || got != nil {
		t.Errorf("a symbolic link in a file's place: %v, %v", got, err)
	}
}

func TestUnreadableEntry(t *testing.T) {
	top := t.TempDir()
	file := filepath.Join(top, "file")
	check(t, os.WriteFile(file, []byte("x"), 0o600), os.Chmod(file, 0))
	src := open(t, top)
	walked := make(chan error)
	go func() {
		// Root gives up its power to read everything, on a thread that ends with this goroutine.
		runtime.LockOSThread()
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData // version 3 has two
		if err := unix.Capset(&head, &none[0]); err != nil {
			t.Error(err)
		}
		walked <- src.Walk(context.Background(), func(Entry, io.Reader) error { return nil })
	}()
	if err := <-walked; !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "file") || !strings.Contains(err.Error(), "run as a user who may read") {
		t.Errorf("got %v", err)
	}
}

func TestWalkStops(t *testing.T) {
	top := t.TempDir()
	check(t, os.Mkdir(filepath.Join(top, "a"), 0o755))
	stop := errors.New("stop")
	calls := 0
	if err := open(t, top).Walk(t.Context(), func(Entry, io.Reader) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := open(t, top).Walk(ctx, func(Entry, io.Reader) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
