package grub_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/grub"
	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/sev"
)

// TestNoTraces looks through all of a guest's memory once its agent has overwritten the two
// files that it was given: the table's entries are deleted with their lengths kept, an entry
// of somebody else's is untouched, and no copy of the passphrase is left by GRUB.
func TestNoTraces(t *testing.T) {
	vmlinuz, version := kernel(t)
	random := make([]byte, 32)
	rand.Read(random)
	passphrase := []byte(hex.EncodeToString(random))
	agent := guest(t, `
mknod /dev/zero c 1 5
for file in passphrase header-pin; do
	dd if=/dev/zero of=/sealboot/key/$file bs=1 count=$(stat -c %s /sealboot/key/$file) conv=notrunc 2>/dev/null || echo "guest: dd failed"
done
echo "guest: wiped"`)
	d := makeDisk(t, testDiskUUID, passphrase, file("/boot/vmlinuz-"+version, vmlinuz), file("/boot/sealboot/initramfs-"+version, agent))
	foreign := sev.SecretEntry{GUID: guid.MustParse("e6f5a162-d67f-4750-a67c-5d065f2a9910"), Data: []byte("{}")}
	table, err := sev.SecretTable{{GUID: passphraseGUID, Data: passphrase}, foreign, {GUID: pinGUID, Data: d.pin[:]}}.Encode(3072)
	if err != nil {
		t.Fatal(err)
	}
	ram := filepath.Join(t.TempDir(), "ram")
	m := machine{
		efi: build(t, grub.Config{DiskUUID: d.uuid, Append: "console=ttyS0 quiet"}), table: table, disks: []string{d.path},
		args: []string{"-object", "memory-backend-file,id=ram,size=512M,share=on,mem-path=" + ram, "-machine", "memory-backend=ram"},
	}
	console := m.run(t)
	if !strings.Contains(console, "guest: passphrase "+sum(passphrase)) || !strings.Contains(console, "guest: wiped") || strings.Contains(console, "guest: dd failed") {
		t.Fatalf("the guest did not get the passphrase, or did not wipe it:\n%s", tail(console))
	}
	memory, err := os.ReadFile(ram)
	if err != nil {
		t.Fatal(err)
	}
	_, area := firmware(t, m.efi)

	want, err := sev.SecretTable{{Data: make([]byte, len(passphrase))}, foreign, {Data: make([]byte, len(d.pin))}}.Encode(3072)
	if err != nil {
		t.Fatal(err)
	}
	if got := memory[area.Base:][:len(want)]; !bytes.Equal(got, want) {
		t.Errorf("the secret area holds\n%x, want\n%x", got, want)
	}
	for rest, from := memory, 0; ; {
		at := bytes.Index(rest, passphrase)
		if at < 0 {
			break
		}
		t.Errorf("the passphrase stands at %#x: …%q…", from+at, memory[max(0, from+at-128):from+at+len(passphrase)+64])
		rest, from = rest[at+1:], from+at+1
	}
}
