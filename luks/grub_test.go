package luks

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/internal/tool"
)

// grubFstest runs GRUB's own reader of disks, with a passphrase typed in.
func grubFstest(t *testing.T, passphrase []byte, args ...string) (out []byte, err error) {
	t.Helper()
	var stdout bytes.Buffer
	err = tool.Run(t.Context(), tool.Command{
		Path: testtool.Program(t, "grub-fstest"), Args: append([]string{"-C"}, args...),
		Stdin: bytes.NewReader(append(bytes.Clone(passphrase), '\n')), Stdout: &stdout,
	})
	return stdout.Bytes(), err
}

// grubReads has GRUB open a disk and read its first sectors.
func grubReads(t *testing.T, disk string, passphrase []byte) []byte {
	t.Helper()
	out, err := grubFstest(t, passphrase, disk, "cat", "(crypto0)0+16")
	if err != nil {
		t.Fatal(err)
	}
	// The prompt and "Slot opened" come before the data, on standard output too.
	_, data, found := bytes.Cut(out, []byte("opened\n"))
	if !found {
		t.Fatalf("GRUB says %q", out)
	}
	return data
}

// TestGRUBOpensOurs has GRUB open what Format makes, and decrypt what our cipher encrypts.
func TestGRUBOpensOurs(t *testing.T) {
	opened := 0
	for _, sectorSize := range []int{512, 4096} {
		h, key, err := Format(Spec{KDF: MinimalPBKDF2, SectorSize: sectorSize}, testPassphrase, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewCipher(key, sectorSize, 0)
		if err != nil {
			t.Fatal(err)
		}
		plain := make([]byte, 1<<20)
		rand.Read(plain)
		encrypted := make([]byte, len(plain))
		if err := c.Encrypt(encrypted, plain, 0); err != nil {
			t.Fatal(err)
		}
		if got := grubReads(t, writeDisk(t, h, encrypted), testPassphrase); !bytes.Equal(got, plain[:16*512]) {
			t.Errorf("sectors of %d: GRUB reads other data", sectorSize)
		}
		opened++
	}
	if opened == 0 {
		t.Error("nothing opened")
	}
}

// TestGRUBAfterCrash is the premise of grubOpens: GRUB itself opens a disk that lost power
// between any two writes.
func TestGRUBAfterCrash(t *testing.T) {
	whole := newCrashable(t)
	start := bytes.Clone(whole.bytes)
	whole.writes = nil
	change := changes["change A to C"]
	if err := change.do(whole.read(t), whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole.writes {
		d := &crashable{bytes: bytes.Clone(start), left: n}
		if err := change.do(d.read(t), d); !errors.Is(err, errPower) {
			t.Fatal(err)
		}
		passphrase := passA
		if grubOpens(t, d.bytes) == change.after {
			passphrase = passC
		}
		disk := writeFile(t, "disk", d.bytes)
		if len(grubReads(t, disk, passphrase)) != 16*512 {
			t.Errorf("after write %d GRUB does not open the disk", n)
		}
		os.Remove(disk)
	}
	if len(whole.writes) < 6 {
		t.Errorf("only %d writes", len(whole.writes))
	}
}
