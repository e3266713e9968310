package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sealboot/sealboot/internal/protofile"
)

const mib = 1 << 20

// Installed is a disk as an installer leaves it: GPT, an EFI system partition, /boot and the root in partitions of
// their own, a swap area. Sizes are in MiB. Kind is the root's file system: ext4 if nothing is said, xfs or btrfs; with
// Boot 0 /boot is in the root.
type Installed struct {
	ESP, Boot, Root, Swap int64
	Kind                  string
}

const (
	espID   = "5EA1-B007"
	bootID  = "0b007b00-7b00-4b00-8b00-7b007b007b00"
	rootID  = "0a007a00-7a00-4a00-8a00-7a007a007a00"
	swapID  = "05a9c00a-9c00-4a9c-8a9c-00a9c00a9c00"
	espType = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
)

// rootLines are the root's in /etc/fstab, by its file system.
var rootLines = map[string]string{"ext4": "ext4 errors=remount-ro 0 1", "xfs": "xfs defaults 0 0", "btrfs": "btrfs defaults,compress=zstd 0 0"}

func (i Installed) fstab() string {
	table := fmt.Sprintf("# /etc/fstab: static file system information.\nUUID=%s / %s\n", rootID, rootLines[i.Kind])
	if i.Boot > 0 {
		table += fmt.Sprintf("UUID=%s /boot ext4 defaults 0 2\n", bootID)
	}
	return table + fmt.Sprintf("UUID=%s /boot/efi vfat umask=0077 0 1\nUUID=%s none swap sw 0 0\n", espID, swapID)
}

// Subvolume is where the root of a Btrfs disk lies.
const Subvolume = "@system"

// makeRoot are shell commands that make root.img of the folder root. mkfs.xfs describes a folder to itself from version 6.17 on alone. The
// subvolume takes mkfs.btrfs 6.11, or a mount: where there is neither, the root is at the top.
var makeRoot = map[string]string{
	"ext4": `mke2fs -q -t ext4 -U $uuid -d root root.img ${size}M`,
	"xfs":  `truncate -s ${size}M root.img && mkfs.xfs -q -m uuid=$uuid -p proto root.img`,
	"btrfs": `truncate -s ${size}M root.img
if mkfs.btrfs --help 2>&1 | grep -q -e --subvol; then
	mkdir top && mv root top/` + Subvolume + ` && mkfs.btrfs -q -U $uuid --rootdir top --subvol ` + Subvolume + ` root.img
	mv top/` + Subvolume + ` root
elif mkfs.btrfs -q -U $uuid root.img && mkdir mnt && mount -o loop root.img mnt 2>/dev/null; then
	btrfs subvolume create mnt/` + Subvolume + ` >/dev/null && cp -a root/. mnt/` + Subvolume + ` ; umount mnt
else
	mkfs.btrfs -q -f -U $uuid --rootdir root root.img
fi`,
}

// Make puts the tar archive of a root on such a disk, in QCOW2. It needs no loop devices and, with fakeroot, no root.
func (i Installed) Make(ctx context.Context, rootfs, out string) error {
	if i.Kind == "" {
		i.Kind = "ext4"
	}
	dir, err := os.MkdirTemp(filepath.Dir(out), "installed-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "fstab"), []byte(i.fstab()), 0o644); err != nil {
		return err
	}
	unpack := fmt.Sprintf(`set -e
cd %q
mkdir root boot
tar -xpf %q -C root
cp fstab root/etc/fstab
mkdir -p root/boot/efi
if [ %d != 0 ]; then
	cp -a root/boot/. boot
	rm -r root/boot/*
fi
`, dir, rootfs, i.Boot)
	pack := fmt.Sprintf(`set -e
cd %q
[ %[2]d = 0 ] || mke2fs -q -t ext4 -U %[3]s -d boot boot.img %[2]dM
uuid=%[4]s size=%[5]d
%[6]s
truncate -s %[7]dM esp.img && mkfs.vfat -i %[8]s esp.img >/dev/null
mmd -i esp.img ::EFI ::EFI/debian && mcopy -i esp.img fstab ::EFI/debian/grub.cfg
truncate -s %[9]dM swap.img && mkswap -q -U %[10]s swap.img
rm -r root boot
`, dir, i.Boot, bootID, rootID, i.Root, makeRoot[i.Kind], i.ESP, strings.ReplaceAll(espID, "-", ""), i.Swap, swapID)
	if i.Kind == "xfs" {
		if err := output(ctx, nil, "sh", "-c", unpack); err != nil {
			return err
		}
		if err := describe(filepath.Join(dir, "root"), filepath.Join(dir, "proto")); err != nil {
			return err
		}
		unpack = ""
	}
	shell := []string{"sh", "-c", unpack + pack}
	if os.Geteuid() != 0 {
		shell = append([]string{"fakeroot", "--"}, shell...)
	}
	if err := output(ctx, nil, shell...); err != nil {
		return err
	}
	raw := filepath.Join(dir, "disk.raw")
	table := "label: gpt\n"
	disk, err := os.Create(raw)
	if err != nil {
		return err
	}
	defer disk.Close()
	at := int64(mib)
	for _, p := range []struct{ file, kind string }{{"esp.img", espType}, {"boot.img", "L"}, {"swap.img", "S"}, {"root.img", "L"}} {
		if p.file == "boot.img" && i.Boot == 0 {
			continue
		}
		size, err := copySparse(disk, at, filepath.Join(dir, p.file))
		if err != nil {
			return err
		}
		table += fmt.Sprintf("start=%d, size=%d, type=%s\n", at/512, size/512, p.kind)
		at += size
	}
	if err := disk.Truncate(at + mib); err != nil {
		return err
	}
	if err := output(ctx, strings.NewReader(table), "sfdisk", "-q", raw); err != nil {
		return err
	}
	return output(ctx, nil, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, out)
}

// describe describes a folder to mkfs.xfs.
func describe(folder, name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(protofile.Write(f, folder), f.Close())
}

// copySparse copies a file to an offset, and leaves zeros out.
func copySparse(to io.WriterAt, at int64, path string) (int64, error) {
	from, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	buf, zeros := make([]byte, mib), make([]byte, mib)
	for size := int64(0); ; {
		n, err := io.ReadFull(from, buf)
		if n > 0 && string(buf[:n]) != string(zeros[:n]) {
			if _, err := to.WriteAt(buf[:n], at+size); err != nil {
				return 0, err
			}
		}
		size += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return size, nil
		} else if err != nil {
			return 0, err
		}
	}
}

func output(ctx context.Context, in io.Reader, command ...string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin = in
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", command[0], err, tail(string(said), 2000))
	}
	return nil
}
