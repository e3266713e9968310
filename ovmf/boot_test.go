package ovmf

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/testtool"
)

// grubPrinting makes a real GRUB whose embedded configuration prints a line on the serial
// console and halts.
func grubPrinting(t *testing.T, line string) []byte {
	t.Helper()
	dir := t.TempDir()
	config, output := filepath.Join(dir, "grub.cfg"), filepath.Join(dir, "grub.efi")
	text := "serial --unit=0 --speed=115200\nterminal_output serial\necho \"" + line + "\"\nhalt\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	modules := filepath.Dir(testtool.File(t, "usr/lib/grub/x86_64-efi/moddep.lst"))
	testtool.Output(t, testtool.Program(t, "grub-mkimage"), "-d", modules, "-O", "x86_64-efi", "-c", config, "-p", "(memdisk)",
		"-o", output, "serial", "terminal", "echo", "halt", "normal")
	grub, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	return grub
}

// boot starts a machine with the firmware as its read-only flash and reads the serial console until
// one of the texts comes. It gives all that was read.
func boot(t *testing.T, firmware []byte, until ...string) string {
	t.Helper()
	return bootWith(t, firmware, nil, until...)
}

// bootWith is boot with more of QEMU's options.
func bootWith(t *testing.T, firmware []byte, options []string, until ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "firmware.fd")
	if err := os.WriteFile(file, firmware, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testtool.Program(t, "qemu-system-x86_64"), append([]string{"-machine", "q35,accel=tcg", "-cpu", "max", "-m", "256",
		"-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + file}, options...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cancel()
	var console strings.Builder
	buffer := make([]byte, 4096)
	for {
		n, err := out.Read(buffer)
		console.Write(buffer[:n])
		for _, text := range until {
			if strings.Contains(console.String(), text) {
				return console.String()
			}
		}
		if err != nil {
			said := console.String()
			t.Fatalf("the machine ended or hung before it said any of %q; QEMU: %s; console: %q", until, errs.String(), said[max(0, len(said)-1000):])
		}
	}
}

// TestBoot: the firmware starts the GRUB that was bundled, and no other. What GRUB prints nobody could know before.
func TestBoot(t *testing.T) {
	nonce := func() string {
		b := make([]byte, 8)
		rand.Read(b)
		return "sealboot-test-" + hex.EncodeToString(b)
	}
	const noGRUB = "No bootable option was found" // edk2 MdeModulePkg/Universal/BdsDxe
	first, second := nonce(), nonce()
	firmware := mustBundle(t, amdSev(t), grubPrinting(t, first))
	replaced := mustBundle(t, firmware, grubPrinting(t, second))
	for name, test := range map[string]struct {
		firmware        []byte
		want, unwelcome string
	}{
		"bundled":  {firmware, first, noGRUB},
		"replaced": {replaced, second, first},
		"twin":     {amdSev(t), noGRUB, "sealboot-test-"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			console := boot(t, test.firmware, test.want, test.unwelcome)
			if !strings.Contains(console, test.want) || strings.Contains(console, test.unwelcome) {
				t.Errorf("console: %q", console)
			}
		})
	}
}

// TestHostDisk is a host that attaches a disk with a boot loader on it, for the case that GRUB gives up before its module
// runs: too little memory is enough. Here GRUB's place is empty, as distributions ship it. Without the drivers of
// file systems the loader is not found; the twin that still has them shows that it would be.
func TestHostDisk(t *testing.T) {
	const noGRUB, line = "No bootable option was found", "sealboot-test-the-host's-loader"
	folder := t.TempDir()
	loader := filepath.Join(folder, "EFI", "BOOT", "BOOTX64.EFI")
	if err := os.MkdirAll(filepath.Dir(loader), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(loader, grubPrinting(t, line), 0o644); err != nil {
		t.Fatal(err)
	}
	disk := []string{"-drive", "if=none,id=d,format=raw,file=fat:rw:" + folder, "-device", "virtio-blk-pci,drive=d,bootindex=0"}
	without := func() []byte {
		tree, err := Unpack(amdSev(t))
		if err != nil {
			t.Fatal(err)
		}
		tree.takeOutFileSystems()
		packed, err := tree.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return packed
	}
	if console := bootWith(t, amdSev(t), disk, line, noGRUB); !strings.Contains(console, line) {
		t.Errorf("the twin did not start the host's loader; console: %q", console)
	}
	if console := bootWith(t, without(), disk, line, noGRUB); !strings.Contains(console, noGRUB) {
		t.Errorf("the host's loader ran; console: %q", console)
	}
	tree, err := Unpack(mustBundle(t, amdSev(t), efiApplication(0x1000, 'g')))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range tree.Packed() {
		for _, f := range v.Files {
			if slices.Contains(fileSystems, f.GUID) {
				t.Errorf("the bundled firmware still has file %v", f.GUID)
			}
		}
	}
}
