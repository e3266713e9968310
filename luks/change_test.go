package luks

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
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

const crashDisk = 4 << 20

// crashable is a device that loses power: after a number of writes, and in the middle of the next.
type crashable struct {
	bytes  []byte
	writes []int // lengths of the writes so far
	left   int   // writes until the power is lost; negative: never
	torn   int   // bytes of the write that is cut which still reach the device
	front  bool  // they are its first bytes; otherwise its last
	synced bool
}

var errPower = errors.New("power lost")

func (d *crashable) WriteAt(p []byte, at int64) (int, error) {
	if d.left == 0 {
		n := min(d.torn, len(p))
		if d.front {
			copy(d.bytes[at:], p[:n])
		} else {
			copy(d.bytes[int(at)+len(p)-n:], p[len(p)-n:])
		}
		d.torn = 0
		return 0, errPower
	}
	d.left--
	d.writes = append(d.writes, len(p))
	d.synced = false
	return copy(d.bytes[at:], p), nil
}

func (d *crashable) Sync() error {
	if d.left == 0 && d.torn == 0 {
		return nil
	}
	d.synced = true
	return nil
}

func (d *crashable) read(t testing.TB) *Header {
	t.Helper()
	h, err := Read(bytes.NewReader(d.bytes), int64(len(d.bytes)))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// opensWith lists which passphrases open the header.
func opensWith(t testing.TB, h *Header) (open string) {
	t.Helper()
	for i, passphrase := range [][]byte{passA, passB, passC} {
		_, _, err := h.Unlock(passphrase)
		if err == nil {
			open += string(rune('A' + i))
		} else if !errors.Is(err, ErrNoKey) {
			t.Fatal(err)
		}
	}
	return open
}

// newCrashable gives a device that opens with A and B.
func newCrashable(t testing.TB) *crashable {
	t.Helper()
	h, _, err := Format(Spec{KDF: MinimalPBKDF2, DataOffset: 2 << 20}, passA, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	image, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	d := &crashable{bytes: make([]byte, crashDisk), left: -1}
	copy(d.bytes, image)
	if slot, err := d.read(t).AddKey(d, passA, passB, MinimalPBKDF2, rand.Reader); err != nil || slot != 1 {
		t.Fatalf("slot %d, %v", slot, err)
	}
	return d
}

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

// TestCrash cuts the power at every write of every change, at its borders and inside, and looks
// that the header opens with the old or with the new passphrases, to us and to GRUB; and that
// the same change, or what is left of it, can then be made.
func TestCrash(t *testing.T) {
	cut := 0
	for name, change := range changes {
		whole := newCrashable(t)
		start := bytes.Clone(whole.bytes)
		whole.writes = nil
		if err := change.do(whole.read(t), whole); err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for n, length := range whole.writes {
			for _, torn := range []int{0, 1, 512, 4096, length / 2, length - 512} {
				for _, front := range []bool{true, false} {
					if torn == 0 && !front {
						continue
					}
					d := &crashable{bytes: bytes.Clone(start), left: n, torn: torn, front: front}
					if err := change.do(d.read(t), d); !errors.Is(err, errPower) {
						t.Fatalf("%s: %v, want the power to be lost", name, err)
					}
					cut++
					where := fmt.Sprintf("%s, cut in write %d of %d, %d of %d bytes (front %v)", name, n, len(whole.writes), torn, length, front)
					h := d.read(t)
					open := opensWith(t, h)
					if open != change.before && open != change.after {
						t.Errorf("%s: opens with %s", where, open)
					}
					seen[open]++
					if torn%512 == 0 { // a sector is written whole or not at all
						if grub := grubOpens(t, d.bytes); grub != change.before && grub != change.after {
							t.Errorf("%s: opens with %s in GRUB", where, grub)
						}
					}
					finish(t, where, d, h, change.do)
				}
			}
		}
		if seen[change.before] == 0 || seen[change.after] == 0 {
			t.Errorf("%s: outcomes %v: want both %s and %s", name, seen, change.before, change.after)
		}
	}
	if cut < 50 {
		t.Errorf("only %d cuts", cut)
	}
}

// finish makes the change again on a device that lost power, and looks that both copies are whole.
func finish(t *testing.T, where string, d *crashable, h *Header, do func(h *Header, d Disk) error) {
	t.Helper()
	d.left = -1
	if err := do(h, d); err == nil {
		if s := d.read(t).Status(); s.Other != nil {
			t.Errorf("%s: again: the other copy: %v", where, s.Other)
		}
	} else if !errors.Is(err, ErrNoKey) { // which says that the change was made
		t.Errorf("%s: again: %v", where, err)
	}
	_, _, err := h.Unlock(passB)
	if err != nil {
		t.Errorf("%s: again: %v", where, err)
	}
}

// grubOpens reads as GRUB 2.12 does (grub-core/disk/luks2.c, luks2_read_header): it looks
// for the copies, believes the higher sequence number, and checks no checksum.
func grubOpens(t *testing.T, disk []byte) string {
	t.Helper()
	size := binary.BigEndian.Uint64(disk[offsetSize:])
	if !bytes.HasPrefix(disk, magicPrimary) || !bytes.HasPrefix(disk[size:], magicSecondary) {
		return "no header"
	}
	at := uint64(0)
	if binary.BigEndian.Uint64(disk[offsetSeqID:]) < binary.BigEndian.Uint64(disk[size+offsetSeqID:]) {
		at = size
	}
	text, _, _ := bytes.Cut(disk[at+binarySize:at+size], []byte{0})
	m, err := parseMetadata(text)
	if err != nil {
		return err.Error()
	}
	h := &Header{version: 2, meta: m}
	if err := h.readSlots(bytes.NewReader(disk), int64(len(disk))); err != nil {
		return err.Error()
	}
	return opensWith(t, h)
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
