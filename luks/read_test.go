package luks

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// memory is a device that holds what was put at its start, and zeros.
type memory struct {
	start []byte
	size  int64
}

func (m memory) ReadAt(p []byte, at int64) (int, error) {
	n := int(min(int64(len(p)), max(m.size-at, 0)))
	clear(p[:n])
	if at < int64(len(m.start)) {
		copy(p[:n], m.start[at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func unpack(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestRecorded opens headers that cryptsetup made (testdata/README.md).
func TestRecorded(t *testing.T) {
	for name, want := range map[string]struct {
		version, sectorSize int
		kdf                 KDF
		key, label          string
	}{
		"luks2-argon2id.gz": {2, 4096, KDF{Type: Argon2id, Time: 4, MemoryKiB: 64, Parallel: 1},
			"a8b7499aa2a12bad8cd96ad6e59b7a9bc66d10820c3d59bf308ed511dc2dba8f", "vector"},
		"luks1.gz": {1, 512, KDF{Type: PBKDF2, Hash: "sha256", Iterations: 1000},
			"225728c26cfc70f2d4e93fd2d9e400cecc4125f8a2ff3da7e28722f51b7ee3cc", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := Read(memory{unpack(t, name), 18 << 20}, 18<<20)
			if err != nil {
				t.Fatal(err)
			}
			if s := h.Status(); s.Version != want.version || s.Used != Primary || s.Other != nil {
				t.Errorf("status %+v", s)
			}
			segment := Segment{Offset: h.Segment().Offset, SectorSize: want.sectorSize, Cipher: cipherXTS, KeyBytes: 32}
			if h.Segment() != segment || segment.Offset%(1<<20) != 0 || h.Label() != want.label || h.UUID() != "11111111-2222-4333-8444-555555555555" {
				t.Errorf("segment %+v, label %q, UUID %s", h.Segment(), h.Label(), h.UUID())
			}
			if slots := h.Slots(); len(slots) != 1 || slots[0].KDF != want.kdf || slots[0].ID != 0 {
				t.Errorf("slots %+v", slots)
			}
			slot, key, err := h.Unlock(testPassphrase)
			if err != nil || slot != 0 || hex.EncodeToString(key.Bytes()) != want.key {
				t.Errorf("Unlock: slot %d, %v", slot, err)
			}
			if _, key, err := h.Unlock([]byte("thirty-two bytes of passphrase.")); !errors.Is(err, ErrNoKey) || key != nil {
				t.Errorf("Unlock with a wrong passphrase: %v", err)
			}
		})
	}
}

// TestPin compares with a pin that other code computed, and looks that each part counts.
func TestPin(t *testing.T) {
	text, err := os.ReadFile("testdata/pin.txt")
	if err != nil {
		t.Fatal(err)
	}
	want, err := ParsePin(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	read := func() *Header {
		h, err := Read(memory{unpack(t, "luks2-argon2id.gz"), 18 << 20}, 18<<20)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	if got := read().Pin(); !got.Equal(want) {
		t.Fatalf("pin %v, want %v", got, want)
	}
	for name, spoil := range map[string]func(h *Header){
		"version":    func(h *Header) { h.version = 1 },
		"uuid":       func(h *Header) { h.uuid = "21111111-2222-4333-8444-555555555555" },
		"offset":     func(h *Header) { h.meta.segment.Offset += 512 },
		"size":       func(h *Header) { h.meta.segment.Size = 4096 },
		"tweak":      func(h *Header) { h.meta.segment.IVTweak = 8 },
		"sector":     func(h *Header) { h.meta.segment.SectorSize = 512 },
		"key":        func(h *Header) { h.meta.segment.KeyBytes = 64 },
		"cipher":     func(h *Header) { h.meta.segment.Cipher = "cipher_null-ecb" },
		"hash":       func(h *Header) { h.meta.digest.hash = "sha512" },
		"iterations": func(h *Header) { h.meta.digest.iterations++ },
		"salt":       func(h *Header) { h.meta.digest.salt[0] ^= 1 },
		"digest":     func(h *Header) { h.meta.digest.value[31] ^= 1 },
	} {
		h := read()
		spoil(h)
		if h.Pin().Equal(want) {
			t.Errorf("%s does not count", name)
		}
	}
	same := read()
	same.label, same.meta.slots, same.meta.flags = "other", nil, []string{"allow-discards"}
	if !same.Pin().Equal(want) {
		t.Error("label, key slots or flags count")
	}
	for _, bad := range []string{"", "00", strings.Repeat("A", 64), strings.Repeat("0", 65)} {
		if _, err := ParsePin(bad); err == nil {
			t.Errorf("ParsePin(%q) took it", bad)
		}
	}
}

// TestCopies damages the copies one after the other.
func TestCopies(t *testing.T) {
	good := unpack(t, "luks2-argon2id.gz")
	const size = 18 << 20
	open := func(spoil func(b []byte)) (*Header, error) {
		b := bytes.Clone(good)
		spoil(b)
		return Read(memory{b, size}, size)
	}
	var field *FieldError
	for _, test := range []struct {
		name  string
		spoil func(b []byte)
		used  Copy
		other error // nil: no copy is damaged
	}{
		{"none", func([]byte) {}, Primary, nil},
		{"primary's JSON", func(b []byte) { b[5000] ^= 1 }, Secondary, ErrChecksum},
		{"primary's magic", func(b []byte) { b[0] ^= 1 }, Secondary, ErrNotLUKS},
		{"primary's size", func(b []byte) { b[offsetSize] ^= 1 }, Secondary, ErrSize},
		{"primary's checksum algorithm", func(b []byte) { b[offsetSumAlg] = 'x' }, Secondary, ErrHash},
		{"primary's checksum", func(b []byte) { b[offsetSum+40] ^= 1 }, Secondary, ErrChecksum},
		{"all of primary", func(b []byte) { clear(b[:16384]) }, Secondary, ErrNotLUKS},
		{"secondary's JSON", func(b []byte) { b[16384+5000] ^= 1 }, Primary, ErrChecksum},
		{"all of secondary", func(b []byte) { clear(b[16384:32768]) }, Primary, ErrNotLUKS},
		{"secondary's number is behind", func(b []byte) { b[16384+offsetSeqID+7]--; sign(b[16384:32768]) }, Primary, ErrStale},
		{"primary's number is behind", func(b []byte) { b[offsetSeqID+7]--; sign(b[:16384]) }, Secondary, ErrStale},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, err := open(test.spoil)
			if err != nil {
				t.Fatal(err)
			}
			if s := h.Status(); s.Used != test.used || !errors.Is(s.Other, test.other) || (s.Other == nil) != (test.other == nil) {
				t.Errorf("status %+v, want %v for the other", s, test.other)
			}
			if _, _, err := h.Unlock(testPassphrase); err != nil {
				t.Error(err)
			}
		})
	}
	for _, test := range []struct {
		name  string
		spoil func(b []byte)
		want  error
	}{
		{"both damaged", func(b []byte) { b[5000] ^= 1; b[16384+5000] ^= 1 }, ErrDamaged},
		{"both gone", func(b []byte) { clear(b[:32768]) }, ErrNotLUKS},
		{"copies differ", func(b []byte) { b[16384+offsetLabel] ^= 1; sign(b[16384:32768]) }, ErrCopies},
		{"stale copy of another disk", func(b []byte) {
			b[16384+offsetUUID] ^= 1
			b[16384+offsetSeqID+7]--
			sign(b[16384:32768])
		}, ErrCopies},
		{"a third copy, no primary", func(b []byte) {
			clear(b[:16384])
			third := b[32768:65536]
			clear(third)
			copy(third, b[16384:32768])
			third[offsetSize+6], third[offsetSelf+6] = 0x80, 0x80
			third = third[:32768]
			sign(third)
		}, ErrCopies},
	} {
		if h, err := open(test.spoil); !errors.Is(err, test.want) || h != nil {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		} else if test.want == ErrCopies && !errors.As(err, &field) {
			t.Errorf("%s: %v is no *FieldError", test.name, err)
		}
	}
	for _, cut := range []int64{0, 1, 4095, 4096, 16384, 32768, 100000} {
		if h, err := Read(memory{good, int64(cut)}, int64(cut)); err == nil || h != nil {
			t.Errorf("a device of %d bytes was taken", cut)
		}
	}
}

// sign makes the checksum of a copy right again.
func sign(image []byte) {
	sum, err := checksum(image, "sha256")
	if err != nil {
		panic(err)
	}
	copy(image[offsetSum:], sum[:])
}
