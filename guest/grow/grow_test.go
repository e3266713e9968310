package grow

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/internal/testtool"
)

const mib = 1 << 20

// made makes a file system with mke2fs and reads its superblock.
func made(t *testing.T, size string, options ...string) (string, superblock) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "ext4")
	testtool.Output(t, testtool.Program(t, "mke2fs"), append(append([]string{"-q", "-t", "ext4"}, options...), image, size)...)
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return image, superblock(content[1024:2048])
}

// TestTarget counts how far file systems can grow, and has resize2fs make one as large as that: no block of
// descriptors then is beyond the room for them.
func TestTarget(t *testing.T) {
	for name, c := range map[string]struct {
		options      []string
		device, want int64 // bytes
	}{
		"the same":        {nil, 64 * mib, 64 * mib},
		"smaller":         {nil, 32 * mib, 32 * mib},
		"larger":          {nil, 1 << 30, 1 << 30},
		"odd":             {nil, 1<<30 + 5000, 1<<30 + 4096},
		"1 KiB blocks":    {[]string{"-b", "1024"}, 1 << 30, 1 << 30},
		"no room is kept": {[]string{"-b", "1024", "-O", "^resize_inode,^64bit"}, 1 << 40, (1 + 32*8192) << 10}, // one block of descriptors
		"some room":       {[]string{"-b", "1024", "-O", "^64bit", "-E", "resize=1000000"}, 1 << 40, (1 + 4*32*8192) << 10},
	} {
		_, super := made(t, "64M", append([]string{"-b", "4096"}, c.options...)...)
		if got := super.target(c.device) * super.blockSize(); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestGrow mounts a file system on a device that is larger.
func TestGrow(t *testing.T) {
	image, before := made(t, "64M")
	if err := os.Truncate(image, 256*mib); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop", image, folder).CombinedOutput(); err != nil {
		t.Skipf("mount (only root may, with loop devices): %s; the boots test it", out)
	}
	defer unix.Unmount(folder, 0)
	r, err := Grow(folder)
	if errors.Is(err, unix.EPERM) {
		t.Skip("may not grow a file system (CAP_SYS_RESOURCE); the boots test it")
	}
	if err != nil || r.Before != before.blocks()*before.blockSize() || r.After != 256*mib || r.Device != 256*mib {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err = Grow(folder); err != nil || r.After != r.Before {
		t.Errorf("once more: %+v, %v", r, err)
	}
	if err := unix.Unmount(folder, 0); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "e2fsck"), "-fn", image)
}

func TestGrowRefuses(t *testing.T) {
	if r, err := Grow("/proc"); r != nil || !errors.Is(err, ErrKind) {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := Grow(filepath.Join(t.TempDir(), "none")); r != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, %v", r, err)
	}
}
