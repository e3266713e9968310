package e2e

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/sealboot/sealboot/e2e/lab"
	"github.com/sealboot/sealboot/internal/testtool"
)

// TestSources boots the root from each other kind of source. TestGoodBoot has it from a tar archive; from a folder
// it is the same walk.
func TestSources(t *testing.T) {
	s := theStage(t)
	t.Run("disk image", func(t *testing.T) {
		for _, program := range []string{"sfdisk", "mke2fs", "mkfs.vfat", "mcopy", "mkswap", "qemu-img"} {
			testtool.Program(t, program)
		}
		if os.Geteuid() != 0 {
			testtool.Program(t, "fakeroot")
		}
		disk := s.Path("installed.qcow2")
		if err := (lab.Installed{ESP: 16, Boot: 64, Root: 160, Swap: 8}).Make(t.Context(), s.rootfs(), disk); err != nil {
			t.Fatal(err)
		}
		s.wantBoot(t, s.launch(t, lab.Machine{Image: s.sealed(t, "from-disk", disk, "512M")}))
	})
	for kind, at := range map[string]string{"xfs": "/", "btrfs": "/" + lab.Subvolume} {
		t.Run("disk image with "+kind, func(t *testing.T) { s.foreignRoot(t, kind, at) })
	}
	t.Run("container image", func(t *testing.T) {
		// The proof needs the file of the upper layer.
		lower, upper, image := s.Path("lower.tar"), s.Path("upper.tar"), s.Path("oci")
		if err := lab.MakeRootFS(t.Context(), s.Deps, lower, []byte("not this one")); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		err := w.WriteHeader(&tar.Header{Name: "etc/sealboot-proof", Mode: 0o600, Size: int64(len(s.secret))})
		_, writing := w.Write(s.secret)
		if err := errors.Join(err, writing, w.Close(), os.WriteFile(upper, b.Bytes(), 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := lab.MakeOCI(image, lower, upper); err != nil {
			t.Fatal(err)
		}
		s.wantBoot(t, s.launch(t, lab.Machine{Image: s.sealed(t, "from-oci", image, "512M")}))
	})
}

// foreignRoot boots a root that GRUB does not read. That the program in it grew it says that the boot volume's files were put there. XFS
// is booted again: they stay, and nothing is left to be put.
func (s *stage) foreignRoot(t *testing.T, kind, at string) {
	for _, program := range []string{"sfdisk", "mke2fs", "mkfs.vfat", "mcopy", "mkswap", "qemu-img", "mkfs." + kind} {
		testtool.Program(t, program)
	}
	disk := s.Path(kind + ".qcow2")
	if err := (lab.Installed{ESP: 16, Root: 320, Swap: 8, Kind: kind}).Make(t.Context(), s.rootfs(), disk); err != nil {
		t.Fatal(err)
	}
	image := s.sealed(t, "from-"+kind, disk, "1600M")
	for boot := range map[string]int{"xfs": 2, "btrfs": 1}[kind] {
		o := s.launch(t, lab.Machine{Image: image})
		s.wantBoot(t, o)
		m := rootLine.FindStringSubmatch(o.Console)
		if m == nil {
			t.Fatalf("the guest says nothing of its root:\n%s", o.Console)
		}
		size, err := strconv.Atoi(m[3])
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s", m[0])
		// The disk has 1600 MiB, of which the boot volume takes 1024.
		if m[1] != kind || m[2] != at && m[2] != "/" || size < 450 || size > 576 || !contains(m[4], "sealboot/initramfs-") || contains(m[4], "install") {
			t.Errorf("boot %d: %s", boot+1, m[0])
		}
		if put := contains(o.Console, "into the root"); put != (boot == 0) {
			t.Errorf("boot %d: files were put into the root: %v", boot+1, put)
		}
	}
}

var rootLine = regexp.MustCompile(`guest: file system (\w+) at (\S+), (\d+) MiB, boot volume (.*)`)
