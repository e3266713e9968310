package agent

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/protofile"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/luks/layout"
)

const (
	bootBytes = 32 << 20
	rootBytes = 128 << 20
	roomBytes = 160 << 20 // behind the root's file system
)

// TestRoots boots roots of kinds that have a boot volume before them. The builder puts nothing into such a root; what the first boot
// finds in the boot volume is there ever after, the program that grows it among it.
func TestRoots(t *testing.T) {
	if testing.Short() {
		t.Skip("boots virtual machines")
	}
	first := &realMachine{dir: t.TempDir(), passphrase: randomBytes(t, 32), secret: fmt.Sprintf("%x", randomBytes(t, 16))}
	first.makeInitramfs(t, "ext4", "xfs", "btrfs")
	pin := func(m *realMachine) []byte {
		pin := m.header.Pin()
		return m.keys(m.passphrase, pin[:], nil, "")
	}
	t.Run("xfs", func(t *testing.T) {
		m := *first
		m.disk = filepath.Join(t.TempDir(), "xfs.raw")
		m.makeDivided(t, "xfs")
		keys := pin(&m)
		// The tampered twin changes nothing: the boots after it find the disk as it was made.
		console := m.boot(t, m.disk, keys, "rootfstype=btrfs")
		wantLine(t, console, "sealboot: stopped: the root cannot be completed from the boot volume: mount root: btrfs: ")
		if strings.Contains(console, marker) {
			t.Errorf("the root ran:\n%s", last(console))
		}
		old := m.bootVolume(t, nil)
		console = m.boot(t, m.disk, keys, "")
		wantLine(t, console, "sealboot: stopped: "+ErrNoKind.Error())
		console = m.boot(t, m.disk, keys, "rootfstype=xfs rootflags=noatime,logbufs=4")
		m.wantFirst(t, console, "xfs")
		console = m.boot(t, m.disk, keys, "rootfstype=xfs")
		wantLine(t, console, m.says("changed by the guest"))
		if strings.Contains(console, "into the root") || strings.Contains(console, "grew") {
			t.Errorf("done again:\n%s", last(console))
		}
		// The host puts back what the boot volume was. It gets no file of the root put back with it.
		m.bootVolume(t, old)
		console = m.boot(t, m.disk, keys, "rootfstype=xfs")
		wantLine(t, console, m.says("changed by the guest"))
	})
	t.Run("btrfs with a distribution's initramfs", func(t *testing.T) {
		m := *first
		m.disk = filepath.Join(t.TempDir(), "btrfs.raw")
		m.makeDivided(t, "btrfs")
		m.initramfs = append(m.distribution(t, "btrfs", buildScan(t)), m.initramfs...)
		hosts := filepath.Join(t.TempDir(), "hosts.raw")
		makeBtrfs(t, hosts, t.TempDir())
		claimTwo(t, hosts)
		console := m.boot(t, m.disk, pin(&m), "rootfstype=btrfs rootflags=subvolid=5,noatime", hosts)
		// The kernel must not take the host's disk for a part of the root: it would believe whichever is newer.
		wantLine(t, console, "scan /dev/vdb: device or resource busy")
		wantLine(t, console, "distribution's init: panic=1,noresume=y, left conf,init,sealboot-root,")
		m.wantFirst(t, console, "btrfs")
	})
}

// wantFirst looks for what the first boot does.
func (m *realMachine) wantFirst(t *testing.T, console, kind string) {
	t.Helper()
	wantLine(t, console, "sealboot: put 8 files and folders into the root")
	if !regexp.MustCompile(`(?m)^sealboot: grew the ` + kind + ` file system of / from 128\.0 MiB to 288\.0 MiB`).MatchString(console) {
		t.Errorf("the root did not grow:\n%s", last(console))
	}
	wantLine(t, console, m.says(m.secret))
}

// says is what rootsScript answers with where the installed file has that content.
func (m *realMachine) says(installed string) string {
	return fmt.Sprintf("%s %s, boot CRYPT-LUKS2-%s-sealboot-boot has sealboot vmlinuz , in sealboot nothing, udev 2, link /../../etc/secret, installed 600 3:4 %s",
		marker, m.secret, strings.ReplaceAll(m.header.UUID(), "-", ""), installed)
}

// bootVolume gives the sectors of the boot volume as the host has them, once it wrote others if there are any.
func (m *realMachine) bootVolume(t *testing.T, others []byte) []byte {
	t.Helper()
	disk, err := os.OpenFile(m.disk, os.O_RDWR, 0)
	check(t, err)
	defer disk.Close()
	_, err = disk.WriteAt(others, partitionStart+dataOffset)
	check(t, err)
	now := make([]byte, bootBytes)
	_, err = disk.ReadAt(now, partitionStart+dataOffset)
	check(t, err)
	return now
}

