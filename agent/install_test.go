package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// draw makes a tree: "path/" is a folder, "path -> target" a symbolic link, all else a file that holds its own name and a
// word for the tree. A mode may come first.
func draw(t *testing.T, word string, lines ...string) string {
	t.Helper()
	top := filepath.Join(t.TempDir(), word)
	check(t, os.Mkdir(top, 0o755))
	for _, line := range lines {
		mode := os.FileMode(0)
		if f := strings.Fields(line); len(f) == 2 {
			_, err := fmt.Sscanf(f[0], "%o", &mode)
			check(t, err)
			line = f[1]
		}
		path, target, link := strings.Cut(line, " -> ")
		path, folder := strings.CutSuffix(path, "/")
		name := filepath.Join(top, path)
		switch {
		case link:
			check(t, os.Symlink(target, name))
			continue
		case folder:
			check(t, os.Mkdir(name, 0o755))
		default:
			check(t, os.WriteFile(name, []byte(word+" "+path), 0o644))
		}
		if mode != 0 {
			check(t, unix.Chmod(name, uint32(mode)))
		}
	}
	return top
}

// list describes all that is in a tree.
func list(t *testing.T, top string) map[string]string {
	t.Helper()
	all := map[string]string{}
	check(t, filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var s unix.Stat_t
		if err := unix.Lstat(name, &s); err != nil {
			return err
		}
		text := fmt.Sprintf("%o %d:%d", s.Mode, s.Uid, s.Gid)
		switch s.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := os.ReadFile(name)
			check(t, err)
			text += " " + string(content)
		case unix.S_IFLNK:
			target, err := os.Readlink(name)
			check(t, err)
			text += " " + target
		}
		for _, attribute := range []string{selinux, "user.note"} {
			value := make([]byte, 100)
			if n, err := unix.Lgetxattr(name, attribute, value); err == nil {
				text += fmt.Sprintf(" %s=%s", attribute, value[:n])
			}
		}
		rest, err := filepath.Rel(top, name)
		all[rest] = text
		return err
	}))
	return all
}

func attribute(t *testing.T, name, attribute, value string) {
	t.Helper()
	if err := unix.Lsetxattr(name, attribute, []byte(value), 0); errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		t.Skipf("may not set the attribute %s (only root may)", attribute)
	} else {
		check(t, err)
	}
}

// aTree is what a builder would have put, and aRoot where it goes.
func aTree(t *testing.T) string {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files to others; the boots test it")
	}
	tree := draw(t, "new", "etc/", "etc/fstab", "etc/kernel/", "700 etc/secret.d/", "600 etc/secret.d/key", "usr/", "usr/lib/",
		"lib/", "lib/sealboot/", "4755 lib/sealboot/program", "lib/sealboot/link -> /nowhere/at all", "abs/", "abs/file", "etc/was-link", "etc/was-long")
	attribute(t, filepath.Join(tree, "lib/sealboot/program"), "user.note", "kept")
	check(t, os.Lchown(filepath.Join(tree, "etc/secret.d"), 7, 8))
	check(t, os.Lchown(filepath.Join(tree, "lib/sealboot/program"), 9, 10))
	check(t, os.Lchown(filepath.Join(tree, "lib/sealboot/link"), 11, 12))
	check(t, unix.Chmod(filepath.Join(tree, "lib/sealboot/program"), 0o4755)) // chown took it
	attribute(t, filepath.Join(tree, "etc/secret.d/key"), selinux, "given")
	return tree
}

func aRoot(t *testing.T) string {
	root := draw(t, "old", "700 etc/", "600 etc/fstab", "etc/untouched", "usr/", "usr/lib/", "usr/way -> ../../usr/./lib/..", "lib -> usr/lib", "abs -> /lib/../way/lib",
		"etc/was-link -> untouched", "etc/was-long")
	check(t, os.Lchown(filepath.Join(root, "etc"), 1, 2))
	attribute(t, filepath.Join(root, "etc"), selinux, "etc_t")
	attribute(t, filepath.Join(root, "etc/fstab"), selinux, "fstab_t")
	check(t, os.WriteFile(filepath.Join(root, "etc/was-long"), make([]byte, 100<<10), 0o666))
	return root
}

