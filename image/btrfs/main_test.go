package btrfs

import (
	"errors"
	"os/exec"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/image/fsys/fsystest"
	"github.com/sealboot/sealboot/internal/testtool"
)

var opener = fsystest.Opener[*Reader](Open)

func open(t testing.TB, path string) *Reader { t.Helper(); return opener.Open(t, path) }

func mkfs(t testing.TB, size int64, args ...string) string {
	t.Helper()
	return fsystest.Mkfs(t, testtool.Program(t, "mkfs.btrfs"), size, args...)
}

// TestKernel compares what the kernel reads with what the package reads.
func TestKernel(t *testing.T) {
	for name, test := range map[string]struct {
		options string
		args    []string
	}{
		"plain": {"compress=no", nil},
		"zstd":  {"compress-force=zstd", []string{"--csum", "xxhash"}},
		"lzo":   {"compress-force=lzo", []string{"--csum", "sha256", "-n", "32768"}},
		"zlib":  {"compress=zlib", []string{"--csum", "blake2", "-O", "^no-holes", "-R", "^free-space-tree", "-d", "dup"}},
	} {
		t.Run(name, func(t *testing.T) {
			opener.Kernel(t, mkfs(t, 400<<20, test.args...), test.options, 1000, slices.Clone[[]string], testtool.Program(t, "btrfs"), "check", "--check-data-csum")
		})
	}
}

func TestFar(t *testing.T) { opener.Far(t, mkfs(t, 320<<20)) }

// TestRoots has one subvolume that may be the root, then two, then one of them that says so itself.
func TestRoots(t *testing.T) {
	image := mkfs(t, 256<<20)
	change := func(script string) {
		dir, umount, ok := fsystest.Mount(t, image, "")
		if !ok {
			t.Skip("no loop devices, or not root")
		}
		run := exec.Command("bash", "-euc", script)
		run.Dir = dir
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		umount()
	}
	for _, step := range []struct {
		script, want string
		err          error
	}{
		{"btrfs subvolume create data", "", ErrNoRoot},
		{"btrfs subvolume create a; mkdir a/etc", "/a", nil},
		{"btrfs subvolume snapshot a old", "", ErrRoots},
		{"echo 'LABEL=x / btrfs subvol=old 0 0' > old/etc/fstab", "/old", nil},
		{"btrfs subvolume set-default a", "/a", nil},
	} {
		change(step.script)
		root, err := open(t, image).Root("")
		if !errors.Is(err, step.err) || err == nil && root.Path != step.want || err != nil && root != nil {
			t.Errorf("after %s: %+v, %v", step.script, root, err)
		}
	}
	if root, err := open(t, image).Root("old"); err != nil || root.Path != "/old" || root.Default {
		t.Errorf("named: %+v, %v", root, err)
	}
}
