package image

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/internal/testtool"
)

// TestOutputFileSystems builds onto file systems of several kinds, with large writes past the page cache and without: the
// bytes are the same. Then it fills them.
func TestOutputFileSystems(t *testing.T) {
	path := fileSystemImage(t, "-b", "4096", "-O", readable)
	random := func() io.Reader { return bytes.NewReader(noise(3, 1<<20)) }
	want := map[Format][]byte{}
	for _, format := range []Format{QCOW2, Raw} {
		image, _, err := build(t, Spec{Source: path, Output: Output{Format: format}}, random())
		if err != nil {
			t.Fatal(err)
		}
		if want[format], err = os.ReadFile(image); err != nil {
			t.Fatal(err)
		}
	}
	content := want[Raw][partitionStart+16<<20:][:4096] // encrypted
	for _, kind := range []string{"ext4", "xfs", "btrfs", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := mounted(t, kind)
			for format, want := range want {
				out, err := os.Create(filepath.Join(dir, string(format)))
				if err != nil {
					t.Fatal(err)
				}
				defer out.Close()
				_, err = Build(t.Context(), Spec{Source: path, Output: Output{Format: format}}, passphrase, out, random(), nil)
				if err != nil {
					t.Fatal(err)
				}
				if kind == "ext4" || kind == "xfs" { // btrfs decides for itself
					// To read without a wait for the disk is EAGAIN where the page cache has nothing (preadv2(2)).
					if _, err := unix.Preadv2(int(out.Fd()), [][]byte{make([]byte, 4096)}, int64(bytes.Index(want, content)), unix.RWF_NOWAIT); !errors.Is(err, unix.EAGAIN) {
						t.Errorf("%s: it went through the page cache: %v", format, err)
					}
				}
				if got, err := os.ReadFile(out.Name()); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: the file holds something else than elsewhere (%v)", format, err)
				}
			}
			var free unix.Statfs_t
			if err := unix.Statfs(dir, &free); err != nil {
				t.Fatal(err)
			}
			out, err := os.Create(filepath.Join(dir, "room"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			if err := unix.Fallocate(int(out.Fd()), 0, 0, int64(free.Bavail)*free.Bsize-16<<20); err != nil {
				t.Fatal(err)
			}
			for _, format := range []Format{QCOW2, Raw} {
				out, err := os.Create(filepath.Join(dir, "full"))
				if err != nil {
					t.Fatal(err)
				}
				defer out.Close()
				if _, err := Build(t.Context(), Spec{Source: path, Output: Output{Format: format, Fill: true}}, passphrase, out, rand.Reader, nil); !errors.Is(err, unix.ENOSPC) {
					t.Errorf("%s, with 16 MiB of room: %v", format, err)
				}
			}
		})
	}
}

// mounted gives the folder of a new file system.
func mounted(t *testing.T, kind string) string {
	t.Helper()
	const size = 320 << 20 // mkfs.xfs makes none below 300 MiB
	dir, device := t.TempDir(), "tmpfs"
	options := "size=320m"
	if kind != "tmpfs" {
		file := filepath.Join(t.TempDir(), "device")
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
			t.Fatal(err)
		}
		testtool.Output(t, testtool.Program(t, "mkfs."+kind), "-q", file)
		device, options = attach(t, file), ""
	}
	if err := unix.Mount(device, dir, kind, 0, options); err != nil {
		t.Skipf("mount %s (only root may): %v", kind, err)
	}
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	return dir
}

// TestUncachedUnaligned writes what no disk takes past the page cache.
func TestUncachedUnaligned(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := openUncached(file)
	defer out.end()
	want := make([]byte, 4*pieceSize)
	write := func(p []byte, off int) {
		t.Helper()
		if n, err := out.WriteAt(p, int64(off)); n != len(p) || err != nil {
			t.Fatalf("%d bytes at %d: %d, %v", len(p), off, n, err)
		}
		copy(want[off:], p)
	}
	noise := noise(5, 4*pieceSize)
	write(noise, 0)
	write(noise[:pieceSize], 7)                         // offset
	write(noise[:2*pieceSize+1], pieceSize)             // length
	write(noise[pieceSize+1:][:2*pieceSize], pieceSize) // memory
	write(noise[:100], 3*pieceSize-50)
	if got, err := os.ReadFile(file.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file holds something else than what was written (%v)", err)
	}
}