func TestInstall(t *testing.T) {
	tree, root := aTree(t), aRoot(t)
	n, err := install(t.Context(), tree, root)
	if err != nil || n != 15 {
		t.Fatalf("%d, %v", n, err)
	}
	want := map[string]string{
		".":                        "40755 0:0",
		"etc":                      "40700 1:2 security.selinux=etc_t",
		"etc/fstab":                "100644 0:0 new etc/fstab security.selinux=fstab_t",
		"etc/untouched":            "100644 0:0 old etc/untouched",
		"etc/kernel":               "40755 0:0 security.selinux=etc_t",
		"etc/secret.d":             "40700 7:8 security.selinux=etc_t",
		"etc/secret.d/key":         "100600 0:0 new etc/secret.d/key security.selinux=given",
		"etc/was-link":             "100644 0:0 new etc/was-link security.selinux=etc_t",
		"etc/was-long":             "100644 0:0 new etc/was-long security.selinux=etc_t",
		"usr":                      "40755 0:0",
		"usr/lib":                  "40755 0:0",
		"usr/lib/file":             "100644 0:0 new abs/file",
		"usr/lib/sealboot":         "40755 0:0",
		"usr/lib/sealboot/program": "104755 9:10 new lib/sealboot/program user.note=kept",
		"usr/lib/sealboot/link":    "120777 11:12 /nowhere/at all",
		"lib":                      "120777 0:0 usr/lib",
		"abs":                      "120777 0:0 /lib/../way/lib",
		"usr/way":                  "120777 0:0 ../../usr/./lib/..",
	}
	got := list(t, root)
	for path, text := range want {
		if got[path] != text {
			t.Errorf("%s: %s, want %s", path, got[path], text)
		}
		delete(got, path)
	}
	if len(got) != 0 {
		t.Errorf("also %v", got)
	}
	once := list(t, root)
	if _, err := install(t.Context(), tree, root); err != nil || !maps.Equal(list(t, root), once) {
		t.Errorf("a second time gives something else, or %v", err)
	}
}

// ending is a context that ends when it was asked a number of times.
type ending struct {
	context.Context
	left int
}

var errOff = errors.New("the power is off")

func (c *ending) Err() error {
	if c.left--; c.left < 0 {
		return errOff
	}
	return nil
}

// TestInterrupted ends the work before each of its steps, does it again, and compares with what was done in one go.
func TestInterrupted(t *testing.T) {
	tree, whole := aTree(t), aRoot(t)
	_, err := installOnce(t.Context(), tree, whole, testUUID)
	check(t, err)
	want := list(t, whole)
	steps := 0
	for ; ; steps++ {
		root := aRoot(t)
		_, err := installOnce(&ending{t.Context(), steps}, tree, root, testUUID)
		if err == nil {
			break
		}
		if !errors.Is(err, errOff) {
			t.Fatalf("%d steps: %v", steps, err)
		}
		if _, err := installOnce(t.Context(), tree, root, testUUID); err != nil {
			t.Fatalf("again after %d steps: %v", steps, err)
		}
		if got := list(t, root); !maps.Equal(got, want) {
			t.Errorf("interrupted after %d steps: %v\nwant %v", steps, got, want)
		}
	}
	if steps < 40 {
		t.Errorf("only %d steps", steps)
	}
}

