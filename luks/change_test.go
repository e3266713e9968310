package luks

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

var (
	passA = []byte("passphrase a, of no particular length")
	passB = []byte("passphrase b")
	passC = []byte("passphrase c, longer than the others")
)

// changes are what the crash tests interrupt, on a device that opens with A and B.
var changes = map[string]struct {
	do     func(h *Header, d Disk) error
	before string
	after  string
}{
	"add C": {func(h *Header, d Disk) error {
		_, err := h.AddKey(d, passA, passC, MinimalPBKDF2, rand.Reader)
		return err
	}, "AB", "ABC"},
	"change A to C": {func(h *Header, d Disk) error {
		_, err := h.ChangeKey(d, passA, passC, MinimalPBKDF2, rand.Reader)
		return err
	}, "AB", "BC"},
	"remove A": {func(h *Header, d Disk) error {
		_, err := h.RemoveKey(d, passA, rand.Reader)
		return err
	}, "AB", "B"},
}

// TestChanges makes each change whole.
func TestChanges(t *testing.T) {
	for name, change := range changes {
		d := newCrashable(t)
		h := d.read(t)
		pin, sequence := h.Pin(), h.Status().Sequence
		before := d.bytes
		d.bytes = bytes.Clone(d.bytes)
		if err := change.do(h, d); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again := d.read(t)
		if s := again.Status(); s.Other != nil || s.Sequence != sequence+1 || s != h.Status() {
			t.Errorf("%s: status %+v on the device, %+v in memory", name, s, h.Status())
		}
		if got := opensWith(t, again); got != change.after || opensWith(t, h) != got {
			t.Errorf("%s: opens with %s, want %s", name, got, change.after)
		}
		if again.Pin() != pin || !bytes.Equal(before[2<<20:], d.bytes[2<<20:]) {
			t.Errorf("%s: pin or data changed", name)
		}
		if !d.synced {
			t.Errorf("%s: ends without a sync", name)
		}
		// What a slot that is gone held must be gone.
		for _, old := range mustRead(t, before).meta.slots {
			kept := slices.ContainsFunc(again.Slots(), func(s Slot) bool { return s.Offset == old.offset })
			if same := bytes.Equal(d.bytes[old.offset:][:4096], old.material[:4096]); same != kept {
				t.Errorf("%s: area at %d: kept in the header %v, on the device %v", name, old.offset, kept, same)
			}
		}
	}
}

