package image

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/disk"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

// extOf makes an ext4 image of so many MiB from files.
func extOf(t testing.TB, size int, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	root, image := filepath.Join(dir, "root"), filepath.Join(dir, "ext4")
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	testtool.Output(t, testtool.Program(t, "mke2fs"), "-q", "-t", "ext4", "-O", readable, "-d", root, image, fmt.Sprintf("%dM", size))
	return image
}

// installed makes a disk as installers do: an EFI system partition, a /boot and a root, whose fstab mounts them.
func installed(t testing.TB, table string) string {
	t.Helper()
	esp := filepath.Join(t.TempDir(), "esp")
	if err := os.WriteFile(esp, make([]byte, 4*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "mkfs.vfat"), "-n", "EFI", esp)
	testtool.Output(t, testtool.Program(t, "mmd"), "-i", esp, "::EFI")
	boot := extOf(t, 16, map[string]string{"vmlinuz-6.1": string(noise(9, 2*mib)), "grub/grub.cfg": "boot"})
	root := extOf(t, 32, map[string]string{"etc/fstab": table, "boot/hidden/deep": "old", "usr/lib/os-release": "ID=test\n"})
	path := filepath.Join(t.TempDir(), "disk.raw")
	data := make([]byte, mib)
	script := "label: gpt\n"
	for i, image := range []string{esp, boot, root} {
		part, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		script += fmt.Sprintf("start=%d, size=%d, type=%s\n", len(data)/512, len(part)/512, []string{"U", "L", RootType.String()}[i])
		data = append(data, part...)
	}
	if err := os.WriteFile(path, append(data, make([]byte, mib)...), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testtool.Program(t, "sfdisk"), "-q", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	return path
}

func TestFoldsPartitions(t *testing.T) {
	path := installed(t, "/dev/vda3 / ext4 defaults 0 1\n/dev/vda2 /boot ext4 defaults 0 2\nLABEL=EFI /boot/efi vfat umask=0077 0 1\n")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	image, made, err := build(t, Spec{Source: path, Files: []File{{Path: "/boot/sealboot/initramfs-6.1", Mode: 0o600, Content: []byte("added")}}}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Error("the source was changed")
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(image), ".sealboot-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
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
	debugfs := testtool.Program(t, "debugfs")
	for name, want := range map[string]string{
		"/boot/vmlinuz-6.1": string(noise(9, 2*mib)), "/boot/grub/grub.cfg": "boot", "/boot/sealboot/initramfs-6.1": "added", "/usr/lib/os-release": "ID=test\n", "/boot/hidden/deep": "",
		"/etc/fstab": "/dev/vda3 / ext4 defaults 0 1\n# now in the root: /dev/vda2 /boot ext4 defaults 0 2\n# now in the root: LABEL=EFI /boot/efi vfat umask=0077 0 1\n",
	} {
		if got := testtool.Output(t, debugfs, "-R", "cat "+name, plain); got != want {
			t.Errorf("%s holds %d bytes, want %d: %.80q", name, len(got), len(want), got)
		}
	}
	if got := testtool.Output(t, debugfs, "-R", "ls -p /boot/efi", plain); !strings.Contains(got, "/EFI/") {
		t.Errorf("/boot/efi: %s", got)
	}
}

// TestOpenTree sees the root as the running system does.
func TestOpenTree(t *testing.T) {
	tree, done, err := OpenTree(Spec{Source: installed(t, "/dev/vda2 /boot ext4 defaults 0 2\n")})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	sizes := map[string]int64{}
	if err := tree.Walk(t.Context(), func(e source.Entry, _ io.Reader) error { sizes[e.Path] = e.Size; return nil }); err != nil {
		t.Fatal(err)
	}
	_, hidden := sizes["/boot/hidden"]
	_, esp := sizes["/boot/efi/EFI"]
	if sizes["/boot/vmlinuz-6.1"] != 2*mib || sizes["/usr/lib/os-release"] == 0 || hidden || !esp {
		t.Errorf("got %v", sizes)
	}
	if tree, _, err := OpenTree(Spec{Source: filepath.Join(t.TempDir(), "none")}); tree != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, %v", tree, err)
	}
	for name, path := range map[string]string{"archive": archive(t), "bare": fileSystemImage(t, "-O", readable)} {
		tree, done, err := OpenTree(Spec{Source: path})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := errors.Join(tree.Walk(t.Context(), func(source.Entry, io.Reader) error { return nil }), done()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRepairsAreTold adds a file to a file system with a feature that GRUB cannot read and no file uses.
func TestRepairsAreTold(t *testing.T) {
	_, made, err := build(t, Spec{Source: fileSystemImage(t, "-O", "inline_data"), Files: []File{{Path: "/x"}}}, rand.Reader)
	if err != nil || !slices.Contains(made.Repairs.TurnedOff, "inline_data") {
		t.Errorf("made %+v, %v", made, err)
	}
}

func TestFoldRefused(t *testing.T) {
	if _, made, err := build(t, Spec{Source: installed(t, "UUID=1234 /boot ext4 defaults 0 2\n")}, rand.Reader); made != nil || !errors.Is(err, disk.ErrMount) {
		t.Errorf("a /boot that is elsewhere: %v", err)
	}
}
