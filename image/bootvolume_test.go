package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/fsys/fsystest"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/protofile"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/luks"
	"github.com/sealboot/sealboot/luks/layout"
)

// bootFiles are of a root's.
var bootFiles = map[string]string{
	"etc/fstab": "UUID=x / xfs defaults 0 0\n", "boot/vmlinuz-6.1": "kernel", "boot/grub/grub.cfg": "menu", "boot/sealboot/install/etc/old": "of another disk",
	"usr/lib/os-release": "ID=test\n", "large": string(noise(7, 3*mib)),
}

// xfsOf makes an XFS image of so many MiB.
func xfsOf(t testing.TB, size int64, files map[string]string, options ...string) string {
	t.Helper()
	dir := t.TempDir()
	root, image, proto := filepath.Join(dir, "root"), filepath.Join(dir, "xfs"), filepath.Join(dir, "proto")
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	var text bytes.Buffer
	if err := errors.Join(protofile.Write(&text, root), os.WriteFile(proto, text.Bytes(), 0o600), os.WriteFile(image, nil, 0o600), os.Truncate(image, size*mib)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"TEST_DIR", "TEST_DEV", "QA_CHECK_FS"} { // by which mkfs.xfs knows its own tests, which have small ones
		t.Setenv(name, "1")
	}
	testtool.Output(t, testtool.Program(t, "mkfs.xfs"), append(append([]string{"-q", "-f", "-p", proto}, options...), image)...)
	return image
}

