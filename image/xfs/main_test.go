package xfs

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/fsys/fsystest"
	"github.com/sealboot/sealboot/internal/testtool"
)

func open(t testing.TB, path string) *Reader {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(file, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// make makes an empty file system; small ones need the variables by which mkfs.xfs knows its own tests.
func mkfs(t testing.TB, size int64, args ...string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	file, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"TEST_DIR", "TEST_DEV", "QA_CHECK_FS"} {
		t.Setenv(name, "1")
	}
	testtool.Output(t, testtool.Program(t, "mkfs.xfs"), append(append([]string{"-q", "-f"}, args...), image)...)
	return image
}

// ownForm are access control lists as the file system keeps them.
var ownForm = regexp.MustCompile(` "trusted.SGI_ACL_[A-Z]+" \d+ [0-9a-f]+`)

// withoutOwnForm: the kernel lists them twice.
func withoutOwnForm(list []string) []string {
	for i := range list {
		list[i] = ownForm.ReplaceAllString(list[i], "")
	}
	return list
}

// TestKernel compares what the kernel reads with what the package reads.
func TestKernel(t *testing.T) {
	for _, args := range [][]string{{"-i", "nrext64=1"}, {"-b", "size=1024", "-n", "size=8192", "-m", "rmapbt=1"}} {
		image := mkfs(t, 320<<20, args...)
		dir, umount, ok := fsystest.Mount(t, image, "")
		if !ok {
			t.Skip("no loop devices, or not root")
		}
		fsystest.Rich(t, dir, 1500, 3000)
		fsystest.Plain(t, dir, 4000)
		fsystest.Program(t, dir)
		remove := fsystest.Crash(t, dir)
		if err := open(t, image).Allocated(nil); !errors.Is(err, fsys.ErrUnclean) {
			t.Errorf("as after a crash: %v", err)
		}
		remove()
		want := fsystest.List(t, fsystest.Folder(t, dir), true)
		want = withoutOwnForm(want)
		umount()
		r := open(t, image)
		facts := r.Facts()
		used := fsystest.Overwrite(t, image, r.Allocated)
		if used > facts.Size-facts.Free+facts.Size/10 {
			t.Errorf("%d bytes count, %d are in use", used, facts.Size-facts.Free)
		}
		fsystest.Compare(t, want, fsystest.List(t, open(t, image), true))
		testtool.Output(t, testtool.Program(t, "xfs_repair"), "-n", image)
		if dir, umount, ok := fsystest.Mount(t, image, ""); ok {
			again := fsystest.List(t, fsystest.Folder(t, dir), true)
			umount()
			fsystest.Compare(t, want, withoutOwnForm(again))
		}
	}
}

// TestFar reads behind 4 GiB of a file, without what lies before.
func TestFar(t *testing.T) {
	image := mkfs(t, 320<<20)
	dir, umount, ok := fsystest.Mount(t, image, "")
	if !ok {
		t.Skip("no loop devices, or not root")
	}
	fsystest.Far(t, dir)
	umount()
	fsystest.CheckFar(t, open(t, image).Files)
}
