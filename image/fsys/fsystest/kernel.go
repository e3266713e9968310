package fsystest

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sealboot/sealboot/image/fsys"
)

// Opener opens file systems of a kind.
type Opener[R Reader] func(r io.ReaderAt, size int64) (R, error)

// Open opens an image file.
func (open Opener[R]) Open(t testing.TB, path string) R {
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
	r, err := open(file, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Mkfs has a program make a file system in a file of so many bytes.
func Mkfs(t testing.TB, program string, size int64, args ...string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		t.Fatal(err)
	}
	run(t, program, append(append([]string{"-q", "-f"}, args...), image)...)
	return image
}

func run(t testing.TB, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
}

// Kernel fills a new file system in a mount, and compares what the kernel reads with what Open does: as it is, and with noise wherever
// nothing counts, which check, the file system's own tool, must be content with too. What does not compare, clean takes out of a list.
func (open Opener[R]) Kernel(t *testing.T, image, options string, many int, clean func([]string) []string, check ...string) {
	t.Helper()
	dir, umount, ok := Mount(t, image, options)
	if !ok {
		t.Skip("no loop devices, or not root")
	}
	Rich(t, dir, 1500, 3000)
	Plain(t, dir, many)
	Program(t, dir)
	remove := Crash(t, dir)
	if err := open.Open(t, image).Allocated(nil); !errors.Is(err, fsys.ErrUnclean) {
		t.Errorf("as after a crash: %v", err)
	}
	remove()
	want := clean(List(t, Folder(t, dir), true))
	umount()
	r := open.Open(t, image)
	facts := r.Facts()
	used := Overwrite(t, image, r.Allocated)
	if used > facts.Size-facts.Free+facts.Size/10 {
		t.Errorf("%d bytes count, %d are in use", used, facts.Size-facts.Free)
	}
	Compare(t, want, List(t, open.Open(t, image), true))
	run(t, check[0], append(check[1:], image)...)
	if dir, umount, ok := Mount(t, image, "ro"); ok {
		again := List(t, Folder(t, dir), true)
		umount()
		Compare(t, want, clean(again))
	}
}

// far is where Far writes in its file.
const far = 6<<30 + 5

// Far reads behind 4 GiB of a file, without what lies before.
func (open Opener[R]) Far(t *testing.T, image string) {
	t.Helper()
	dir, umount, ok := Mount(t, image, "")
	if !ok {
		t.Skip("no loop devices, or not root")
	}
	file, err := os.Create(dir + "/far")
	if err == nil {
		_, err = file.WriteAt([]byte("far away"), far)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	umount()
	n, err := open.Open(t, image).Node("/far")
	if err != nil {
		t.Fatal(err)
	}
	content, err := n.Open()
	if err != nil {
		t.Fatal(err)
	}
	found := ""
	err = content.Runs(func(off int64, data io.Reader) error {
		b, err := io.ReadAll(data)
		if off <= far && off+int64(len(b)) == content.Size {
			found = string(b[far-off:])
		}
		return err
	})
	if err != nil || found != "far away" || content.Stored() > 1<<20 {
		t.Errorf("far away is %q, %d bytes stored, %v", found, content.Stored(), err)
	}
}