func mustRead(t testing.TB, b []byte) *Header {
	t.Helper()
	h, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestLastKey has the last slot refused.
func TestLastKey(t *testing.T) {
	d := newCrashable(t)
	h := d.read(t)
	if slot, err := h.RemoveKey(d, passB, rand.Reader); err != nil || slot != 1 {
		t.Fatalf("slot %d, %v", slot, err)
	}
	before := bytes.Clone(d.bytes)
	if slot, err := h.RemoveKey(d, passA, rand.Reader); !errors.Is(err, ErrLastKey) || slot != 0 {
		t.Errorf("RemoveKey: %v", err)
	}
	if err := h.RemoveSlot(d, 0, rand.Reader); !errors.Is(err, ErrLastKey) {
		t.Errorf("RemoveSlot: %v", err)
	}
	if err := h.RemoveSlot(d, 5, rand.Reader); !errors.Is(err, ErrNoSlot) {
		t.Errorf("RemoveSlot of none: %v", err)
	}
	if _, err := h.RemoveKey(d, passC, rand.Reader); !errors.Is(err, ErrNoKey) {
		t.Errorf("RemoveKey with a wrong passphrase: %v", err)
	}
	if !bytes.Equal(before, d.bytes) {
		t.Error("a refusal wrote to the device")
	}
}

// TestNoSpace fills all room for key slots.
func TestNoSpace(t *testing.T) {
	d := newCrashable(t)
	h := d.read(t)
	var err error
	added := 0
	for ; added < 10; added++ {
		if _, err = h.AddKey(d, passA, passC, MinimalPBKDF2, rand.Reader); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrNoSpace) || added != 6 { // 8 areas fit between the copies and 2 MiB, two are taken
		t.Errorf("%d added, then %v", added, err)
	}
	if got := opensWith(t, d.read(t)); got != "ABC" {
		t.Errorf("opens with %s", got)
	}
	if slot, err := h.ChangeKey(d, passB, passC, MinimalPBKDF2, rand.Reader); !errors.Is(err, ErrNoSpace) || slot != 0 {
		t.Errorf("ChangeKey without room: slot %d, %v", slot, err)
	}
}

// TestChangeRefuses has wrong passphrases and costs refused before anything is written.
func TestChangeRefuses(t *testing.T) {
	d := newCrashable(t)
	h := d.read(t)
	before := bytes.Clone(d.bytes)
	kdf := KDF{Type: PBKDF2, Hash: "sha256", Iterations: 1}
	for name, test := range map[string]struct {
		passphrase, added []byte
		kdf               KDF
		want              error
	}{
		"wrong passphrase":     {passC, passC, MinimalPBKDF2, ErrNoKey},
		"no passphrase":        {nil, passC, MinimalPBKDF2, ErrEmptyPassphrase},
		"empty new passphrase": {passA, nil, MinimalPBKDF2, ErrEmptyPassphrase},
		"cost":                 {passA, passC, kdf, ErrCost},
		"argon2i":              {passA, passC, KDF{Type: Argon2i, Time: 4, MemoryKiB: 64, Parallel: 1}, ErrUnsupported},
		"no KDF":               {passA, passC, KDF{}, ErrUnsupported},
	} {
		if _, err := h.AddKey(d, test.passphrase, test.added, test.kdf, rand.Reader); !errors.Is(err, test.want) {
			t.Errorf("%s: AddKey: %v, want %v", name, err, test.want)
		}
		if _, err := h.ChangeKey(d, test.passphrase, test.added, test.kdf, rand.Reader); !errors.Is(err, test.want) {
			t.Errorf("%s: ChangeKey: %v, want %v", name, err, test.want)
		}
	}
	if _, err := h.AddKey(d, passA, passC, MinimalPBKDF2, bytes.NewReader(nil)); !errors.Is(err, io.EOF) {
		t.Errorf("no random bytes: %v", err)
	}
	if !bytes.Equal(before, d.bytes) {
		t.Error("a refusal wrote to the device")
	}
}

// TestChangesForeign changes a header that cryptsetup made, with a token in it, which
// cryptsetup then reads.
func TestChangesForeign(t *testing.T) {
	cryptsetup := testtool.Program(t, "cryptsetup")
	disk, keyA, keyB := writeFile(t, "disk", nil), writeFile(t, "a", passA), writeFile(t, "b", passB)
	if err := os.Truncate(disk, 18<<20); err != nil {
		t.Fatal(err)
	}
	pbkdf2 := []string{"-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", keyA}
	testtool.Output(t, cryptsetup, append(pbkdf2, "luksFormat", "--type", "luks2", disk)...)
	testtool.Output(t, cryptsetup, append(pbkdf2, "luksAddKey", disk, keyB)...)
	token := writeFile(t, "token", []byte(`{"type":"other","keyslots":["0","1"],"number":1.50,"text":"a<b\u0001"}`))
	testtool.Output(t, cryptsetup, "token", "import", "--json-file", token, disk)
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := readFile(t, disk)
	if slot, err := h.RemoveKey(f, passB, rand.Reader); err != nil || slot != 1 {
		t.Fatalf("slot %d, %v", slot, err)
	}
	if slot, err := h.ChangeKey(f, passA, passC, KDF{Type: Argon2id, Time: 4, MemoryKiB: 1024, Parallel: 2}, rand.Reader); err != nil || slot != 0 {
		t.Fatalf("slot %d, %v", slot, err)
	}
	if slot, err := h.AddKey(f, passC, passB, MinimalPBKDF2, rand.Reader); err != nil || slot != 1 {
		t.Fatalf("slot %d, %v", slot, err)
	}
	for _, passphrase := range [][]byte{passB, passC} {
		testtool.Output(t, cryptsetup, "open", "--test-passphrase", "--key-file", writeFile(t, "key", passphrase), disk)
	}
	exported := testtool.Output(t, cryptsetup, "token", "export", "--token-id", "0", disk)
	for _, want := range []string{`"keyslots":["0"]`, `"number":1.50`, `a<b\u0001`} {
		if !bytes.Contains([]byte(exported), []byte(want)) {
			t.Errorf("the token is now %s, want %s in it", exported, want)
		}
	}
	testtool.Output(t, cryptsetup, "luksRemoveKey", "-q", disk, writeFile(t, "c", passC))
	if got := opensWith(t, readFile(t, disk)); got != "B" {
		t.Errorf("opens with %s", got)
	}
}

// TestInstall writes a new header over an old one of another layout, of which nothing may be
// found again.
func TestInstall(t *testing.T) {
	d := &crashable{bytes: bytes.Repeat([]byte{0xaa}, crashDisk), left: -1}
	old, _, err := Format(Spec{KDF: MinimalPBKDF2, DataOffset: 2 << 20}, passA, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range old.copies {
		c.size = 64 << 10
	}
	old.copies[Secondary].offset, old.meta.jsonSize, old.meta.keyslotsSize = 64<<10, 60<<10, 1<<20
	old.meta.slots[0].offset = 128 << 10
	if err := old.Install(d); err != nil {
		t.Fatal(err)
	}
	clear(d.bytes[:binarySize])
	if got := opensWith(t, d.read(t)); got != "A" {
		t.Fatalf("the old header's second copy opens with %q", got)
	}
	h, _, err := Format(Spec{KDF: MinimalPBKDF2, DataOffset: 2 << 20}, passB, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Install(d); err != nil {
		t.Fatal(err)
	}
	image, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := append(append(image, make([]byte, 2<<20-len(image))...), bytes.Repeat([]byte{0xaa}, crashDisk-2<<20)...)
	if !bytes.Equal(d.bytes, want) || !d.synced {
		t.Error("something else than the header, zeros up to the data, and the data is there")
	}
	clear(d.bytes[:binarySize])
	if again := d.read(t); again.UUID() != h.UUID() || opensWith(t, again) != "B" {
		t.Error("the second copy is not the new one")
	}
}
