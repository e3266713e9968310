package grub_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/luks"
)

const (
	headerBinary = 4096
	copySize     = 16384
)

// goodHeader gives both copies of a header as package luks writes it.
func goodHeader(t testing.TB) []byte {
	t.Helper()
	h, _, err := luks.Format(luks.Spec{UUID: testDiskUUID, KDF: luks.MinimalPBKDF2}, []byte("passphrase"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b[:2*copySize]
}

// metadata gives the JSON text of the first copy.
func metadata(header []byte) string {
	text, _, _ := bytes.Cut(header[headerBinary:copySize], []byte{0})
	return string(text)
}

// withMetadata gives the header with another JSON text in one copy (0 or 1), or in both (2).
func withMetadata(header []byte, which int, text []byte) []byte {
	out := bytes.Clone(header)
	for i := range 2 {
		if which == i || which == 2 {
			area := out[i*copySize+headerBinary : (i+1)*copySize]
			clear(area)
			copy(area, text)
		}
	}
	return out
}

// withSequence gives the header with sequence numbers.
func withSequence(header []byte, first, second uint64) []byte {
	out := bytes.Clone(header)
	binary.BigEndian.PutUint64(out[16:], first)
	binary.BigEndian.PutUint64(out[copySize+16:], second)
	return out
}

// TestHeader spoils the JSON text of a good header, in the copy that GRUB takes and in the other.
func TestHeader(t *testing.T) {
	h := newHost(t)
	good := withSequence(goodHeader(t), 1, 1)
	newer := withSequence(good, 1, 2)
	first := fmt.Sprintf("ok %s %d 1 0", testDiskUUID, 32768+258048)
	second := fmt.Sprintf("ok %s %d 0 2", testDiskUUID, 32768+258048)
	for want, header := range map[string][]byte{first: withSequence(good, 1, 1), second: newer} {
		if got := h.ask(t, 'h', header); got != want {
			t.Fatalf("the good header: %q, want %q", got, want)
		}
	}
	const (
		badValue = "LUKS2 header: a value that is not accepted"
		unknown  = "LUKS2 header: a member that is not known"
		json     = "LUKS2 header: malformed JSON"
		size     = "LUKS2 header: an area of an impossible size"
		place    = "LUKS2 header: an area at an impossible place"
	)
	checked := 0
	for _, c := range []struct{ name, old, new, want string }{
		{"volume key too long", `"key_size":64,"type":"luks2"`, `"key_size":5000,"type":"luks2"`, badValue},
		{"area key too long", `"key_size":64,"offset"`, `"key_size":129,"offset"`, badValue},
		{"key of no bytes", `"key_size":64,"type":"luks2"`, `"key_size":0,"type":"luks2"`, badValue},
		{"one stripe", `"stripes":4000`, `"stripes":1`, badValue},
		{"stripes as text", `"stripes":4000`, `"stripes":"4000"`, badValue},
		{"area of no bytes", `"size":"258048"`, `"size":"0"`, size},
		{"area too small", `"size":"258048"`, `"size":"255488"`, size},
		{"area of half a sector", `"size":"258048"`, `"size":"258049"`, size},
		{"area too large", `"size":"258048"`, `"size":"4194816"`, size},
		{"area of 2^64 bytes", `"size":"258048"`, `"size":"18446744073709551616"`, badValue},
		{"area in the header", `"offset":"32768"`, `"offset":"16384"`, place},
		{"area beyond all", `"offset":"32768"`, `"offset":"16777216"`, place},
		{"area twice", `"size":"258048"`, `"size":"258048","size":"512"`, "LUKS2 header: an area has two sizes"},
		{"two places", `"offset":"32768"`, `"offset":"32768","offset":"32768"`, "LUKS2 header: an area has two places"},
		{"area without a size", `,"size":"258048"`, ``, "LUKS2 header: an area has no place or size"},
		{"area is an array", `"area":{`, `"area":[],"area":{`, "LUKS2 header: an area has no place or size"},
		{"null cipher", `"encryption":"aes-xts-plain64","iv_tweak"`, `"encryption":"cipher_null-ecb","iv_tweak"`, badValue},
		{"null cipher in a key slot", `"encryption":"aes-xts-plain64","key_size"`, `"encryption":"cipher_null-ecb","key_size"`, badValue},
		{"empty digest", `"digest":"`, `"digest":"","digest":"`, badValue},
		{"short digest", `"digest":"`, `"digest":"AAAA","digest":"`, badValue},
		{"salt too long", `"iterations":1000,"salt":"`, `"iterations":1000,"salt":"` + strings.Repeat("A", 92) + `","salt":"`, badValue},
		{"hash", `"stripes":4000,"type"`, `"hash":"crc32","stripes":4000,"type"`, badValue},
		{"iterations without end", `"iterations":1000,"keyslots"`, `"iterations":9999999999,"keyslots"`, badValue},
		{"negative", `"stripes":4000`, `"stripes":-1`, json},
		{"tweak", `"iv_tweak":"0"`, `"iv_tweak":"8"`, badValue},
		{"sector size", `"sector_size":4096`, `"sector_size":1024`, badValue},
		{"second segment", `"segments":{"0"`, `"segments":{"1"`, unknown},
		{"slot's number", `"keyslots":{"0"`, `"keyslots":{"32"`, unknown},
		{"slot's name", `"keyslots":{"0"`, `"keyslots":{"x"`, unknown},
		{"slots as an array", `"keyslots":["0"]`, `"keyslots":[["0"]]`, unknown},
		{"digest's slot", `"keyslots":["0"]`, `"keyslots":["64"]`, badValue},
		{"requirement", `"config":{`, `"config":{"requirements":{"mandatory":["x"]},`, unknown},
		{"unknown member", `"config":{`, `"more":1,"config":{`, unknown},
		{"slot's type", `"type":"luks2"`, `"type":"reencrypt"`, badValue},
		{"escape", `"iv_tweak":"0"`, `"iv_\u0074weak":"0"`, "LUKS2 header: a character in a string that is not accepted"},
		{"escaped quote", `"tokens":{`, `"tokens":{"x":"\"","y":"`, "LUKS2 header: a character in a string that is not accepted"},
		{"control character", `"tokens":{`, "\"tokens\":{\"\x1b\":\"\"", "LUKS2 header: a character in a string that is not accepted"},
		{"no quotes", `"tokens":{`, `tokens:{`, json},
		{"true", `"stripes":4000`, `"stripes":true`, json},
		{"comma", `"tokens":{}`, `"tokens":{},`, json},
		{"deep", `"tokens":{}`, `"tokens":` + strings.Repeat("[", 9) + strings.Repeat("]", 9), "LUKS2 header: JSON is nested too deeply"},
		{"cut", `"tokens":{}}`, `"tokens":{}`, json},
		{"text after the end", `"tokens":{}}`, `"tokens":{}} {}`, "LUKS2 header: bytes after the JSON text"},
		{"text after zeros", `"tokens":{}}`, "\"tokens\":{}}\x00x", "LUKS2 header: bytes after the JSON text"},
	} {
		if strings.Count(metadata(good), c.old) != 1 {
			t.Errorf("%s: %q stands %d times in %s", c.name, c.old, strings.Count(metadata(good), c.old), metadata(good))
			continue
		}
		text := []byte(strings.Replace(metadata(good), c.old, c.new, 1))
		for _, copies := range []struct {
			header []byte
			want   string
		}{
			{withMetadata(good, 0, text), c.want},
			{withMetadata(good, 1, text), first}, // not the one that is used
			{withMetadata(good, 2, text), c.want},
			{withMetadata(newer, 0, text), second},
			{withMetadata(newer, 1, text), c.want},
		} {
			if got := h.ask(t, 'h', copies.header); got != copies.want {
				t.Errorf("%s: %q, want %q", c.name, got, copies.want)
			}
			checked++
		}
	}
	if checked < 100 {
		t.Fatalf("%d headers", checked)
	}
}

// TestHeaderBinary spoils what stands before the JSON text.
func TestHeaderBinary(t *testing.T) {
	h := newHost(t)
	put := func(at int, n uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint64(b[at:], n); return b }
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"nothing":           func(b []byte) []byte { return nil },
		"cut":               func(b []byte) []byte { return b[:copySize] },
		"one byte less":     func(b []byte) []byte { return b[:len(b)-1] },
		"magic":             func(b []byte) []byte { b[0] = 'X'; return b },
		"second magic":      func(b []byte) []byte { b[copySize] = 'L'; return b },
		"version":           func(b []byte) []byte { b[7] = 1; return b },
		"size":              put(8, 12288),
		"size of 0":         put(8, 0),
		"size of 2^64-1":    put(8, 1<<64-1),
		"second size":       put(copySize+8, 1<<20),
		"place":             put(256, 4096),
		"second place":      put(copySize+256, 0),
		"UUID":              func(b []byte) []byte { b[168] = 'x'; return b },
		"UUID without end":  func(b []byte) []byte { b[168+36] = 'x'; return b },
		"UUIDs that differ": func(b []byte) []byte { b[copySize+168] ^= 1; return b },
		"JSON to the end":   func(b []byte) []byte { return withMetadata(b, 2, bytes.Repeat([]byte(" "), copySize)) },
		"JSON fills the end": func(b []byte) []byte {
			return withMetadata(b, 2, []byte("{}"+strings.Repeat(" ", copySize-headerBinary-2)))
		},
	} {
		if got := h.ask(t, 'h', spoil(goodHeader(t))); !strings.HasPrefix(got, "LUKS2 header: ") || strings.Contains(got, "facts") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestHeaderCryptsetup has headers of cryptsetup's judged, with the options that fit.
func TestHeaderCryptsetup(t *testing.T) {
	cryptsetup := testtool.Program(t, "cryptsetup")
	h := newHost(t)
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("passphrase"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"pbkdf2":     {nil, "ok "},
		"sha512":     {[]string{"--hash", "sha512"}, "ok "},
		"512":        {[]string{"--sector-size", "512"}, "ok "},
		"label":      {[]string{"--label", "a label"}, "ok "},
		"256 bits":   {[]string{"--key-size", "256"}, "LUKS2 header: a value that is not accepted"},
		"larger one": {[]string{"--luks2-metadata-size", "32k", "--luks2-keyslots-size", "8m"}, "ok "},
	} {
		image := filepath.Join(dir, "image")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, 20<<20); err != nil {
			t.Fatal(err)
		}
		testtool.Output(t, cryptsetup, append([]string{"luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", key, image}, c.args...)...)
		f, err := os.Open(image)
		if err != nil {
			t.Fatal(err)
		}
		size := 2 * copySize
		if name == "larger one" {
			size *= 2
		}
		b, err := io.ReadAll(io.LimitReader(f, int64(size)))
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if got := h.ask(t, 'h', b); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestHeaderMoreSlots judges a header as it stands after keys were added and removed.
func TestHeaderMoreSlots(t *testing.T) {
	h := newHost(t)
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(17 << 20); err != nil {
		t.Fatal(err)
	}
	header, _, err := luks.Format(luks.Spec{UUID: testDiskUUID, KDF: luks.MinimalPBKDF2}, []byte("first"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := header.Encode()
	if err == nil {
		_, err = f.WriteAt(encoded, 0)
	}
	if err == nil {
		_, err = header.AddKey(f, []byte("first"), []byte("for people"), luks.KDF{Type: luks.Argon2id, Time: 4, MemoryKiB: 32, Parallel: 1}, rand.Reader)
	}
	if err == nil {
		_, err = header.AddKey(f, []byte("first"), []byte("third"), luks.MinimalPBKDF2, rand.Reader)
	}
	if err == nil {
		_, err = header.RemoveKey(f, []byte("first"), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2*copySize)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if got, want := h.ask(t, 'h', b), fmt.Sprintf("ok %s %d ", testDiskUUID, 32768+3*258048); !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q: %s", got, want, metadata(b))
	}
}

// FuzzHeader gives the judge JSON texts, in one copy or both; the sanitizers stop it where it
// reads outside of them.
func FuzzHeader(f *testing.F) {
	good := goodHeader(f)
	f.Add([]byte(metadata(good)), 2)
	f.Add([]byte(`{"keyslots":{"0":{"area":{"offset":"32768","size":"258048"}}}}`), 0)
	f.Add([]byte(`{"tokens":{"0":[[{"x":["y"]}]]}}`), 1)
	h := newHost(f)
	f.Fuzz(func(t *testing.T, text []byte, which int) {
		got := h.ask(t, 'h', withMetadata(good, which, text))
		var uuid string
		var end uint64
		if n, _ := fmt.Sscanf(got, "ok %s %d", &uuid, &end); n == 2 {
			if uuid != testDiskUUID || end < 2*copySize || end > 16<<20 {
				t.Errorf("%q", got)
			}
		} else if !strings.HasPrefix(got, "LUKS2 header: ") || strings.Contains(got, "facts") {
			t.Errorf("%q", got)
		}
	})
}
