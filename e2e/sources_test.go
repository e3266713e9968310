package e2e

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
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