// makeDivided makes a disk with a boot volume and a root of that kind, which lacks what is in the install tree.
func (m *realMachine) makeDivided(t *testing.T, kind string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) {
		t.Helper()
		check(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(content), mode))
	}
	const tree = "boot/sealboot/install/"
	write("boot/vmlinuz", "", 0o644)
	write(tree+"etc/installed", m.secret+"\n", 0o600)
	write(tree+"lib/sealboot/sealboot-guest", string(buildProgram(t, dir, "sealboot-guest")), 0o755)
	write(tree+"bin/further", "", 0o644)
	write("boot/sealboot/install.done/x", "from an installation that did not end", 0o644)
	check(t, os.Symlink("/../../etc/secret", filepath.Join(dir, tree, "lib/link")))
	check(t, os.Lchown(filepath.Join(dir, tree, "etc/installed"), 3, 4))
	busybox, err := os.ReadFile(testtool.Program(t, "busybox"))
	check(t, err)
	write("root/bin/busybox", string(busybox), 0o755)
	write("root/etc/secret", m.secret+"\n", 0o600)
	write("root/sbin/init", rootsScript, 0o755)
	for _, name := range []string{"usr/lib", "proc", "sys", "dev", "run", "boot"} {
		check(t, os.MkdirAll(filepath.Join(dir, "root", name), 0o755))
	}
	check(t, os.Symlink("/usr/lib", filepath.Join(dir, "root/lib")))

	boot := filepath.Join(dir, "boot.ext4")
	testtool.Output(t, testtool.Program(t, "mke2fs"), "-q", "-t", "ext4", "-b", "4096", "-O", "metadata_csum", "-L", layout.Label, "-d", filepath.Join(dir, "boot"), boot, fmt.Sprintf("%dk", bootBytes>>10))
	root := filepath.Join(dir, "root."+kind)
	sector := 4096
	switch kind {
	case "xfs":
		sector = 512 // as xfs's own: the kernel does not mount it on larger ones
		for _, name := range []string{"TEST_DIR", "TEST_DEV", "QA_CHECK_FS"} {
			t.Setenv(name, "1") // mkfs.xfs makes small ones then
		}
		var description strings.Builder
		check(t, protofile.Write(&description, filepath.Join(dir, "root")))
		write("proto", description.String(), 0o600)
		check(t, os.WriteFile(root, nil, 0o600))
		check(t, os.Truncate(root, rootBytes))
		testtool.Output(t, testtool.Program(t, "mkfs.xfs"), "-q", "-p", filepath.Join(dir, "proto"), root)
	case "btrfs":
		makeBtrfs(t, root, filepath.Join(dir, "root"))
	}
	payload, err := os.ReadFile(boot)
	check(t, err)
	content, err := os.ReadFile(root)
	check(t, err)
	m.seal(t, append(payload, content...), roomBytes, sector)
}

// makeBtrfs makes a file system that holds a folder. All that it makes have the same UUID, as those have that were copied from one image.
func makeBtrfs(t *testing.T, image, folder string) {
	t.Helper()
	check(t, os.WriteFile(image, nil, 0o600))
	check(t, os.Truncate(image, rootBytes))
	testtool.Output(t, testtool.Program(t, "mkfs.btrfs"), "-q", "-U", "0b7f5a1c-4d2e-4c8b-9a63-1f0e2d3c4b5a", "--rootdir", folder, image)
}

// claimTwo has a file system say that it has a second device: the kernel keeps nothing in mind of one that has none, from 6.8 on.
func claimTwo(t *testing.T, image string) {
	t.Helper()
	const at, size, devices = 64 << 10, 4096, 0x88 // superblock, num_devices (Linux include/uapi/linux/btrfs_tree.h)
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	super := make([]byte, size)
	_, err = f.ReadAt(super, at)
	check(t, err)
	if n := binary.LittleEndian.Uint64(super[devices:]); n != 1 {
		t.Fatalf("%d devices", n)
	}
	super[devices] = 2
	binary.LittleEndian.PutUint32(super, crc32.Checksum(super[32:], crc32.MakeTable(crc32.Castagnoli)))
	_, err = f.WriteAt(super, at)
	check(t, err)
}

// buildScan makes a program that shows the host's disk to btrfs, as udev and "btrfs device scan" do in a distribution's initramfs.
func buildScan(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, program := filepath.Join(dir, "scan.go"), filepath.Join(dir, "scan")
	check(t, os.WriteFile(source, []byte(scanSource), 0o600))
	testtool.Output(t, "go", "build", "-o", program, source)
	return program
}

// scanSource calls BTRFS_IOC_SCAN_DEV, _IOW(0x94, 4, struct btrfs_ioctl_vol_args) (Linux include/uapi/linux/btrfs.h).
const scanSource = `package main

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

func main() {
	const name = "/dev/vdb"
	control, err := os.OpenFile("/dev/btrfs-control", os.O_RDWR, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	var arguments [4096]byte
	copy(arguments[8:], name)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, control.Fd(), 0x50009404, uintptr(unsafe.Pointer(&arguments[0])))
	fmt.Printf("scan %s: %v\n", name, errno)
}
`

// rootsScript grows the root, and says what it and the boot volume hold.
const rootsScript = `#!/bin/busybox sh
bb=/bin/busybox
$bb mount -o remount,rw /
/lib/sealboot/sealboot-guest grow /
$bb mount -t ext4 /dev/mapper/sealboot-boot /boot
names() { $bb ls "$@" | $bb grep -v lost | $bb tr '\n' ' '; }
in=$(names /boot/sealboot)
echo "` + marker + ` $($bb cat /etc/secret), boot $($bb cat /sys/block/dm-1/dm/uuid) has $(names /boot), in sealboot ${in:-nothing}, udev $($bb ls /run/udev/data | $bb wc -l), link $($bb readlink /usr/lib/link), installed $($bb stat -c '%a %u:%g' /etc/installed) $($bb cat /etc/installed)"
echo "changed by the guest" >/etc/installed
$bb umount /boot
$bb mount -o remount,ro /
$bb poweroff -f
`
