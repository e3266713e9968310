package grub_test

import (
	"bytes"
	"testing"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/luks"
	"github.com/sealboot/sealboot/sev"
)

// foreign is an entry of the secret table that is none of GRUB's business.
var foreign = sev.SecretEntry{GUID: guid.MustParse("e6f5a162-d67f-4750-a67c-5d065f2a9910"), Data: []byte("{}")}

// wipeKeys is what an agent does with the files that it was given.
const wipeKeys = `
mknod /dev/zero c 1 5
for file in passphrase header-pin; do
	dd if=/dev/zero of=/sealboot/key/$file bs=1 count=$(stat -c %s /sealboot/key/$file) conv=notrunc 2>/dev/null || echo "guest: dd failed"
done
echo "guest: wiped"`

// checkTraces looks through all of a guest's memory once its agent has overwritten the two
// files: the table's entries are deleted with their lengths kept, the entry of somebody
// else's is untouched, and no copy of the passphrase is left by GRUB.
func checkTraces(t *testing.T, memory []byte, area uint32, passphrase []byte, pin luks.Pin) {
	t.Helper()
	want, err := sev.SecretTable{{Data: make([]byte, len(passphrase))}, foreign, {Data: make([]byte, len(pin))}}.Encode(3072)
	if err != nil {
		t.Fatal(err)
	}
	if got := memory[area:][:len(want)]; !bytes.Equal(got, want) {
		t.Errorf("the secret area holds\n%x, want\n%x", got, want)
	}
	for at := 0; ; at++ {
		next := bytes.Index(memory[at:], passphrase)
		if next < 0 {
			return
		}
		at += next
		t.Errorf("the passphrase stands at %#x, behind %q", at, memory[max(0, at-128):at])
	}
}
