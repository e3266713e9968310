package luks

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	randv2 "math/rand/v2"
	"strings"
	"testing"
)

// TestSpec spoils one field after the other.
func TestSpec(t *testing.T) {
	good := Spec{UUID: "0f0e0d0c-0b0a-4908-8706-050403020100", Label: "root", SectorSize: 512, DataOffset: 1 << 20, KDF: MinimalPBKDF2}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (Spec{}).Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for name, test := range map[string]struct {
		spoil func(s *Spec)
		want  error
	}{
		"UUID":            {func(s *Spec) { s.UUID = "x" }, ErrMalformed},
		"UUID's dash":     {func(s *Spec) { s.UUID = strings.ReplaceAll(s.UUID, "-", "0") }, ErrMalformed},
		"UUID's case":     {func(s *Spec) { s.UUID = strings.ToUpper(s.UUID) }, ErrMalformed},
		"label's length":  {func(s *Spec) { s.Label = strings.Repeat("x", 48) }, ErrSize},
		"label's end":     {func(s *Spec) { s.Label = "a\x00b" }, ErrMalformed},
		"label's escape":  {func(s *Spec) { s.Label = "\x1b[2J" }, ErrMalformed},
		"label not UTF-8": {func(s *Spec) { s.Label = "\xff" }, ErrMalformed},
		"sector size":     {func(s *Spec) { s.SectorSize = 1024 }, ErrSize},
		"data offset":     {func(s *Spec) { s.DataOffset = minDataOffset - 4096 }, ErrSize},
		"data alignment":  {func(s *Spec) { s.DataOffset = 1<<20 + 512 }, ErrSize},
		"data far away":   {func(s *Spec) { s.DataOffset = 1 << 50 }, ErrSize},
		"argon2i":         {func(s *Spec) { s.KDF = KDF{Type: Argon2i, Time: 4, MemoryKiB: 64, Parallel: 1} }, ErrUnsupported},
		"argon2id":        {func(s *Spec) { s.KDF = KDF{Type: Argon2id, Time: 4, MemoryKiB: 64} }, ErrCost},
		"hash":            {func(s *Spec) { s.KDF.Hash = "sha1" }, ErrHash},
		"iterations":      {func(s *Spec) { s.KDF.Iterations = 999 }, ErrCost},
	} {
		spec := good
		test.spoil(&spec)
		if err := spec.Validate(); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if h, key, err := Format(spec, testPassphrase, rand.Reader); !errors.Is(err, test.want) || h != nil || key != nil {
			t.Errorf("%s: Format: %v", name, err)
		}
	}
	if h, key, err := Format(good, nil, rand.Reader); !errors.Is(err, ErrEmptyPassphrase) || h != nil || key != nil {
		t.Errorf("empty passphrase: %v", err)
	}
}

// TestFormatRepeats has equal random bytes give equal headers, and too few of them none.
func TestFormatRepeats(t *testing.T) {
	format := func(seed byte) []byte {
		h, _, err := Format(Spec{KDF: MinimalPBKDF2}, testPassphrase, randv2.NewChaCha8([32]byte{seed}))
		if err != nil {
			t.Fatal(err)
		}
		image, err := h.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return image
	}
	if !bytes.Equal(format(1), format(1)) || bytes.Equal(format(1), format(2)) {
		t.Error("the header does not follow from the random bytes alone")
	}
	tried := 0
	for _, n := range []int64{0, 15, 16, 79, 80, 207, 208, 271, 272, 200_000} {
		h, key, err := Format(Spec{KDF: MinimalPBKDF2}, testPassphrase, io.LimitReader(rand.Reader, n))
		if err == nil || h != nil || key != nil {
			t.Errorf("%d random bytes were enough: %v", n, err)
		}
		tried++
	}
	if tried == 0 {
		t.Error("nothing tried")
	}
}

// TestKeyNotShown prints a volume key in every way that fmt and JSON know.
func TestKeyNotShown(t *testing.T) {
	key := &VolumeKey{[]byte{0xde, 0xad, 0xbe, 0xef}}
	text := fmt.Sprintf("%v %+v %#v %s %x %d %q %v", key, key, key, key, key, key, key, struct{ K *VolumeKey }{key})
	asJSON, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, leak := range []string{"222", "dead", "0xde", "3q2+"} {
		if strings.Contains(strings.ToLower(text+string(asJSON)), leak) {
			t.Errorf("%s in %s %s", leak, text, asJSON)
		}
	}
}

// TestPinJSON takes a pin through JSON.
func TestPinJSON(t *testing.T) {
	want := Pin{1, 2, 31: 0xff}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Pin
	if err := json.Unmarshal(text, &got); err != nil || got != want {
		t.Errorf("%s became %v, %v", text, got, err)
	}
	if err := json.Unmarshal([]byte(`"00"`), &got); err == nil || got != want {
		t.Errorf("a short pin was taken: %v, %v", got, err)
	}
}

// TestPriority has slots tried in the order of their priority, and those of priority 0 only by number.
func TestPriority(t *testing.T) {
	d := newCrashable(t)
	h := d.read(t)
	if _, err := h.AddKey(d, passA, passA, MinimalPBKDF2, rand.Reader); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ first, third, opens int }{{1, 1, 0}, {1, 2, 2}, {0, 1, 2}, {2, 0, 0}} {
		h.meta.slots[0].priority, h.meta.slots[2].priority = test.first, test.third
		if slot, _, err := h.Unlock(passA); err != nil || slot != test.opens {
			t.Errorf("%+v: slot %d, %v", test, slot, err)
		}
	}
	h.meta.slots[0].priority, h.meta.slots[2].priority = 0, 0
	if _, _, err := h.Unlock(passA); !errors.Is(err, ErrNoKey) {
		t.Errorf("slots to be ignored: %v", err)
	}
	if key, err := h.UnlockSlot(2, passA); err != nil || key == nil {
		t.Errorf("a slot by its number: %v", err)
	}
	if key, err := h.UnlockSlot(1, passA); !errors.Is(err, ErrNoKey) || key != nil {
		t.Errorf("a slot of another passphrase: %v", err)
	}
	if key, err := h.UnlockSlot(9, passA); !errors.Is(err, ErrNoSlot) || key != nil {
		t.Errorf("a slot that is not there: %v", err)
	}
}