// TestInstallOnce: once a root is complete, what the disk says about it does not count any more, as a host may put it back.
func TestInstallOnce(t *testing.T) {
	tree, root := draw(t, "new", "file"), draw(t, "old", "other")
	file := filepath.Join(root, "file")
	want := func(name, disk, content string, count int) {
		t.Helper()
		if n, err := installOnce(t.Context(), tree, root, disk); n != count || err != nil {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		if got, err := os.ReadFile(file); string(got) != content || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	want("first", testUUID, "new file", 1)
	check(t, os.WriteFile(file, []byte("changed"), 0o644))
	want("again", testUUID, "changed", 0)
	want("the root on another disk", "another", "new file", 1)
	check(t, os.WriteFile(file, []byte("changed"), 0o644))
	for name, text := range map[string]string{"an empty mark": "", "half a mark": "anot", "more than a mark": "another\nx"} {
		check(t, os.WriteFile(filepath.Join(root, mark), []byte(text), 0o600))
		want(name, "another", "new file", 1)
	}
	check(t, os.Remove(filepath.Join(root, mark)))
	check(t, os.Symlink("/etc/hostname", filepath.Join(root, mark)))
	if n, err := installOnce(t.Context(), tree, root, testUUID); n != 0 || err == nil {
		t.Errorf("a mark that leads out: %d, %v", n, err)
	}
}

// TestInstallRefuses has trees that would leave the root, or that no builder makes. Nothing outside changes.
func TestInstallRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		tree, root []string
		want       error
	}{
		"link out of the root, relative":   {[]string{"etc/", "etc/x"}, []string{"etc -> ../outside"}, unix.ENOENT},
		"link out of the root, far":        {[]string{"etc/", "etc/x"}, []string{"etc -> " + strings.Repeat("../", 30) + "tmp"}, unix.ENOENT},
		"link out of the root, absolute":   {[]string{"etc/", "etc/x"}, []string{"etc -> OUTSIDE"}, unix.ENOENT},
		"link in the middle":               {[]string{"a/", "a/etc/", "a/etc/x"}, []string{"a/", "a/etc -> OUTSIDE"}, unix.ENOENT},
		"link to proc's links":             {[]string{"etc/", "etc/x"}, []string{"etc -> /proc/self/root"}, unix.ENOENT},
		"links in a circle":                {[]string{"etc/", "etc/x"}, []string{"etc -> lib", "lib -> etc"}, unix.ELOOP},
		"file where a folder should be":    {[]string{"etc/", "etc/x"}, []string{"etc"}, unix.ENOTDIR},
		"folder where a file should be":    {[]string{"etc"}, []string{"etc/"}, unix.EISDIR},
		"folder at the temporary name":     {[]string{"etc"}, []string{temporary + "/", temporary + "/x"}, unix.ENOTEMPTY},
		"a pipe":                           {[]string{"etc/"}, nil, errPipe},
		"the tree's own links lead nobody": {[]string{"etc -> OUTSIDE"}, []string{"etc/"}, unix.EISDIR},
	} {
		t.Run(name, func(t *testing.T) {
			outside := draw(t, "outside", "x")
			there := func(lines []string) []string {
				var out []string
				for _, l := range lines {
					out = append(out, strings.ReplaceAll(l, "OUTSIDE", outside))
				}
				return out
			}
			tree, root := draw(t, "new", there(c.tree)...), draw(t, "root", there(c.root)...)
			if c.want == errPipe {
				check(t, unix.Mkfifo(filepath.Join(tree, "etc/pipe"), 0o600))
				if _, err := install(t.Context(), tree, root); err == nil || !strings.Contains(err.Error(), "/etc/pipe: neither a file") {
					t.Errorf("%v", err)
				}
				return
			}
			before := list(t, filepath.Dir(outside))
			if _, err := install(t.Context(), tree, root); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if !maps.Equal(list(t, filepath.Dir(outside)), before) {
				t.Error("something outside of the root changed")
			}
		})
	}
}

var errPipe = errors.New("a pipe")

func TestInstallBounds(t *testing.T) {
	large := draw(t, "new", "file")
	check(t, os.Truncate(filepath.Join(large, "file"), maxInstallFile+1))
	deep := draw(t, "new")
	check(t, os.MkdirAll(filepath.Join(deep, strings.Repeat("d/", maxInstallDepth+1)), 0o755))
	many := draw(t, "new")
	for i := range maxInstallEntries + 1 {
		check(t, os.Symlink("x", filepath.Join(many, fmt.Sprint(i))))
	}
	for tree, want := range map[string]string{large: "/file: 268435457 bytes", deep: "more than 32 deep", many: "more than 10000 files"} {
		root := draw(t, "root")
		if _, err := install(t.Context(), tree, root); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestMountOptions(t *testing.T) {
	for options, want := range map[string]struct {
		flags uintptr
		data  string
	}{
		"":                            {0, ""},
		"subvol=@/root":               {0, "subvol=@/root"},
		"noatime,subvol=@,rw":         {unix.MS_NOATIME, "subvol=@"},
		"defaults,compress=zstd:1,ro": {0, "compress=zstd:1"},
		"nosuid,,nodev,uquota":        {unix.MS_NOSUID | unix.MS_NODEV, "uquota"},
	} {
		if flags, data := mountOptions(options); flags != want.flags || data != want.data {
			t.Errorf("%q: %#x, %q", options, flags, data)
		}
	}
}
