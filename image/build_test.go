package image

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/luks"
)

var passphrase = []byte("0123456789abcdef0123456789abcdef")

// noise gives bytes that look random and are the same each time.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	mathrand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// archive makes a small root file system with one of everything.
func archive(t testing.TB) string {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	at := time.Unix(1_700_000_000, 0)
	for _, h := range []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./etc/hostname", Typeflag: tar.TypeReg, Mode: 0o644, Size: 5},
		{Name: "./bin/ping", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 3 << 20, PAXRecords: map[string]string{"SCHILY.xattr.user.note": "kept"}},
		{Name: "./bin/ping4", Typeflag: tar.TypeLink, Linkname: "./bin/ping"},
		{Name: "./lib", Typeflag: tar.TypeSymlink, Linkname: "usr/lib", Mode: 0o777},
		{Name: "./dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Name: "./home/u/file", Typeflag: tar.TypeReg, Mode: 0o600, Uid: 1000, Gid: 1001, Size: 100_000},
	} {
		h.ModTime = at
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(noise(byte(len(h.Name)), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "root.tar")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// build builds into a new file.
func build(t testing.TB, spec Spec, random io.Reader) (string, *Result, error) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "disk.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	result, err := Build(t.Context(), spec, passphrase, out, random, nil)
	return out.Name(), result, err
}

// TestBuildFromContainer lays a kernel over a container image that has /lib in /usr, and looks for both in the disk.
func TestBuildFromContainer(t *testing.T) {
	kernel := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(kernel, "boot"), 0o755), os.MkdirAll(filepath.Join(kernel, "lib/modules/6.1"), 0o755),
		os.WriteFile(filepath.Join(kernel, "boot/vmlinuz-6.1"), []byte("kernel"), 0o644), os.WriteFile(filepath.Join(kernel, "lib/modules/6.1/modules.dep"), []byte("x"), 0o644)); err != nil {
		t.Fatal(err)
	}
	image, made, err := build(t, Spec{Source: filepath.Join("source", "testdata", "oci"), Size: 64 << 20, Kernels: []string{kernel}, Files: []File{{Path: "/boot/added", Content: []byte("added")}}}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify(t, data, passphrase, Expected{ContentDigest: &made.ContentDigest}); err != nil {
		t.Error(err)
	}
	dir := filepath.Dir(image)
	raw, partition := filepath.Join(dir, "raw"), filepath.Join(dir, "partition")
	testtool.Output(t, testtool.Program(t, "qemu-img"), "convert", "-O", "raw", image, raw)
	cut(t, raw, partition, partitionStart, made.DiskSize-2<<20)
	plain := decrypt(t, partition)
	testtool.Output(t, testtool.Program(t, "e2fsck"), "-fn", plain)
	for name, want := range map[string]string{"/etc/new": "new", "/usr/lib/modules/6.1/modules.dep": "x", "/boot/vmlinuz-6.1": "kernel", "/boot/added": "added", "/etc/old": ""} {
		if got := testtool.Output(t, testtool.Program(t, "debugfs"), "-R", "cat "+name, plain); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
}

// TestOthersReadTheDisk takes a disk apart with qemu-img, sgdisk, GRUB, cryptsetup and e2fsck.
func TestOthersReadTheDisk(t *testing.T) {
	qemuImg, sgdisk := testtool.Program(t, "qemu-img"), testtool.Program(t, "sgdisk")
	cryptsetup, e2fsck, debugfs := testtool.Program(t, "cryptsetup"), testtool.Program(t, "e2fsck"), testtool.Program(t, "debugfs")
	for _, sectorSize := range []int{512, 4096} {
		t.Run(strconv.Itoa(sectorSize), func(t *testing.T) {
			spec := Spec{Source: archive(t), Size: 128 << 20, LUKS: luks.Spec{SectorSize: sectorSize}, Label: "root",
				Files: []File{{Path: "/boot/sealboot/initramfs-1", Mode: 0o600, Content: []byte("added")}}}
			image, result, err := build(t, spec, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Dir(image)
			raw, key := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "key")
			testtool.Output(t, qemuImg, "check", "-f", "qcow2", image)
			testtool.Output(t, qemuImg, "convert", "-f", "qcow2", "-O", "raw", image, raw)
			if out := testtool.Output(t, sgdisk, "-v", raw); !bytes.Contains([]byte(out), []byte("No problems found")) {
				t.Errorf("sgdisk -v: %s", out)
			}
			grub := exec.Command(testtool.Program(t, "grub-fstest"), raw, "-C", "cat", "(crypto0)/boot/sealboot/initramfs-1")
			grub.Stdin = bytes.NewReader(append(bytes.Clone(passphrase), '\n'))
			if out, err := grub.CombinedOutput(); err != nil || !bytes.HasSuffix(out, []byte("opened\nadded")) {
				t.Errorf("GRUB reads %q, %v", out, err)
			}
			if err := os.WriteFile(key, passphrase, 0o600); err != nil {
				t.Fatal(err)
			}
			partition := filepath.Join(dir, "partition")
			cut(t, raw, partition, partitionStart, result.PayloadSize+16<<20)
			testtool.Output(t, cryptsetup, "open", "--test-passphrase", "--key-file", key, partition)
			plain := decrypt(t, partition)
			testtool.Output(t, e2fsck, "-fn", plain)
			if got := testtool.Output(t, debugfs, "-R", "cat /boot/sealboot/initramfs-1", plain); got != "added" {
				t.Errorf("the added file holds %q", got)
			}
			if got := testtool.Output(t, debugfs, "-R", "cat /etc/hostname", plain); got != string(noise(14, 5)) {
				t.Errorf("/etc/hostname holds %q", got)
			}
		})
	}
}

// cut copies a part of a file.
func cut(t *testing.T, from, to string, off, n int64) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(in, off, n)); err != nil {
		t.Fatal(err)
	}
}

// decrypt writes the payload of a partition to a file.
func decrypt(t *testing.T, partition string) string {
	t.Helper()
	f, err := os.Open(partition)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	header, err := luks.Read(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := header.Unlock(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	segment := header.Segment()
	cipher, err := luks.NewCipher(key, segment.SectorSize, segment.IVTweak)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, segment.DataSize(info.Size()))
	if _, err := f.ReadAt(data, segment.Offset); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if err := cipher.Decrypt(data, data, 0); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return plain
}
