package disk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/image/btrfs"
	"github.com/sealboot/sealboot/image/fsys/fsystest"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

const mib = 1 << 20

// part is a partition of a test's disk: a line of sfdisk's, without its size, and a file of content.
type part struct{ script, content string }

// made makes a raw disk. Each partition is as large as its content.
func made(t testing.TB, label string, parts ...part) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	script := "label: " + label + "\n"
	at := int64(mib)
	disk, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	for _, p := range parts {
		size := int64(mib)
		if p.content != "" {
			content, err := os.ReadFile(p.content)
			if err != nil {
				t.Fatal(err)
			}
			size = int64(len(content)+mib-1) / mib * mib
			for off := 0; off < len(content); off += 4096 { // holes stay holes
				if piece := content[off:min(off+4096, len(content))]; !bytes.Equal(piece, make([]byte, len(piece))) {
					if _, err := disk.WriteAt(piece, at+int64(off)); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		script += "start=" + itoa(at/512) + ", size=" + itoa(size/512) + ", " + p.script + "\n"
		at += size
	}
	if err := disk.Truncate(at + mib); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testtool.Program(t, "sfdisk"), "-q", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s\n%s", err, out, script)
	}
	return path
}

func itoa(n int64) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

// ext makes an ext4 file system with files in it.
func ext(t testing.TB, label string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	root, image := filepath.Join(dir, "root"), filepath.Join(dir, "ext4")
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "mke2fs"), "-q", "-t", "ext4", "-L", label, "-d", root, image, "8M")
	return image
}

// uuidOf gives the identifier that blkid sees.
func uuidOf(t testing.TB, image string) string {
	t.Helper()
	return strings.TrimSpace(testtool.Output(t, testtool.Program(t, "blkid"), "-p", "-s", "UUID", "-o", "value", image))
}

func vfat(t testing.TB, label string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "fat")
	if err := os.WriteFile(image, make([]byte, 2*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "mkfs.vfat"), "-n", label, image)
	return image
}

