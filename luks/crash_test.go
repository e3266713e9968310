package luks

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
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

// startStates are what a change can find on the device: both copies whole, or one of them
// damaged or old.
var startStates = map[string]func(b []byte){
	"whole":             func([]byte) {},
	"primary damaged":   func(b []byte) { b[binarySize+100] ^= 1 },
	"secondary damaged": func(b []byte) { b[16384+binarySize+100] ^= 1 },
	"primary old":       func(b []byte) { b[offsetSeqID+7]--; sign(b[:16384]) },
	"secondary old":     func(b []byte) { b[16384+offsetSeqID+7]--; sign(b[16384:32768]) },
}

// TestCrash cuts the power at every write of every change, at its borders and inside, and looks
// that the header opens with the old or with the new passphrases, to us and to GRUB; and that
// the same change, or what is left of it, can then be made.
func TestCrash(t *testing.T) {
	cut := 0
	for name, change := range changes {
		whole := newCrashable(t)
		for state, spoil := range startStates {
			start := bytes.Clone(whole.bytes)
			spoil(start)
			full := &crashable{bytes: bytes.Clone(start), left: -1}
			if err := change.do(full.read(t), full); err != nil {
				t.Fatal(err)
			}
			seen := map[string]int{}
			for n, length := range full.writes {
				for _, tear := range tears(length, state == "whole") {
					d := &crashable{bytes: bytes.Clone(start), left: n, torn: tear.bytes, front: tear.front}
					if err := change.do(d.read(t), d); !errors.Is(err, errPower) {
						t.Fatalf("%s: %v, want the power to be lost", name, err)
					}
					cut++
					where := fmt.Sprintf("%s, %s, cut in write %d of %d, %+v of %d bytes", name, state, n, len(full.writes), tear, length)
					h := d.read(t)
					open := opensWith(t, h)
					if open != change.before && open != change.after {
						t.Errorf("%s: opens with %s", where, open)
					}
					seen[open]++
					// A sector is written whole or not at all. GRUB is lost with a damaged copy
					// that has the right magic.
					if state == "whole" && tear.bytes%512 == 0 {
						if grub := grubOpens(t, d.bytes); grub != change.before && grub != change.after {
							t.Errorf("%s: opens with %s in GRUB", where, grub)
						}
					}
					finish(t, where, d, h, change.do)
				}
			}
			if seen[change.before] == 0 || seen[change.after] == 0 {
				t.Errorf("%s, %s: outcomes %v: want both %s and %s", name, state, seen, change.before, change.after)
			}
		}
	}
	if cut < 150 {
		t.Errorf("only %d cuts", cut)
	}
}

// tear is how much of a write reaches the device.
type tear struct {
	bytes int
	front bool // the first bytes, or the last
}

func tears(length int, all bool) []tear {
	if !all {
		return []tear{{0, true}, {length / 2, true}}
	}
	return []tear{{0, true}, {1, true}, {512, true}, {length / 2, true}, {length / 2, false}}
}

// TestStaleCopy looks that the next change after a lost power leaves alone what the older copy
// names until both copies are new, and then overwrites it.
func TestStaleCopy(t *testing.T) {
	d := newCrashable(t)
	oldArea := d.read(t).meta.slots[0].offset
	oldMaterial := bytes.Clone(d.bytes[oldArea:][:4096])
	d.left = 3 // the key slot, and the secondary copy's two parts
	if err := changes["change A to C"].do(d.read(t), d); !errors.Is(err, errPower) {
		t.Fatal(err)
	}
	h := d.read(t)
	if s := h.Status(); s.Used != Secondary || !errors.Is(s.Other, ErrStale) || opensWith(t, h) != "BC" {
		t.Fatalf("status %+v, opens with %s", s, opensWith(t, h))
	}
	d.left = 1
	if _, err := h.AddKey(d, passB, passA, MinimalPBKDF2, rand.Reader); !errors.Is(err, errPower) {
		t.Fatal(err)
	}
	lost := bytes.Clone(d.bytes)
	clear(lost[16384:32768])
	if got := opensWith(t, mustRead(t, lost)); got != "AB" {
		t.Errorf("the older copy alone opens with %s", got)
	}
	d.left = -1
	if _, err := h.AddKey(d, passB, passA, MinimalPBKDF2, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(d.bytes[oldArea:][:4096], oldMaterial) {
		t.Error("the old slot is still on the device")
	}
	if again := d.read(t); again.Status().Other != nil || opensWith(t, again) != "ABC" {
		t.Errorf("status %+v, opens with %s", again.Status(), opensWith(t, again))
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
