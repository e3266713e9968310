package grub_test

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/grub"
	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/sev"
)

// kernel gives the fetched Debian kernel and its version.
func kernel(t testing.TB) (vmlinuz []byte, version string) {
	t.Helper()
	deb := testtool.Deb(t, "linux-image-*")
	archive := tar.NewReader(strings.NewReader(testtool.Output(t, testtool.Program(t, "dpkg-deb"), "--fsys-tarfile", deb)))
	for {
		h, err := archive.Next()
		if err != nil {
			t.Fatalf("%s: no kernel: %v", deb, err)
		}
		if v, ok := strings.CutPrefix(path.Base(h.Name), "vmlinuz-"); ok {
			if vmlinuz, err = io.ReadAll(archive); err != nil {
				t.Fatal(err)
			}
			return vmlinuz, v
		}
	}
}

// cpio packs an initramfs (newc) of files by path, with the folders that they need.
func cpio(files ...[2]string) []byte {
	var out bytes.Buffer
	seen := map[string]bool{}
	add := func(name string, mode int, content string) {
		fmt.Fprintf(&out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			len(seen)+1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
		out.Write(make([]byte, -out.Len()&3))
		out.WriteString(content)
		out.Write(make([]byte, -out.Len()&3))
	}
	for _, f := range files {
		for i, c := range f[0] {
			if dir := f[0][:i]; c == '/' && !seen[dir] {
				seen[dir] = true
				add(dir, 0o40755, "")
			}
		}
		seen[f[0]] = true
		add(f[0], 0o100755, f[1])
	}
	add("TRAILER!!!", 0, "")
	return out.Bytes()
}

// guest is an initramfs whose agent says what it was given, and runs more.
func guest(t testing.TB, more string) []byte {
	t.Helper()
	busybox, err := os.ReadFile(testtool.File(t, "bin/busybox", "usr/bin/busybox"))
	if err != nil {
		t.Fatal(err)
	}
	return cpio([2]string{"bin/busybox", string(busybox)}, [2]string{"sealboot/agent", `#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir /proc && mount -t proc proc /proc
echo "guest: version $(uname -r)"
echo "guest: command line $(cat /proc/cmdline)"
for file in $(ls /sealboot/key); do
	echo "guest: $file $(sha256sum </sealboot/key/$file)"
done
cat /distribution 2>/dev/null
` + more + `
poweroff -f
`})
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// TestBoot boots a real kernel from an encrypted disk. What the guest prints, only a boot
// that got the right secrets can know. Afterwards no trace of them is in memory, and what the
// table holds for others stands there as it was.
func TestBoot(t *testing.T) {
	vmlinuz, version := kernel(t)
	passphrase := slices.Concat([]byte("every kind of byte \x00\xff\n"), make([]byte, 24))
	rand.Read(passphrase[24:])
	other, receipt := make([]byte, 40), make([]byte, 48)
	rand.Read(other)
	rand.Read(receipt)
	d := makeDisk(t, testDiskUUID, passphrase,
		file("/boot/vmlinuz-"+version, vmlinuz),
		file("/boot/initrd.img-"+version, cpio([2]string{"distribution", "guest: the distribution's initrd is there\n"})),
		file("/boot/sealboot/initramfs-"+version, guest(t, wipeKeys)),
		file("/boot/vmlinuz-9.9.9", []byte("a newer kernel, but no initramfs")),
		file("/boot/sealboot/initramfs-9.9.8", []byte("an initramfs, but no kernel")))
	efi := build(t, grub.Config{DiskUUID: d.uuid, Append: "console=ttyS0 quiet  panic=-1"})
	entry := func(id guid.GUID, data []byte) sev.SecretEntry { return sev.SecretEntry{GUID: id, Data: data} }
	pin := entry(pinGUID, d.pin[:])
	for _, c := range []struct {
		name  string
		table sev.SecretTable
		says  string // which passphrase it was
		used  string
	}{
		{"one passphrase", sev.SecretTable{entry(passphraseGUID, passphrase), foreign, pin}, "", "current"},
		{"changed to the disk's", sev.SecretTable{entry(passphraseGUID, passphrase), entry(sev.PreviousPassphrase, other), pin, entry(sev.ReleaseReceipt, receipt), foreign},
			"the disk " + d.uuid + " was opened by the new passphrase", "current"},
		{"changed from the disk's", sev.SecretTable{entry(passphraseGUID, other), entry(sev.PreviousPassphrase, passphrase), pin, entry(sev.ReleaseReceipt, receipt), foreign},
			"the disk " + d.uuid + " was opened by the previous passphrase", "previous"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table, err := c.table.Encode(3072)
			if err != nil {
				t.Fatal(err)
			}
			ram := filepath.Join(t.TempDir(), "ram")
			m := machine{efi: efi, table: table, disks: []string{d.path},
				args: []string{"-object", "memory-backend-file,id=ram,size=512M,share=on,mem-path=" + ram, "-machine", "memory-backend=ram"}}
			console := m.run(t)
			want := []string{
				"passing over kernel 9.9.9, which has no /boot/sealboot/initramfs-9.9.9",
				"disk unlocked, starting " + version,
			}
			lines := []string{
				"guest: version " + version,
				"guest: command line BOOT_IMAGE=(crypto0)/boot/vmlinuz-" + version + " root=/dev/mapper/sealboot-root rdinit=/sealboot/agent sealboot.disk=" + d.uuid + " ro nohibernate systemd.gpt_auto=no systemd.import_credentials=no console=ttyS0 quiet panic=-1\r",
				"guest: passphrase " + sum(passphrase),
				"guest: header-pin " + sum(d.pin[:]),
				"guest: used " + sum([]byte(c.used)),
				"guest: the distribution's initrd is there",
				"guest: wiped",
			}
			files := 3
			if c.says != "" {
				want = slices.Insert(want, 0, c.says)
				lines = append(lines, "guest: receipt "+sum(receipt))
				files++
			}
			if got := said(console); !slices.Equal(got, want) {
				t.Errorf("sealboot said %q, want %q", got, want)
			}
			for _, want := range lines {
				if !strings.Contains(console, want) {
					t.Errorf("the console has no %q; its end:\n%s", want, tail(console))
				}
			}
			if strings.Contains(console, "guest: dd failed") || !strings.Contains(console, fmt.Sprintf("guest: %d files\r", files)) {
				t.Errorf("the guest did not wipe its files, or has not %d; the console's end:\n%s", files, tail(console))
			}
			memory, err := os.ReadFile(ram)
			if err != nil {
				t.Fatal(err)
			}
			_, area := firmware(t, efi)
			checkTraces(t, memory, area.Base, c.table)
		})
	}
}

// TestNoSecretArea starts GRUB on the firmware of an ordinary machine.
func TestNoSecretArea(t *testing.T) {
	code := testtool.File(t, "usr/share/ovmf/OVMF.fd", "usr/share/OVMF/OVMF_CODE_4M.fd")
	efi := filepath.Join(t.TempDir(), "grub.efi")
	if err := os.WriteFile(efi, build(t, grub.Config{}), 0o600); err != nil {
		t.Fatal(err)
	}
	console := qemu(t, "", "-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+code, "-kernel", efi)
	if got, want := said(console), []string{"stopped: no secret: this firmware has no secret area"}; !slices.Equal(got, want) {
		t.Errorf("sealboot said %q, want %q; the console's end:\n%s", got, want, tail(console))
	}
}

// TestStops spoils one thing of a machine that unlocks its disk, and expects one line with
// the reason, and the machine off.
func TestStops(t *testing.T) {
	passphrase := []byte("the right passphrase")
	other := "99999999-8888-4777-a666-555555555555"
	d := makeDisk(t, testDiskUUID, passphrase, file("/boot/vmlinuz-1.0", []byte("no kernel at all")), file("/boot/sealboot/initramfs-1.0", []byte("x")))
	wrongDisk := makeDisk(t, other, []byte("the right passphrase"))
	plain := build(t, grub.Config{})
	good := machine{efi: build(t, grub.Config{DiskUUID: testDiskUUID}), table: secrets(t, passphrase, d.pin), disks: []string{d.path}}
	withDisk := func(files ...diskFile) func(*machine) {
		return func(m *machine) { m.disks[0] = makeDisk(t, testDiskUUID, passphrase, files...).path }
	}
	const notAccepted = "the header of the disk " + testDiskUUID + " is not accepted: LUKS2 header: a value that is not accepted"
	editDisk := func(old, new string) func(*machine) {
		return func(m *machine) {
			all, err := os.ReadFile(m.disks[0])
			if err != nil || !bytes.Contains(all, []byte(old)) || len(old) != len(new) {
				t.Errorf("%q is not on the disk: %v", old, err)
			}
			m.disks[0] = filepath.Join(t.TempDir(), "disk.raw")
			if err := os.WriteFile(m.disks[0], bytes.ReplaceAll(all, []byte(old), []byte(new)), 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	edit := func(old, new string) func(*machine) {
		return func(m *machine) {
			if n := bytes.Count(m.efi, []byte(old)); n != 1 || len(old) != len(new) {
				t.Errorf("%q stands %d times in the EFI application", old, n)
			}
			m.efi = bytes.Replace(m.efi, []byte(old), []byte(new), 1)
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(*machine)
		want  string // what sealboot says, behind "stopped: "
	}{
		{"the good case up to its kernel", func(*machine) {}, "kernel 1.0: "},
		{"no secret", func(m *machine) { m.table = nil }, "no secret: nothing was put into the secret area of this machine"},
		{"no secret and keys pressed", func(m *machine) { m.table, m.keys = nil, "c\x1b[14~e\x1b" }, "no secret: nothing was put into the secret area of this machine"},
		{"length of an entry", func(m *machine) { m.table[20+16] = 0 }, "malformed secret table: the length of an entry does not fit the table"},
		{"wrong passphrase", func(m *machine) { m.table[40] ^= 1 }, "wrong passphrase: it does not open the disk " + testDiskUUID},
		{"wrong new and previous passphrase", func(m *machine) {
			m.table = encodeTable(t, sev.SecretEntry{GUID: passphraseGUID, Data: []byte("x")}, sev.SecretEntry{GUID: sev.PreviousPassphrase, Data: []byte("y")}, sev.SecretEntry{GUID: pinGUID, Data: d.pin[:]})
		}, "wrong passphrase: neither the new nor the previous one opens the disk " + testDiskUUID},
		{"receipt of another length", func(m *machine) {
			m.table = encodeTable(t, sev.SecretEntry{GUID: passphraseGUID, Data: passphrase}, sev.SecretEntry{GUID: pinGUID, Data: d.pin[:]}, sev.SecretEntry{GUID: sev.ReleaseReceipt, Data: passphrase})
		}, "malformed secret table: the receipt is not 48 bytes long"},
		{"header with a null cipher", editDisk("aes-xts-plain64", "cipher_null-ecb"), notAccepted},
		{"header that overflows GRUB's stack", editDisk(`"key_size":64`, `"key_size":99`), notAccepted},
		{"no disk", func(m *machine) { m.disks = nil }, "no disk: none is a LUKS2 disk with the UUID " + testDiskUUID},
		{"disk of another image", func(m *machine) { m.disks[0] = wrongDisk.path }, "no disk: none is a LUKS2 disk with the UUID " + testDiskUUID + " (there is one with another)"},
		{"disk twice", func(m *machine) { m.disks = append(m.disks, d.path) }, "2 disks are LUKS2 disks with the UUID " + testDiskUUID + ", and only one may be"},
		{"two disks where any would do", func(m *machine) { m.disks, m.efi = append(m.disks, wrongDisk.path), plain }, "2 disks are LUKS2 disks, and only one may be"},
		{"one disk where any would do", func(m *machine) { m.efi = plain }, "kernel 1.0: "},
		{"no /boot/sealboot", withDisk(file("/boot/vmlinuz-1.0", nil)), "no kernel: /boot/sealboot: "},
		{"no initramfs", withDisk(file("/boot/vmlinuz-1.0", nil), file("/boot/sealboot/initramfs-1.1", nil)), "no kernel: 1.0 has no /boot/sealboot/initramfs-1.0"},
		{"no settings", edit("grub.cfg"+strings.Repeat("\x00", 92), "grub.cfh"+strings.Repeat("\x00", 92)), "settings: file `/grub.cfg' not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := good
			m.table, m.disks = bytes.Clone(good.table), slices.Clone(good.disks)
			c.spoil(&m)
			console := m.run(t)
			got := said(console)
			if len(got) != 1 || !strings.HasPrefix(got[0], "stopped: "+c.want) || strings.HasSuffix(c.want, "e") && got[0] != "stopped: "+c.want {
				t.Errorf("sealboot said %q, want one line %q; the console's end:\n%s", got, "stopped: "+c.want, tail(console))
			}
			if strings.Contains(console, "grub>") || strings.Contains(console, "rescue") || bytes.Contains([]byte(console), passphrase) {
				t.Errorf("a prompt, or the passphrase:\n%s", tail(console))
			}
		})
	}
}
