package grow

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

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

// TestGrow mounts file systems on devices that are larger.
func TestGrow(t *testing.T) {
	for _, name := range []string{"TEST_DIR", "TEST_DEV", "QA_CHECK_FS"} {
		t.Setenv(name, "1") // mkfs.xfs makes small ones then
	}
	for kind, c := range map[string]struct{ make, check []string }{
		"ext4":  {[]string{"mke2fs", "-q", "-t", "ext4"}, []string{"e2fsck", "-fn"}},
		"xfs":   {[]string{"mkfs.xfs", "-q"}, []string{"xfs_repair", "-n"}},
		"btrfs": {[]string{"mkfs.btrfs", "-q"}, []string{"btrfs", "check"}},
	} {
		t.Run(kind, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), kind)
			if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 128*mib)); err != nil {
				t.Fatal(err)
			}
			testtool.Output(t, testtool.Program(t, c.make[0]), append(c.make[1:], image)...)
			if err := os.Truncate(image, 256*mib+4096); err != nil { // a block more than a group of xfs may have
				t.Fatal(err)
			}
			folder := t.TempDir()
			mount := func(options string) {
				if out, err := exec.Command("mount", "-t", kind, "-o", options, image, folder).CombinedOutput(); err != nil {
					t.Skipf("mount (only root may, with loop devices): %s; the boots test it", out)
				}
			}
			unmount := func() {
				if err := unix.Unmount(folder, 0); err != nil {
					t.Fatal(err)
				}
			}
			mount("loop,ro")
			r, err := Grow(folder)
			unmount()
			if errors.Is(err, unix.EPERM) {
				t.Skip("may not grow a file system (CAP_SYS_RESOURCE); the boots test it")
			}
			if r != nil || !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), "mount it for writing") {
				t.Errorf("read-only: %+v, %v", r, err)
			}
			mount("loop")
			defer unix.Unmount(folder, unix.MNT_DETACH)
			r, err = Grow(folder)
			if err != nil || r.Kind != kind || r.Before != 128*mib || r.After < 256*mib || r.After > 256*mib+4096 || r.Device < r.After {
				t.Fatalf("%+v, %v", r, err)
			}
			if r, err = Grow(folder); err != nil || r.After != r.Before || r.After < 256*mib {
				t.Errorf("once more: %+v, %v", r, err)
			}
			unmount()
			testtool.Output(t, testtool.Program(t, c.check[0]), append(c.check[1:], image)...)
		})
	}
}

func TestGrowRefuses(t *testing.T) {
	if r, err := Grow("/proc"); r != nil || !errors.Is(err, ErrKind) {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := Grow(filepath.Join(t.TempDir(), "none")); r != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, %v", r, err)
	}
}

// TestXFSTarget: a rest that is too small for a group of its own stays unused.
func TestXFSTarget(t *testing.T) {
	for name, c := range map[string]struct {
		geometry xfsGeometry
		device   int64
		want     uint64
	}{
		"whole groups":    {xfsGeometry{BlockSize: 4096, GroupBlocks: 4096}, 64 * mib, 16384},
		"a group's rest":  {xfsGeometry{BlockSize: 4096, GroupBlocks: 4096}, 65 * mib, 16640},
		"the least rest":  {xfsGeometry{BlockSize: 4096, GroupBlocks: 4096}, 64*mib + 64*4096, 16448},
		"less than that":  {xfsGeometry{BlockSize: 4096, GroupBlocks: 4096}, 64*mib + 64*4096 - 1, 16384},
		"half a block":    {xfsGeometry{BlockSize: 65536, GroupBlocks: 1024}, 256*mib - 4096, 4095},
		"no such groups":  {xfsGeometry{BlockSize: 4096}, 64 * mib, 0},
		"no such blocks":  {xfsGeometry{GroupBlocks: 4096}, 64 * mib, 0},
		"nothing at hand": {xfsGeometry{BlockSize: 4096, GroupBlocks: 4096}, 0, 0},
	} {
		got, err := c.geometry.target(c.device)
		if got != c.want || (err != nil) != (c.geometry.BlockSize == 0 || c.geometry.GroupBlocks == 0) {
			t.Errorf("%s: %d, %v; want %d", name, got, err, c.want)
		}
	}
}

// TestNumbers holds the numbers of calls to the sizes of their structures (Linux include/uapi/asm-generic/ioctl.h).
func TestNumbers(t *testing.T) {
	const write, read = 1, 2
	number := func(direction, kind, n, size uintptr) uintptr { return direction<<30 | size<<16 | kind<<8 | n }
	for name, c := range map[string][2]uintptr{
		"EXT4_IOC_RESIZE_FS":    {resizeFS, number(write, 'f', 16, 8)},
		"XFS_IOC_FSGEOMETRY_V4": {xfsGetGeometry, number(read, 'X', 124, unsafe.Sizeof(xfsGeometry{}))},
		"XFS_IOC_FSGROWFSDATA":  {xfsGrowData, number(write, 'X', 110, unsafe.Sizeof(xfsGrowth{}))},
		"BTRFS_IOC_FS_INFO":     {btrfsGetInfo, number(read, 0x94, 31, unsafe.Sizeof(btrfsInfo{}))},
		"BTRFS_IOC_DEV_INFO":    {btrfsGetDevice, number(write|read, 0x94, 30, unsafe.Sizeof(btrfsDevice{}))},
		"BTRFS_IOC_RESIZE":      {btrfsResize, number(write, 0x94, 3, unsafe.Sizeof(btrfsArguments{}))},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %#x, want %#x", name, c[0], c[1])
		}
	}
}
