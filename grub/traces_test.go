package grub_test

import (
	"bytes"
	"testing"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/sev"
)

// foreign is an entry of the secret table that is none of GRUB's business.
var foreign = sev.SecretEntry{GUID: guid.MustParse("e6f5a162-d67f-4750-a67c-5d065f2a9910"), Data: []byte("{}")}

// wipeKeys is what an agent does with the files that it was given.
const wipeKeys = `
mknod /dev/zero c 1 5
for file in $(ls /sealboot/key); do
	dd if=/dev/zero of=/sealboot/key/$file bs=1 count=$(stat -c %s /sealboot/key/$file) conv=notrunc 2>/dev/null || echo "guest: dd failed"
done
echo "guest: $(ls /sealboot/key | wc -l) files"
echo "guest: wiped"`

// checkTraces looks through all of a guest's memory once its agent has overwritten its files: the table's entries
// are deleted with their lengths kept, the entry of somebody else's is untouched, and no copy of a passphrase or of
// a receipt's key is left by GRUB, nor one masked as HMAC masks its keys (RFC 2104: 0x36 and 0x5c).
func checkTraces(t *testing.T, memory []byte, area uint32, table sev.SecretTable) {
	t.Helper()
	left := make(sev.SecretTable, len(table))
	secrets := 0
	for i, e := range table {
		if e.GUID == foreign.GUID {
			left[i] = e
			continue
		}
		left[i].Data = make([]byte, len(e.Data))
		secret := e.Data
		switch e.GUID {
		case pinGUID: // the disk's header, which anybody can read, yields it
			continue
		case sev.ReleaseReceipt:
			secret = secret[16:] // the key
		}
		secrets++
		for _, mask := range []byte{0, 0x36, 0x5c} {
			masked := bytes.Clone(secret)
			for i := range masked {
				masked[i] ^= mask
			}
			for at := 0; ; at++ {
				next := bytes.Index(memory[at:], masked)
				if next < 0 {
					break
				}
				at += next
				t.Errorf("the data of %v (mask %#x) stands at %#x, behind %q", e.GUID, mask, at, memory[max(0, at-128):at])
			}
		}
	}
	if secrets == 0 {
		t.Error("no secret was looked for")
	}
	want, err := left.Encode(3072)
	if err != nil {
		t.Fatal(err)
	}
	if got := memory[area:][:len(want)]; !bytes.Equal(got, want) {
		t.Errorf("the secret area holds\n%x, want\n%x", got, want)
	}
}
