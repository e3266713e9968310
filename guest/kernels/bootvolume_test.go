package kernels

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/initramfs"
	"github.com/sealboot/sealboot/internal/testtool"
)

// mountImage makes a file system and mounts it, and gives the device.
func mountImage(t *testing.T, folder string, size int64, mkfs ...string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, mkfs[0]), append(mkfs[1:], image)...)
	if out, err := exec.Command("mount", "-o", "loop", image, folder).CombinedOutput(); err != nil {
		t.Skipf("mount (only root may, with loop devices): %s; the boots test it", out)
	}
	t.Cleanup(func() { unix.Unmount(folder, unix.MNT_DETACH) })
	return strings.TrimSpace(testtool.Output(t, "findmnt", "-n", "-o", "SOURCE", "--mountpoint", folder))
}

// TestBootVolume has a root that GRUB cannot read, and the boot volume at /boot or not there.
func TestBootVolume(t *testing.T) {
	for _, name := range []string{"TEST_DIR", "TEST_DEV", "QA_CHECK_FS"} {
		t.Setenv(name, "1") // mkfs.xfs makes small ones then
	}
	agent, builtin := itself(t), crypt+"kernel/fs/ext4/ext4.ko\nkernel/fs/xfs/xfs.ko\nkernel/fs/btrfs/btrfs.ko\n"
	small := int64(len(agent)) * 3 / 2 // for one initramfs, not for two
	for kind, mkfs := range map[string][]string{"xfs": {"mkfs.xfs", "-q"}, "btrfs": {"mkfs.btrfs", "-q"}, "ext4": {"mke2fs", "-q", "-t", "ext4"}} {
		t.Run(kind, func(t *testing.T) {
			root := t.TempDir()
			mountImage(t, root, 128<<20, mkfs...)
			install(t, root, "6.1", builtin)
			install(t, root, "6.2", builtin)
			install(t, root, "6.3", crypt) // its initramfs could not mount the root
			boot := filepath.Join(root, "boot")
			if err := errors.Join(os.Mkdir(boot, 0o755), os.MkdirAll(filepath.Join(root, "dev/mapper"), 0o755)); err != nil {
				t.Fatal(err)
			}
			device := mountImage(t, boot, small, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0")
			if err := os.Symlink(device, filepath.Join(root, bootDevice)); err != nil {
				t.Fatal(err)
			}
			if kind == "ext4" {
				if changed, err := Update(t.Context(), root, "6.1", agent); changed || err == nil || !strings.Contains(err.Error(), "0xef53") {
					t.Errorf("a root that has no boot volume: %v, %v", changed, err)
				}
				return
			}
			if got, err := agentMounts(root); err != nil || !slices.Equal(got, []string{"ext4", kind}) {
				t.Fatalf("%v, %v", got, err)
			}
			if changed, err := Update(t.Context(), root, "6.1", agent); !changed || err != nil {
				t.Fatalf("%v, %v", changed, err)
			}
			there, err := os.ReadFile(filepath.Join(root, initramfs.Path("6.1")))
			if err != nil {
				t.Fatal(err)
			}
			if changed, err := Update(t.Context(), root, "6.3", agent); changed || !errors.Is(err, initramfs.ErrNoFileSystem) {
				t.Errorf("without the root's driver: %v, %v", changed, err)
			}
			// Only /boot is full.
			if changed, err := Update(t.Context(), root, "6.2", agent); changed || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "remove kernels") {
				t.Errorf("a full boot volume: %v, %v", changed, err)
			}
			if now, err := os.ReadFile(filepath.Join(root, initramfs.Path("6.1"))); err != nil || string(now) != string(there) {
				t.Errorf("the other initramfs is gone or another: %v", err)
			}
			if err := unix.Unmount(boot, 0); err != nil {
				t.Fatal(err)
			}
			if changed, err := Update(t.Context(), root, "6.1", agent); changed || !errors.Is(err, ErrNotMounted) {
				t.Errorf("nothing at /boot: %v, %v", changed, err)
			}
			if err := Remove(root, "6.1"); !errors.Is(err, ErrNotMounted) {
				t.Errorf("nothing at /boot: %v", err)
			}
			if names, err := os.ReadDir(boot); err != nil || len(names) != 0 {
				t.Errorf("in the root's /boot is %v, %v", names, err)
			}
		})
	}
}
