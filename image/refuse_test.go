package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"math"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/luks"
)

func TestValidate(t *testing.T) {
	good := Spec{Source: "x", Size: 64 << 20}
	if err := good.Validate(); err != nil {
		t.Fatalf("the good spec: %v", err)
	}
	for name, spoil := range map[string]func(*Spec){
		"no source":       func(s *Spec) { s.Source = "" },
		"negative size":   func(s *Spec) { s.Size = -512 },
		"odd size":        func(s *Spec) { s.Size++ },
		"tiny":            func(s *Spec) { s.Size = 18 << 20 },
		"sector size":     func(s *Spec) { s.LUKS.SectorSize = 1024 },
		"data offset odd": func(s *Spec) { s.LUKS.DataOffset = 16<<20 + 4096 },
		"UUID":            func(s *Spec) { s.LUKS.UUID = "x" },
	} {
		s := good
		if spoil(&s); s.Validate() == nil {
			t.Errorf("%s: passed", name)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	path := archive(t)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spec Spec
		want error
	}{
		"no source":      {Spec{Source: "/does/not/exist", Size: 64 << 20}, fs.ErrNotExist},
		"unknown source": {Spec{Source: text, Size: 64 << 20}, source.ErrUnknown},
		"no size":        {Spec{Source: path}, ErrSource},
		"bad file path":  {Spec{Source: path, Size: 64 << 20, Files: []File{{Path: "boot"}}}, source.ErrPath},
	} {
		if _, result, err := build(t, c.spec, rand.Reader); !errors.Is(err, c.want) || result != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for _, source := range []string{path, large(t)} { // below the smallest file system, and below what the tree takes
		var size *SizeError
		if _, _, err := build(t, Spec{Source: source, Size: 20 << 20}, rand.Reader); !errors.As(err, &size) || size.Needed <= 20<<20 {
			t.Fatalf("too small: %v", err)
		}
		needed := size.Needed
		if _, _, err := build(t, Spec{Source: source, Size: needed}, rand.Reader); err != nil {
			t.Errorf("a disk of the size that is needed (%d): %v", needed, err)
		}
		if _, _, err := build(t, Spec{Source: source, Size: needed - mib}, rand.Reader); !errors.As(err, &size) || size.Needed != needed {
			t.Errorf("a disk 1 MiB smaller than needed: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := Build(ctx, Spec{Source: path, Size: 64 << 20}, passphrase, out, rand.Reader, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := out.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), Spec{Source: path, Size: 64 << 20}, passphrase, out, rand.Reader, nil); err == nil {
		t.Error("wrote into a file that is not empty")
	}
	if _, _, err := build(t, Spec{Source: path, Size: 64 << 20}, bytes.NewReader(make([]byte, 100))); err == nil {
		t.Error("built with too few random bytes")
	}
}

// large makes a folder with 24 MiB in it.
func large(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), noise(1, 24<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDiskFull builds onto a file system of 2 MiB.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mount (only root may): %v; the command's script tests a size limit", err)
	}
	defer unix.Unmount(dir, 0)
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := Build(t.Context(), Spec{Source: archive(t), Size: 64 << 20}, passphrase, out, rand.Reader, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	for _, output := range []Output{{Preallocation: PreallocationFalloc}, {Format: Raw, Preallocation: PreallocationFull}, {Fill: true}} {
		if err := out.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := Build(t.Context(), Spec{Source: archive(t), Size: 64 << 20, Output: output}, passphrase, out, rand.Reader, nil); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%+v: %v", output, err)
		}
	}
}

// TestSourceChanges writes to a file system image, and makes it shorter, while it is read.
func TestSourceChanges(t *testing.T) {
	for name, change := range map[string]func(string) error{
		"written to": func(path string) error { return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)) },
		"shorter":    func(path string) error { return os.Truncate(path, 1<<20) },
	} {
		path := fileSystemImage(t, "-b", "4096", "-O", readable)
		out, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		done := false
		report := func(int64, int64) {
			if !done {
				done = true
				if err := change(path); err != nil {
					t.Error(err)
				}
			}
		}
		if r, err := Build(t.Context(), Spec{Source: path}, passphrase, out, rand.Reader, report); !errors.Is(err, source.ErrChanged) || r != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSameInputSameDisk: random bytes and source decide all bytes, the UUID and source the content.
func TestSameInputSameDisk(t *testing.T) {
	path := archive(t)
	spec := Spec{Source: path, Size: 64 << 20, LUKS: luks.Spec{UUID: "11111111-2222-4333-8444-555555555555"}}
	var files [][]byte
	var digests []Digest
	for i, seed := range []byte{1, 1, 2} {
		s := spec
		s.Workers = i + 1
		image, result, err := build(t, s, mathrand.NewChaCha8([32]byte{seed}))
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		files, digests = append(files, data), append(digests, result.ContentDigest)
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("the same random bytes made another disk")
	}
	if bytes.Equal(files[0], files[2]) || len(files[0]) != len(files[2]) {
		t.Error("other random bytes made the same disk, or one of another size")
	}
	if digests[0] != digests[2] {
		t.Error("another key made other content")
	}
	spec.Time = time.Unix(1_800_000_000, 0)
	if _, result, err := build(t, spec, rand.Reader); err != nil || result.ContentDigest == digests[0] {
		t.Errorf("another time made the same content (%v)", err)
	}
}

// TestCiphertextLooksRandom: no plaintext, no repetition reaches the disk.
func TestCiphertextLooksRandom(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), bytes.Repeat([]byte("0123456789abcdef"), 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	image, _, err := build(t, Spec{Source: dir, Size: 64 << 20}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("0123456789abcdef")) {
		t.Error("plaintext is in the image")
	}
	blocks := map[string]bool{}
	for at := 20 * mib / 10; at+16 <= len(data); at += 16 {
		if b := data[at : at+16]; !allZero(b) && blocks[string(b)] && at < len(data)-1<<20 {
			t.Fatalf("a block of ciphertext comes twice, at %d", at)
		} else {
			blocks[string(b)] = true
		}
	}
	if len(blocks) < 1000 || math.MaxInt < len(blocks) {
		t.Errorf("only %d blocks were looked at", len(blocks))
	}
}
