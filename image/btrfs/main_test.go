package btrfs

import (
	"errors"
	"os"
	"path/filepath"
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

func mkfs(t testing.TB, size int64, args ...string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "mkfs.btrfs"), append(append([]string{"-q", "-f"}, args...), image)...)
	return image
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
			image := mkfs(t, 400<<20, test.args...)
			dir, umount, ok := fsystest.Mount(t, image, test.options)
			if !ok {
				t.Skip("no loop devices, or not root")
			}
			fsystest.Rich(t, dir, 1500, 3000)
			fsystest.Plain(t, dir, 1000)
			fsystest.Program(t, dir)
			remove := fsystest.Crash(t, dir)
			if err := open(t, image).Allocated(nil); !errors.Is(err, fsys.ErrUnclean) {
				t.Errorf("as after a crash: %v", err)
			}
			remove()
			want := fsystest.List(t, fsystest.Folder(t, dir), true)
			umount()
			r := open(t, image)
			facts := r.Facts()
			used := fsystest.Overwrite(t, image, r.Allocated)
			if used > facts.Size-facts.Free+facts.Size/10 {
				t.Errorf("%d bytes count, %d are in use", used, facts.Size-facts.Free)
			}
			fsystest.Compare(t, want, fsystest.List(t, open(t, image), true))
			testtool.Output(t, testtool.Program(t, "btrfs"), "check", "--check-data-csum", image)
			if dir, _, ok := fsystest.Mount(t, image, "ro"); ok {
				fsystest.Compare(t, want, fsystest.List(t, fsystest.Folder(t, dir), true))
			}
		})
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