// fake makes a volume that has nothing but a magic number.
func fake(t testing.TB, magic string, at int64) string {
	t.Helper()
	b := make([]byte, mib)
	copy(b[at:], magic)
	image := filepath.Join(t.TempDir(), "fake")
	if err := os.WriteFile(image, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return image
}

// seed unpacks a test image of another package's.
func seed(t testing.TB, name string) string {
	t.Helper()
	m, err := fsystest.Load("../" + name)
	if err != nil {
		t.Fatal(err)
	}
	return m.Unpack(t)
}

// TestForeignRoots finds systems in Btrfs and XFS, in which GRUB finds nothing, and what the kernel has to be told about them.
func TestForeignRoots(t *testing.T) {
	byDefault, byTable, xfs := seed(t, "btrfs/testdata/plain.gz"), seed(t, "btrfs/testdata/lzo.gz"), seed(t, "xfs/testdata/kernel.gz")
	for name, c := range map[string]struct{ path, subvolume, root, words string }{
		"default":  {byDefault, "", "/@", "rootfstype=btrfs"},
		"by fstab": {byTable, "", "/@", "rootfstype=btrfs rootflags=subvol=@"},
		"named":    {byTable, "snapshot", "/snapshot", "rootfstype=btrfs rootflags=subvol=snapshot"},
		"inner":    {byTable, "/@/inner", "/@/inner", "rootfstype=btrfs rootflags=subvol=@/inner"},
		"XFS":      {xfs, "", "", "rootfstype=xfs"},
		"ext4":     {ext(t, "", rootFiles), "", "", ""},
	} {
		d, err := Open(c.path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		s, err := d.System(0, c.subvolume)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		at := ""
		if s.Subvolume != nil {
			at = s.Subvolume.Path
		}
		if got := s.KernelWords(); got != c.words || at != c.root || s.BootVolume() != (c.words != "") {
			t.Errorf("%s: root %s, words %q", name, at, got)
		}
		tree, err := s.Tree(d)
		if err != nil {
			t.Fatal(err)
		}
		if names, err := tree.ReadDir("/"); err != nil || len(names) == 0 {
			t.Errorf("%s: %v, %v", name, names, err)
		}
	}
	for name, c := range map[string]struct{ path, subvolume string }{"no such": {byTable, "@home"}, "of XFS": {xfs, "@"}} {
		d, err := Open(c.path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if s, err := d.System(0, c.subvolume); s != nil || !errors.Is(err, ErrNoRoot) {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	s := System{Root: Volume{FileSystem: Btrfs}, Subvolume: &btrfs.Root{Subvolume: btrfs.Subvolume{Number: 259, Path: "/my root"}}}
	if got := s.KernelWords(); got != "rootfstype=btrfs rootflags=subvolid=259" {
		t.Errorf("a path with a space: %q", got)
	}
}

var rootFiles = map[string]string{"etc/hostname": "web", "usr/bin/sh": "#!"}

func with(files map[string]string, name, content string) map[string]string {
	more := map[string]string{name: content}
	for k, v := range files {
		more[k] = v
	}
	return more
}

const (
	rootGPT = "type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
	bootGPT = "type=bc13c2ff-59e6-4262-a352-b275fd6f7172"
	espGPT  = "type=U"
	linux   = "type=L"
)

func system(t testing.TB, path string, number int) (*Disk, *System, error) {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	s, err := d.System(number, "")
	return d, s, err
}

func TestFindsTheSystem(t *testing.T) {
	root, other, boot, esp := ext(t, "", rootFiles), ext(t, "data", map[string]string{"a": "b"}), ext(t, "", map[string]string{"vmlinuz-6.1": "kernel"}), vfat(t, "EFI")
	withTab := func(tab string) string { return ext(t, "", with(rootFiles, "etc/fstab", tab)) }
	xfs, beside := fake(t, "XFSB", 0), seed(t, "btrfs/testdata/lzo.gz")
	for name, c := range map[string]struct {
		path   string
		number int
		want   string // numbers and paths
	}{
		"bare":             {root, 0, "0"},
		"by type":          {made(t, "gpt", part{linux, root}, part{rootGPT, root}), 0, "2"},
		"by label":         {made(t, "gpt", part{linux, root}, part{linux, ext(t, "cloudimg-rootfs", rootFiles)}), 0, "2"},
		"by name":          {made(t, "gpt", part{linux + ", name=root", root}, part{linux, root}), 0, "1"},
		"by content":       {made(t, "gpt", part{linux, other}, part{linux, root}), 0, "2"},
		"by number":        {made(t, "gpt", part{linux, root}, part{linux, root}), 2, "2"},
		"xfs alone":        {made(t, "gpt", part{espGPT, esp}, part{linux, xfs}), 0, "2 1:/boot/efi"},
		"btrfs beside":     {made(t, "gpt", part{linux, other}, part{linux, beside}), 0, "2"},
		"xfs, boot":        {made(t, "gpt", part{linux, ext(t, "boot", nil)}, part{rootGPT, xfs}), 0, "2 1:/boot"},
		"boot and ESP":     {made(t, "gpt", part{espGPT, esp}, part{bootGPT, boot}, part{rootGPT, root}), 0, "3 2:/boot 1:/boot/efi"},
		"MBR":              {made(t, "dos", part{"type=ef", esp}, part{"type=83", root}), 0, "2 1:/boot/efi"},
		"fstab by label":   {made(t, "gpt", part{espGPT, esp}, part{linux, withTab("LABEL=EFI /efi vfat defaults 0 0\n# LABEL=x /boot\n")}), 0, "2 1:/efi"},
		"fstab by UUID":    {made(t, "gpt", part{linux, boot}, part{linux, withTab("UUID=" + uuidOf(t, boot) + " /boot ext4")}), 0, "2 1:/boot"},
		"fstab by by-uuid": {made(t, "gpt", part{linux, boot}, part{linux, withTab("/dev/disk/by-uuid/" + uuidOf(t, boot) + "\t/boot/ ext4")}), 0, "2 1:/boot"},
		"fstab by device":  {made(t, "dos", part{"type=83", withTab("/dev/vda2 /boot ext4\n")}, part{"type=83", other}), 1, "1 2:/boot"},
		"fstab by name":    {made(t, "gpt", part{linux + ", name=\"my boot\"", other}, part{rootGPT, withTab("PARTLABEL=my\\040boot /boot ext4")}), 0, "2 1:/boot"},
		"fstab over type":  {made(t, "gpt", part{bootGPT, other}, part{linux, boot}, part{rootGPT, withTab("UUID=" + uuidOf(t, boot) + " /boot ext4")}), 0, "3 2:/boot"},
	} {
		t.Run(name, func(t *testing.T) {
			_, s, err := system(t, c.path, c.number)
			if err != nil {
				t.Fatal(err)
			}
			got := itoa(int64(s.Root.Number))
			for _, m := range s.Mounts {
				got += " " + itoa(int64(m.Number)) + ":" + m.Path
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestRefusesToGuess(t *testing.T) {
	root, esp := ext(t, "", rootFiles), vfat(t, "EFI")
	for name, c := range map[string]struct {
		path   string
		number int
		want   error // nil: an *AmbiguousError
	}{
		"two roots":     {made(t, "gpt", part{linux, root}, part{linux, root}), 0, nil},
		"root and xfs":  {made(t, "gpt", part{linux, root}, part{linux, fake(t, "XFSB", 0)}), 0, nil},
		"two ESPs":      {made(t, "gpt", part{espGPT, esp}, part{espGPT, esp}, part{linux, root}), 0, nil},
		"one UUID":      {made(t, "gpt", part{espGPT, esp}, part{linux, esp}, part{linux, ext(t, "", with(rootFiles, "etc/fstab", "LABEL=EFI /efi vfat"))}), 0, nil},
		"none":          {made(t, "gpt", part{espGPT, esp}, part{linux, fake(t, "LABELONE", 512)}), 0, ErrNoRoot},
		"encrypted":     {made(t, "gpt", part{rootGPT, fake(t, "LUKS\xba\xbe", 0)}), 0, ErrNoRoot},
		"no such":       {made(t, "gpt", part{linux, root}), 7, ErrNoRoot},
		"number of ESP": {made(t, "gpt", part{espGPT, esp}, part{linux, root}), 1, ErrNoRoot},
		"boot missing":  {made(t, "gpt", part{linux, ext(t, "", with(rootFiles, "etc/fstab", "UUID=1234 /boot ext4"))}), 0, ErrMount},
		"boot is root":  {made(t, "gpt", part{linux, ext(t, "", with(rootFiles, "etc/fstab", "/dev/sda1 /boot ext4"))}), 0, ErrMount},
	} {
		t.Run(name, func(t *testing.T) {
			_, s, err := system(t, c.path, c.number)
			ambiguous := (*AmbiguousError)(nil)
			if s != nil || c.want == nil && (!errors.As(err, &ambiguous) || len(ambiguous.Candidates) != 2) || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %+v, %v", s, err)
			}
		})
	}
	for name, content := range map[string]string{"text": "hello", "empty": "", "zeros": strings.Repeat("\x00", 10000)} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if d, err := Open(path); d != nil || !errors.Is(err, ErrNoDisk) {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
	if d, err := Open(t.TempDir()); d != nil || !errors.Is(err, ErrNoDisk) {
		t.Errorf("a folder: %v, %v", d, err)
	}
}

// TestReadsInPlace reads the files of each volume, from a raw disk and from QCOW2 ones, and compares what
// the container leaves out with zeros.
func TestReadsInPlace(t *testing.T) {
	raw := made(t, "gpt", part{espGPT, vfat(t, "EFI")}, part{rootGPT, ext(t, "top", rootFiles)})
	packed := filepath.Join(t.TempDir(), "disk.img")
	testtool.Output(t, testtool.Program(t, "qemu-img"), "convert", "-c", "-O", "qcow2", raw, packed)
	for format, path := range map[string]string{"raw": raw, "qcow2": packed} {
		d, s, err := system(t, path, 0)
		if err != nil {
			t.Fatal(err)
		}
		if d.Format != format || s.Root.FileSystem != Ext4 || s.Root.Label != "top" || d.Volumes[0].FileSystem != FAT || d.Volumes[0].Label != "EFI" {
			t.Errorf("%s: %+v, %+v", format, d, s)
		}
		tree, err := d.Tree(s.Root)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tree.ReadFile("/etc/hostname", 100); err != nil || string(got) != "web" {
			t.Errorf("%s: got %q, %v", format, got, err)
		}
		if esp, err := d.Tree(s.Mounts[0].Volume); err != nil {
			t.Error(err)
		} else if err := esp.Walk(context.Background(), func(source.Entry, io.Reader) error { return nil }); err != nil {
			t.Error(err)
		}
		content, err := io.ReadAll(d.Section(s.Root))
		if err != nil {
			t.Fatal(err)
		}
		held := int64(0)
		err = d.Allocated(s.Root, func(off, n int64) error { clear(content[off : off+n]); held += n; return nil })
		if err != nil || held == 0 || held == s.Root.Size || !bytes.Equal(content, make([]byte, len(content))) {
			t.Errorf("%s: %d of %d bytes are held, %v; what is not has data", format, held, s.Root.Size, err)
		}
	}
}

func TestUnchanged(t *testing.T) {
	path := made(t, "gpt", part{rootGPT, ext(t, "", rootFiles)})
	d, _, err := system(t, path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Unchanged(); err != nil {
		t.Error(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := d.Unchanged(); !errors.Is(err, source.ErrChanged) {
		t.Errorf("got %v", err)
	}
}

// TestKinds compares what is recognized with blkid.
func TestKinds(t *testing.T) {
	blkid := testtool.Program(t, "blkid")
	for _, command := range []string{"mke2fs -q -t ext2 -L one", "mke2fs -q -t ext3 -L two", "mke2fs -q -t ext4 -L three", "mkfs.vfat -n FOUR", "mkfs.btrfs -q -L five", "mkfs.xfs -q -L six", "mkswap -q -L seven"} {
		words := strings.Fields(command)
		t.Run(words[0]+words[len(words)-1], func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(image, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(image, 320*mib); err != nil {
				t.Fatal(err)
			}
			testtool.Output(t, testtool.Program(t, words[0]), append(words[1:], image)...)
			d, err := Open(image)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			v := d.Volumes[0]
			for tag, got := range map[string]string{"TYPE": string(v.FileSystem), "UUID": v.UUID, "LABEL": v.Label} {
				if want := strings.TrimSpace(testtool.Output(t, blkid, "-p", "-s", tag, "-o", "value", image)); got != want {
					t.Errorf("%s is %q, blkid says %q", tag, got, want)
				}
			}
		})
	}
}

func TestNamed(t *testing.T) {
	v := Volume{UUID: "AB-12", Label: "a b"}
	v.Number, v.ID, v.Name = 12, "deca-0c", "n"
	for spec, want := range map[string]bool{
		"UUID=ab-12": true, `UUID="AB-12"`: true, "UUID=": false, "LABEL=a b": true, "LABEL=A b": false, "PARTUUID=DECA-0C": true, "PARTLABEL=n": true,
		"/dev/sda12": true, "/dev/nvme0n1p12": true, "/dev/xvda12": true, "/dev/sda1": false, "/dev/mapper/x12": false, "/dev/disk/by-label/a b": true, "/dev/sda99999999999999999999": false, "tmpfs": false,
	} {
		if got := v.Named(spec); got != want {
			t.Errorf("%s: %v", spec, got)
		}
	}
	table := "# /boot\nUUID=1 / ext4\nUUID=2 /boot/ ext4\n\nUUID=3 /boot/efi vfat"
	want := "# /boot\nUUID=1 / ext4\n# now in the root: UUID=2 /boot/ ext4\n\n# now in the root: UUID=3 /boot/efi vfat"
	if got := string(DropMounts([]byte(table), []string{"/boot", "/boot/efi"})); got != want {
		t.Errorf("got %q", got)
	}
	if got := unescape(`\057a\0`); got != `/a\0` {
		t.Errorf("got %q", got)
	}
}
