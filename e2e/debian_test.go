package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/e2e/lab"
	"github.com/sealboot/sealboot/internal/testtool"
)

// systemdLimit bounds one boot of a systemd system, with a kernel's installation: 40 to 120 seconds under emulation.
const systemdLimit = 15 * time.Minute

// full says whether the boots of whole distributions are asked for (make test-full).
func full(t *testing.T) {
	t.Helper()
	if os.Getenv("SEALBOOT_FULL") != "1" {
		t.Skip("a whole distribution: make test-full")
	}
	testtool.Program(t, "mmdebstrap")
}

// debian makes a system as a tar archive.
func (s *stage) debian(t *testing.T, d lab.Debian) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rootfs.tar")
	if err := d.Make(t.Context(), path, s.secret); err != nil {
		t.Fatal(err)
	}
	return path
}

// sealed makes and registers an image.
func (s *stage) sealed(t *testing.T, name, source, size string) lab.Image {
	t.Helper()
	image, seconds, err := s.Build(t.Context(), name, source, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(image.Dir) })
	t.Logf("built in %v", seconds)
	if err := s.Register(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	return image
}

// wantSystem boots, and wants a proof, and a system in which nothing failed, with its root read-write and a login on the
// console. It gives what the guest said of itself.
func (s *stage) wantSystem(t *testing.T, image lab.Image) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), systemdLimit)
	defer cancel()
	o, err := s.Launch(ctx, lab.Machine{Image: image, Server: s.server.URL, QEMU: s.pushyHost(t), OnConsole: func(line, _ string) {
		if strings.Contains(line, "guest: ") {
			t.Log(line)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if want := lab.WantProof(o.Nonce, s.secret); o.Proof != want || o.Code != 0 {
		t.Fatalf("proof %q, want %q; exit code %d; console:\n%s%s", o.Proof, want, o.Code, o.Console, o.Stderr)
	}
	said := map[string]string{}
	for _, m := range guestLine.FindAllStringSubmatch(o.Console, -1) {
		said[m[1]] = strings.TrimSpace(m[2])
	}
	t.Logf("after %v: %q", o.Spent.Round(time.Second), said)
	if said["state"] != "running, failed:" || !strings.HasPrefix(said["root"], "/dev/mapper/sealboot-root") || !strings.HasPrefix(said["options"], "rw,") {
		t.Errorf("the system is in the state %q; console:\n%s", said, o.Console)
	}
	if said["host"] != "0 files, 0 swap areas" {
		t.Errorf("the host had a say: %s", said["host"])
	}
	if !strings.Contains(o.Console, "login:") {
		t.Error("there was no login on the console")
	}
	return said
}

// pushyHost is a host that gives systemd credentials in SMBIOS strings (systemd.system-credentials(7)): a file to be made, which Debian 12's
// systemd does, and a command of a unit, which Debian 13's runs. The second did before the kernel's command line said no.
func (s *stage) pushyHost(t *testing.T) string {
	t.Helper()
	path, script := filepath.Join(t.TempDir(), "qemu"), "#!/bin/sh\nexec "+filepath.Join(s.Bin, "qemu-sev")+` "$@"`
	for name, value := range map[string]string{
		"tmpfiles.extra": "f /etc/from-the-host 0644 root root - x\n", "systemd.unit-dropin.lab.service": "[Service]\nExecStartPre=touch /run/from-the-host\n",
	} {
		script += " -smbios type=11,value=io.systemd.credential.binary:" + name + "=" + base64.StdEncoding.EncodeToString([]byte(value))
	}
	if err := os.WriteFile(path, []byte(script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

var guestLine = regexp.MustCompile(`(?m)guest: (\w+),? (.*)$`)

// TestDebian boots systems of Debian's from the encrypted disk, and again after they upgraded their kernel.
func TestDebian(t *testing.T) {
	full(t)
	s := theStage(t)
	older := testtool.Deb(t, "linux-image-*-cloud-amd64")
	for name, system := range map[string]lab.Debian{
		"12":          {Suite: "bookworm", Packages: []string{"initramfs-tools"}, Kernel: older, Upgrade: true},
		"13":          {Suite: "trixie", Packages: []string{"initramfs-tools"}, Kernel: older, Upgrade: true},
		"13 dracut":   {Suite: "trixie", Packages: []string{"dracut"}, Kernel: older, Upgrade: true},
		"12 packaged": {Suite: "bookworm", Packages: []string{"initramfs-tools", "cryptsetup-initramfs", "grub-efi-amd64", "grub-pc-bin"}},
	} {
		t.Run(name, func(t *testing.T) {
			image := s.sealed(t, "debian-"+strings.ReplaceAll(name, " ", "-"), s.debian(t, system), "3G")
			if system.Upgrade {
				s.wantUpgrade(t, image)
			} else {
				s.wantSystem(t, image)
			}
		})
	}
}

// wantUpgrade boots a system that upgrades its kernel, and wants the next boot to be of that kernel. It gives what the guest said
// of itself each time.
func (s *stage) wantUpgrade(t *testing.T, image lab.Image) (first, second map[string]string) {
	t.Helper()
	first = s.wantSystem(t, image)
	if !strings.Contains(first["upgraded"], "initramfs-"+first["kernel"]) {
		t.Fatalf("the guest did not upgrade its kernel: %q", first)
	}
	second = s.wantSystem(t, image)
	if first["kernel"] == second["kernel"] || !strings.Contains(first["upgraded"], "initramfs-"+second["kernel"]) {
		t.Errorf("first kernel %s, then %s", first["kernel"], second["kernel"])
	}
	return first, second
}

// TestDebianForeign boots systems whose roots GRUB does not read, from disk images put on larger disks, and again after they upgraded
// their kernel: /boot in the root or on a partition of its own, initramfs-tools or dracut.
func TestDebianForeign(t *testing.T) {
	full(t)
	s := theStage(t)
	older := testtool.Deb(t, "linux-image-*-cloud-amd64")
	for name, c := range map[string]struct {
		disk   lab.Installed
		system lab.Debian
	}{
		"xfs":        {lab.Installed{ESP: 64, Root: 1400, Swap: 64, Kind: "xfs"}, lab.Debian{Suite: "bookworm", Packages: []string{"initramfs-tools", "xfsprogs"}}},
		"btrfs":      {lab.Installed{ESP: 64, Boot: 256, Root: 1400, Swap: 64, Kind: "btrfs"}, lab.Debian{Suite: "trixie", Packages: []string{"initramfs-tools", "btrfs-progs"}}},
		"xfs dracut": {lab.Installed{ESP: 64, Boot: 256, Root: 1400, Swap: 64, Kind: "xfs"}, lab.Debian{Suite: "trixie", Packages: []string{"dracut", "xfsprogs"}}},
	} {
		t.Run(name, func(t *testing.T) {
			c.system.Kernel, c.system.Upgrade = older, true
			disk := filepath.Join(t.TempDir(), "installed.qcow2")
			if err := c.disk.Make(t.Context(), s.debian(t, c.system), disk); err != nil {
				t.Fatal(err)
			}
			image := s.sealed(t, "debian-on-"+strings.ReplaceAll(name, " ", "-"), disk, "5G")
			first, second := s.wantUpgrade(t, image)
			for _, said := range []map[string]string{first, second} {
				var blocks int
				if _, err := fmt.Sscan(said["blocks"], &blocks); err != nil || blocks < 3500 {
					t.Errorf("the root has %q MiB: it did not grow to its disk of 5 GiB less the boot volume", said["blocks"])
				}
				if !strings.HasPrefix(said["kind"], c.disk.Kind+" /") || !strings.HasSuffix(said["kind"], ", boot /dev/mapper/sealboot-boot ext4") {
					t.Errorf("file systems: %s", said["kind"])
				}
			}
		})
	}
}

// TestDebianDisk boots a system from a disk image with partitions for EFI, /boot, swap and root, put on a larger disk.
func TestDebianDisk(t *testing.T) {
	full(t)
	s := theStage(t)
	disk := filepath.Join(t.TempDir(), "installed.qcow2")
	rootfs := s.debian(t, lab.Debian{Suite: "trixie", Packages: []string{"initramfs-tools"}})
	if err := (lab.Installed{ESP: 64, Boot: 256, Root: 1200, Swap: 64}).Make(t.Context(), rootfs, disk); err != nil {
		t.Fatal(err)
	}
	image := s.sealed(t, "debian-disk", disk, "4G")
	for range 2 {
		said := s.wantSystem(t, image)
		var blocks int
		if _, err := fmt.Sscan(said["blocks"], &blocks); err != nil || blocks < 3500 {
			t.Errorf("the root has %q MiB: it did not grow to its disk of 4 GiB", said["blocks"])
		}
	}
}
