package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzParseOrder: any command line gives an order that can be carried out, or an error.
func FuzzParseOrder(f *testing.F) {
	good := "root=/dev/mapper/sealboot-root sealboot.disk=" + testUUID + ` ro "a b" rootflags="x y" init=/sbin/init -- z`
	for _, s := range []string{good, "", `"`, "sealboot.disk=", "sealboot.disk=" + testUUID + " init=x", "-- sealboot.disk=" + testUUID} {
		f.Add(s)
	}
	if o, err := ParseOrder(good); err != nil || o.Options != "x y" {
		f.Fatalf("the first seed gives %+v, %v", o, err)
	}
	f.Fuzz(func(t *testing.T, line string) {
		o, err := ParseOrder(line)
		if err != nil {
			if o != (Order{}) {
				t.Errorf("%+v beside the error %v", o, err)
			}
			return
		}
		if !isUUID(o.Disk) || !strings.HasPrefix(o.Init, "/") {
			t.Errorf("order %+v", o)
		}
	})
}

// FuzzPrintable: whatever a disk holds, a reason stays one line of plain characters.
func FuzzPrintable(f *testing.F) {
	f.Add("stopped: \x1b[31m\r\nsealboot: disk unlocked")
	f.Add(strings.Repeat("\xff", 1000))
	f.Fuzz(func(t *testing.T, text string) {
		got := printable(text)
		if len(got) > maxLine+len("; ...") || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q", got)
		}
	})
}

// FuzzOpen: a path in a root with such links leads where the kernel says that it leads.
func FuzzOpen(f *testing.F) {
	for _, c := range [][4]string{
		{"a/b", "/a", "../..", "/a/b/three"}, {"two", "one", "/one", "/one"}, {"/", "..", "./two/../two", "a/two/two/b/three"},
		{"/../../a", "/a/b/../../..", "none", "one//./two/a/"}, {"a/two", "/one", "b", "one/b"}, {"/proc/self/root", "/etc", "/", "/one/etc"},
	} {
		f.Add(c[0], c[1], c[2], c[3])
	}
	f.Fuzz(func(t *testing.T, one, two, three, path string) {
		dir := t.TempDir()
		check(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
		for name, target := range map[string]string{"one": one, "a/two": two, "a/b/three": three} {
			if target == "" || len(target) > 1000 || len(path) > 1000 || strings.Contains(target+path, "\x00") || os.Symlink(target, filepath.Join(dir, name)) != nil {
				return
			}
		}
		root, err := os.OpenRoot(dir)
		check(t, err)
		defer root.Close()
		reference, err := os.Open(dir)
		check(t, err)
		defer reference.Close()
		fd, wanted := unix.Openat2(int(reference.Fd()), "./"+path, &unix.OpenHow{
			Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if wanted == nil {
			defer unix.Close(fd)
		} else if errors.Is(wanted, unix.ENOSYS) {
			t.Skip("Linux before 5.6")
		}
		got, err := (&installer{root: root}).open(path)
		if (err == nil) != (wanted == nil) {
			t.Fatalf("%q with the links %q, %q, %q: %v, the kernel says %v", path, one, two, three, err, wanted)
		}
		if err != nil {
			return
		}
		defer got.Close()
		var a, b unix.Stat_t
		if err := errors.Join(unix.Fstat(int(got.Fd()), &a), unix.Fstat(fd, &b)); err != nil || a.Dev != b.Dev || a.Ino != b.Ino {
			t.Errorf("%q with the links %q, %q, %q leads to %s, not where the kernel goes (%v)", path, one, two, three, got.Name(), err)
		}
	})
}
