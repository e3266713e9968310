package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

var challenge = strings.Repeat("0123456789abcdef", 5)

func newKey(t testing.TB) *Key {
	t.Helper()
	k, err := NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestReportData holds the hash against one computed by another program:
//
//	{ printf 'sealboot snp 1\0'; head -c 32 /dev/zero | tr '\0' '\1'; head -c 32 /dev/zero | tr '\0' '\2'; printf web; } | sha512sum
func TestReportData(t *testing.T) {
	data, err := ReportData(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), "web")
	if err != nil || hex.EncodeToString(data[:]) != reportDataVector {
		t.Errorf("%x, %v", data, err)
	}
	if _, err := ReportData(make([]byte, 31), make([]byte, 32), "web"); err == nil {
		t.Error("a short nonce is taken")
	}
	if _, err := ReportData(make([]byte, 32), make([]byte, 33), "web"); err == nil {
		t.Error("a long key is taken")
	}
}

// TestOpen seals and opens, and spoils one thing at a time.
func TestOpen(t *testing.T) {
	k := newKey(t)
	secret := []byte("a secret table")
	encapsulated, box, err := Seal(k.Public(), challenge, "web", secret)
	if err != nil || len(encapsulated) != EncapsulatedSize || len(box) != len(secret)+Overhead {
		t.Fatal(len(encapsulated), len(box), err)
	}
	if got, err := k.Open(encapsulated, box, challenge, "web"); err != nil || !bytes.Equal(got, secret) {
		t.Fatal(got, err)
	}
	again, _, err := Seal(k.Public(), challenge, "web", secret)
	if err != nil || bytes.Equal(again, encapsulated) {
		t.Error("the same ephemeral key twice", err)
	}
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
		return b
	}
	other := newKey(t)
	for name, open := range map[string]func() ([]byte, error){
		"another key":           func() ([]byte, error) { return other.Open(encapsulated, box, challenge, "web") },
		"another challenge":     func() ([]byte, error) { return k.Open(encapsulated, box, challenge[1:]+"0", "web") },
		"another image":         func() ([]byte, error) { return k.Open(encapsulated, box, challenge, "web2") },
		"challenge cut off":     func() ([]byte, error) { return k.Open(encapsulated, box, challenge[:31], "fweb") },
		"box changed":           func() ([]byte, error) { return k.Open(encapsulated, flip(box), challenge, "web") },
		"box cut off":           func() ([]byte, error) { return k.Open(encapsulated, box[:10], challenge, "web") },
		"empty box":             func() ([]byte, error) { return k.Open(encapsulated, nil, challenge, "web") },
		"encapsulation changed": func() ([]byte, error) { return k.Open(flip(encapsulated), box, challenge, "web") },
		"encapsulation of zero": func() ([]byte, error) { return k.Open(make([]byte, 32), box, challenge, "web") },
		"encapsulation cut off": func() ([]byte, error) { return k.Open(encapsulated[:31], box, challenge, "web") },
	} {
		if got, err := open(); !errors.Is(err, ErrOpen) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, public := range map[string][]byte{"no key": nil, "short key": k.Public()[:31], "key of zero": make([]byte, 32)} {
		if _, _, err := Seal(public, challenge, "web", secret); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, _, err := Seal(k.Public(), "short", "web", secret); err == nil {
		t.Error("a short challenge is taken")
	}
	k.Wipe()
	if _, err := k.Open(encapsulated, box, challenge, "web"); !errors.Is(err, ErrOpen) {
		t.Errorf("wiped key: %v", err)
	}
	if _, err := NewKey(strings.NewReader("too little")); err == nil {
		t.Error("a key of ten random bytes")
	}
}

const reportDataVector = "ef3b9813f6d83364c874b5cbd53c5eec70c96d6b52e963d7801f7e979674b9ec9612e3552ec6ed8dfb4da4b9f7a862628a55a104ec4fd35b47c88a8d400a27ad"