// btrfsSeed unpacks a test image of package btrfs: the system is in a subvolume, and has no /boot.
func btrfsSeed(t testing.TB, name string) string {
	t.Helper()
	m, err := fsystest.Load("btrfs/testdata/" + name + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	return m.Unpack(t)
}

// payloadOf opens a disk's decrypted payload.
func payloadOf(t testing.TB, image string) *plain {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	_, cipher, err := d.unlock(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	base, size := d.payload()
	return &plain{disk: d.image, base: base, size: size, cipher: cipher}
}

// bootSizeOf gives where the root begins, by what the agent goes by.
func bootSizeOf(t testing.TB, p *plain) int64 {
	t.Helper()
	head := make([]byte, layout.Head)
	if _, err := p.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	size, err := layout.BootSize(head, p.size)
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// saved writes a part of a payload to a file.
func saved(t testing.TB, p *plain, off, n int64) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "part"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, io.NewSectionReader(p, off, n)); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func TestBootVolume(t *testing.T) {
	path := xfsOf(t, 32, bootFiles)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	spec := Spec{Source: path, BootSize: 64 * mib, LUKS: luks.Spec{UUID: "b7ad4f6f-9b0c-4e77-8ba3-95c4b1b80b5b"}, Files: []File{
		{Path: "/boot/sealboot/initramfs-6.1", Mode: 0o600, Content: []byte("ours")}, {Path: "/etc/fstab", Mode: 0o644, Content: []byte("new")},
	}}
	image, made, err := build(t, spec, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, again, err := build(t, spec, mathrand.NewChaCha8([32]byte{1})); err != nil || again.ContentDigest != made.ContentDigest {
		t.Errorf("built again with another key: %v, %v, %v", made, again, err)
	}
	p := payloadOf(t, image)
	if p.cipher.SectorSize() != 512 { // what mkfs.xfs takes for a file
		t.Errorf("sectors of %d bytes", p.cipher.SectorSize())
	}
	at := bootSizeOf(t, p)
	if at != 64*mib || p.size != 96*mib {
		t.Fatalf("the root begins at %d of %d", at, p.size)
	}
	boot := saved(t, p, 0, at)
	testtool.Output(t, testtool.Program(t, "e2fsck"), "-fn", boot)
	debugfs := testtool.Program(t, "debugfs")
	for name, want := range map[string]string{
		"/vmlinuz-6.1": "kernel", "/boot/vmlinuz-6.1": "kernel", "/grub/grub.cfg": "menu", "/sealboot/initramfs-6.1": "ours",
		"/sealboot/install/etc/fstab": "new", "/sealboot/install/etc/old": "", "/sealboot/install/usr/lib/os-release": "",
	} {
		if got := testtool.Output(t, debugfs, "-R", "cat "+name, boot); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	if got := testtool.Output(t, testtool.Program(t, "grub-fstest"), boot, "cat", "(loop0)/boot/vmlinuz-6.1"); got != "kernel" {
		t.Errorf("GRUB reads %q through the link", got)
	}
	root := saved(t, p, at, 32*mib)
	testtool.Output(t, testtool.Program(t, "xfs_repair"), "-n", root)
	after, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	compareAllocated(t, path, before, after)
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, before) {
		t.Error("the source was changed")
	}
}

// compareAllocated holds what counts in a copy against the original.
func compareAllocated(t testing.TB, path string, before, after []byte) {
	t.Helper()
	f, err := openForeign(bytes.NewReader(before), int64(len(before)))
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	if err := f.Allocated(func(off, n int64) error {
		total += n
		if !bytes.Equal(before[off:off+n], after[off:off+n]) {
			t.Errorf("%s: %d bytes at %d differ", path, n, off)
		}
		return nil
	}); err != nil || total == 0 {
		t.Errorf("%d bytes compared, %v", total, err)
	}
}

// TestBootVolumeOfBtrfs has a larger disk, all of it written, and a root without /boot.
func TestBootVolumeOfBtrfs(t *testing.T) {
	path := btrfsSeed(t, "plain")
	if _, _, err := build(t, Spec{Source: path, BootSize: 64 * mib, RootSubvolume: "@none"}, rand.Reader); err == nil {
		t.Error("a subvolume that is not there")
	}
	kernel := filepath.Join(t.TempDir(), "kernel")
	for name, content := range map[string]string{"boot/vmlinuz-6.2": "kernel", "lib/modules/6.2/modules.dep": "x"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(kernel, name)), 0o755), os.WriteFile(filepath.Join(kernel, name), []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	const size = 512 * mib
	image, made, err := build(t, Spec{Source: path, BootSize: 128 * mib, Size: size, Kernels: []string{kernel}, Output: Output{Fill: true}}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if made.DiskSize != size || made.Written != made.PayloadSize {
		t.Errorf("made %+v", made)
	}
	p := payloadOf(t, image)
	at := bootSizeOf(t, p)
	if at != 128*mib || p.cipher.SectorSize() != 4096 {
		t.Errorf("the root begins at %d, sectors of %d", at, p.cipher.SectorSize())
	}
	boot := saved(t, p, 0, at)
	testtool.Output(t, testtool.Program(t, "e2fsck"), "-fn", boot)
	debugfs := testtool.Program(t, "debugfs")
	for name, want := range map[string]string{"/boot/vmlinuz-6.2": "kernel", "/sealboot/install/lib/modules/6.2/modules.dep": "x"} {
		if got := testtool.Output(t, debugfs, "-R", "cat "+name, boot); got != want {
			t.Errorf("%s holds %q", name, got)
		}
	}
	if got := testtool.Output(t, debugfs, "-R", "ls -p /sealboot/install", boot); !strings.Contains(got, "/boot/") {
		t.Errorf("no folder to mount the boot volume at: %s", got)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	root := saved(t, p, at, int64(len(before)))
	testtool.Output(t, testtool.Program(t, "btrfs"), "check", "--check-data-csum", root)
	after, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	compareAllocated(t, path, before, after)
}

func TestBootVolumeRefused(t *testing.T) {
	path := xfsOf(t, 32, bootFiles)
	good := Spec{Source: path, BootSize: 64 * mib}
	if _, _, err := build(t, good, rand.Reader); err != nil {
		t.Fatal(err)
	}
	small, large := good, good
	small.Size, large.BootSize = 112*mib, 0
	size := new(*SizeError)
	if _, _, err := build(t, small, rand.Reader); !errors.As(err, size) || (*size).Needed != (64+32+18)*mib {
		t.Errorf("a disk that is too small: %v", err)
	}
	if _, made, err := build(t, large, rand.Reader); err != nil || made.PayloadSize != (1024+32)*mib || made.FileSize > 32*mib {
		t.Errorf("as large as it is where nothing is said: %+v, %v", made, err)
	}
	full := good
	full.Files = []File{{Path: "/boot/large", Content: make([]byte, 100*mib)}}
	for i := range full.Files[0].Content {
		full.Files[0].Content[i] = 1
	}
	if _, _, err := build(t, full, rand.Reader); !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), "it takes 128") {
		t.Errorf("a boot volume that is too small: %v", err)
	}
	for name, change := range map[string]func(*Spec){
		"a size that is no multiple": func(s *Spec) { s.BootSize = 65 * mib },
		"of ext4":                    func(s *Spec) { s.Source = fileSystemImage(t, "-O", readable) },
		"ext4 that looks like one":   func(s *Spec) { s.Source, s.BootSize = fileSystemImage(t, "-O", readable, "-L", layout.Label), 0 },
		"a tree that looks like one": func(s *Spec) { s.Source, s.BootSize, s.Size, s.Label = archive(t), 0, 64*mib, layout.Label },
		"owners":                     func(s *Spec) { s.AllRoot = true },
		"a label":                    func(s *Spec) { s.Label = "x" },
		"subvolumes of XFS":          func(s *Spec) { s.RootSubvolume = "@" },
	} {
		spec := good
		change(&spec)
		if _, made, err := build(t, spec, rand.Reader); made != nil || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(data)
	copy(damaged[bytes.Index(damaged, []byte("os-release"))-3:], "\x00\x00\x00") // a folder's name
	bad := filepath.Join(t.TempDir(), "damaged")
	if err := os.WriteFile(bad, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	format, spec := new(*fsys.FormatError), good
	spec.Source = bad
	if _, made, err := build(t, spec, rand.Reader); made != nil || !errors.As(err, format) {
		t.Errorf("a damaged root: %v", err)
	}
	be := binary.BigEndian
	block, agLog := be.Uint64(data[48:]), data[124] // sb_logstart, sb_agblklog
	at := (block>>agLog*uint64(be.Uint32(data[84:])) + block&(1<<agLog-1)) * uint64(be.Uint32(data[4:]))
	clear(data[at:][:uint64(be.Uint32(data[96:]))*uint64(be.Uint32(data[4:]))])
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, made, err := build(t, good, rand.Reader); made != nil || !errors.Is(err, fsys.ErrUnclean) || !strings.Contains(err.Error(), "mount it once") {
		t.Errorf("a log to be replayed: %v", err)
	}
}

// TestOpenTreeOfBtrfs looks for the system in the root's subvolume.
func TestOpenTreeOfBtrfs(t *testing.T) {
	spec := Spec{Source: btrfsSeed(t, "lzo")}
	system, err := FindSystem(spec)
	if err != nil || system.KernelWords() != "rootfstype=btrfs rootflags=subvol=@" {
		t.Fatalf("%+v, %v", system, err)
	}
	tree, done, err := OpenTree(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	found := false
	err = tree.Walk(context.Background(), func(e source.Entry, _ io.Reader) error {
		found = found || e.Path == "/etc/fstab"
		return nil
	})
	if err != nil || !found {
		t.Errorf("found /etc/fstab: %v, %v", found, err)
	}
}

// TestBootInSubvolume has /boot in a subvolume of its own.
func TestBootInSubvolume(t *testing.T) {
	image := fsystest.Mkfs(t, testtool.Program(t, "mkfs.btrfs"), 256*mib, "-L", "pool")
	dir, umount, ok := fsystest.Mount(t, image, "")
	if !ok {
		t.Skip("no loop devices, or not root")
	}
	run := exec.Command("bash", "-euc", `
btrfs subvolume create @; btrfs subvolume create @boot; echo kernel > @boot/vmlinuz-6.1; mkdir @/etc @/usr @/boot; echo hidden > @/boot/hidden
printf 'LABEL=pool / btrfs subvol=@ 0 0\nLABEL=pool /boot btrfs subvol=@boot 0 0\n' > @/etc/fstab
`)
	run.Dir = dir
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	umount()
	disk, made := withVolumes(t, image)
	if made.KernelWords != "rootfstype=btrfs rootflags=subvol=@" {
		t.Errorf("words %q", made.KernelWords)
	}
	f, err := files(t, disk, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.ReadFile("/boot/vmlinuz-6.1", 100); err != nil || string(got) != "kernel\n" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := f.ReadFile("/boot/hidden", 100); !errors.Is(err, fsys.ErrNotFound) {
		t.Errorf("what the mount hides: %v", err)
	}
}
