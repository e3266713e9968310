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
)

const mib = 1 << 20

// Installed is a disk as an installer leaves it: GPT, an EFI system partition, /boot and the root in ext4 partitions of
// their own, a swap area. Sizes are in MiB.
type Installed struct{ ESP, Boot, Root, Swap int64 }

const (
	espID   = "5EA1-B007"
	bootID  = "0b007b00-7b00-4b00-8b00-7b007b007b00"
	rootID  = "0a007a00-7a00-4a00-8a00-7a007a007a00"
	swapID  = "05a9c00a-9c00-4a9c-8a9c-00a9c00a9c00"
	espType = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
)

var installedFstab = fmt.Sprintf(`# /etc/fstab: static file system information.
UUID=%s / ext4 errors=remount-ro 0 1
UUID=%s /boot ext4 defaults 0 2
UUID=%s /boot/efi vfat umask=0077 0 1
UUID=%s none swap sw 0 0
`, rootID, bootID, espID, swapID)

// Make puts the tar archive of a root on such a disk, in QCOW2. It needs no loop devices and, with fakeroot, no root.
func (i Installed) Make(ctx context.Context, rootfs, out string) error {
	dir, err := os.MkdirTemp(filepath.Dir(out), "installed-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "fstab"), []byte(installedFstab), 0o644); err != nil {
		return err
	}
	script := fmt.Sprintf(`set -e
cd %q
mkdir root boot
tar -xpf %q -C root
cp fstab root/etc/fstab
cp -a root/boot/. boot
rm -r root/boot/*
mke2fs -q -t ext4 -U %s -d boot boot.img %dM
mke2fs -q -t ext4 -U %s -d root root.img %dM
truncate -s %dM esp.img && mkfs.vfat -i %s esp.img >/dev/null
mmd -i esp.img ::EFI ::EFI/debian && mcopy -i esp.img fstab ::EFI/debian/grub.cfg
truncate -s %dM swap.img && mkswap -q -U %s swap.img
rm -r root boot
`, dir, rootfs, bootID, i.Boot, rootID, i.Root, i.ESP, strings.ReplaceAll(espID, "-", ""), i.Swap, swapID)
	shell := []string{"sh", "-c", script}
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
