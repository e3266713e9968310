package luks

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// withJSON puts JSON into both copies of a header and makes their checksums right.
func withJSON(image, text []byte) []byte {
	image = bytes.Clone(image)
	for _, at := range []int{0, 16384} {
		area := image[at+binarySize : at+16384]
		clear(area)
		copy(area, text)
		sign(image[at : at+16384])
	}
	return image
}

func jsonOf(image []byte) []byte {
	text, _, _ := bytes.Cut(image[binarySize:16384], []byte{0})
	return text
}

// TestStrictJSON spoils one thing after the other in what cryptsetup wrote.
func TestStrictJSON(t *testing.T) {
	const size = 18 << 20
	good := unpack(t, "luks2-argon2id.gz")
	text := string(jsonOf(good))
	if _, err := Read(memory{withJSON(good, []byte(text)), size}, size); err != nil {
		t.Fatal("the good header: ", err)
	}
	pbkdf2 := `"kdf":{"type":"pbkdf2","hash":"sha256","iterations":1000,`
	tests := []struct {
		name     string
		from, to string // replaced once
		want     error
	}{
		{"null cipher in segment", `"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"cipher_null-ecb","sector_size"`, ErrCipher},
		{"null cipher in key slot", `"encryption":"aes-xts-plain64","key_size"`, `"encryption":"cipher_null-ecb","key_size"`, ErrCipher},
		{"no cipher", `"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"","sector_size"`, ErrCipher},
		{"cipher null", `"encryption":"aes-xts-plain64","sector_size"`, `"encryption":null,"sector_size"`, ErrMalformed},
		{"other cipher", `"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"aes-cbc-essiv:sha256","sector_size"`, ErrCipher},
		{"cipher twice", `"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"aes-xts-plain64","encryption":"cipher_null-ecb","sector_size"`, ErrMalformed},
		{"cipher in capitals", `"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"aes-xts-plain64","Encryption":"cipher_null-ecb","sector_size"`, ErrMalformed},
		{"escaped name twice", `"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"aes-xts-plain64","\u0065ncryption":"cipher_null-ecb","sector_size"`, ErrMalformed},
		{"integrity", `"sector_size":4096`, `"sector_size":4096,"integrity":{"type":"none","journal_encryption":"none","journal_integrity":"none"}`, ErrMalformed},
		{"segment flags", `"sector_size":4096`, `"sector_size":4096,"flags":["in-reencryption"]`, ErrMalformed},
		{"segment type", `"type":"crypt"`, `"type":"linear"`, ErrUnsupported},
		{"second segment", `"segments":{`, `"segments":{"1":{"type":"linear","offset":"16777216","size":"dynamic"},`, ErrUnsupported},
		{"sector size 0", `"sector_size":4096`, `"sector_size":0`, ErrSize},
		{"sector size 8192", `"sector_size":4096`, `"sector_size":8192`, ErrSize},
		{"sector size in exponent", `"sector_size":4096`, `"sector_size":4096e0`, ErrMalformed},
		{"sector size in a string", `"sector_size":4096`, `"sector_size":"4096"`, ErrMalformed},
		{"tweak inside a sector", `"iv_tweak":"0"`, `"iv_tweak":"1"`, ErrMalformed},
		{"data over key slots", `"offset":"16777216"`, `"offset":"1048576"`, ErrOverlap},
		{"data behind the end", `"offset":"16777216"`, `"offset":"1677721600"`, ErrSize},
		{"data offset with sign", `"offset":"16777216"`, `"offset":"+16777216"`, ErrMalformed},
		{"data offset with zero", `"offset":"16777216"`, `"offset":"016777216"`, ErrMalformed},
		{"data offset of 2^64", `"offset":"16777216"`, `"offset":"18446744073709551616"`, ErrMalformed},
		{"data offset of 2^63", `"offset":"16777216"`, `"offset":"9223372036854775808"`, ErrMalformed},
		{"data size 0", `"size":"dynamic"`, `"size":"0"`, ErrMalformed},
		{"data size above the device", `"size":"dynamic"`, `"size":"1073741824"`, ErrSize},
		{"data size of part of a sector", `"size":"dynamic"`, `"size":"4608"`, ErrSize},
		{"empty digest", `"digest":"`, `"digest":"","x":"`, ErrDigest},
		{"short digest", `"digest":"`, `"digest":"AAAAAAAAAAAAAAAAAAAAAAAAAA==","x":"`, ErrDigest},
		{"null digest", `"digest":"`, `"digest":null,"x":"`, ErrMalformed},
		{"no digest", `"digests":{`, `"digests":{},"x":{`, ErrDigest},
		{"digest type", `"digests":{"0":{"type":"pbkdf2"`, `"digests":{"0":{"type":"argon2id"`, ErrDigest},
		{"digest hash", `"segments":["0"],"hash":"sha256"`, `"segments":["0"],"hash":"crc32"`, ErrHash},
		{"digest iterations", `"segments":["0"],"hash":"sha256","iterations":1000`, `"segments":["0"],"hash":"sha256","iterations":1`, ErrCost},
		{"digest iterations above", `"segments":["0"],"hash":"sha256","iterations":1000`, `"segments":["0"],"hash":"sha256","iterations":2147483647`, ErrCost},
		{"digest of no segment", `"segments":["0"]`, `"segments":[]`, ErrMalformed},
		{"digest of no slot", `"keyslots":["0"]`, `"keyslots":[]`, ErrMalformed},
		{"digest of another slot", `"keyslots":["0"]`, `"keyslots":["1"]`, ErrMalformed},
		{"digest of a slot twice", `"keyslots":["0"]`, `"keyslots":["0","0"]`, ErrMalformed},
		{"slot type", `"keyslots":{"0":{"type":"luks2"`, `"keyslots":{"0":{"type":"reencrypt"`, ErrUnsupported},
		{"slot number", `"keyslots":{"0":`, `"keyslots":{"32":`, ErrMalformed},
		{"slot number with zero", `"keyslots":{"0":`, `"keyslots":{"00":`, ErrMalformed},
		{"slot key size", `"key_size":32,"af"`, `"key_size":16,"af"`, ErrSize},
		{"slot key larger than area", `"key_size":32,"af"`, `"key_size":64,"af"`, ErrSize},
		{"slot priority", `"key_size":32,"af"`, `"priority":3,"key_size":32,"af"`, ErrMalformed},
		{"stripes", `"stripes":4000`, `"stripes":1`, ErrMalformed},
		{"splitter's type", `"type":"luks1"`, `"type":"none"`, ErrUnsupported},
		{"splitter's hash", `"stripes":4000,"hash":"sha256"`, `"stripes":4000,"hash":"md5"`, ErrHash},
		{"area over header", `"offset":"32768"`, `"offset":"0"`, ErrSize},
		{"area over data", `"offset":"32768"`, `"offset":"16777216"`, ErrSize},
		{"area not aligned", `"offset":"32768"`, `"offset":"33280"`, ErrSize},
		{"area huge", `"size":"131072"`, `"size":"4611686018427387903"`, ErrSize},
		{"area short", `"size":"131072"`, `"size":"4096"`, ErrSize},
		{"area's type", `"type":"raw"`, `"type":"journal"`, ErrUnsupported},
		{"KDF type", `"type":"argon2id"`, `"type":"scrypt"`, ErrUnsupported},
		{"Argon2 without passes", `"time":4`, `"time":0`, ErrCost},
		{"Argon2 with 2^31-1 passes", `"time":4`, `"time":2147483647`, ErrCost},
		{"Argon2 above 2^31", `"time":4`, `"time":4294967297`, ErrMalformed},
		{"Argon2 memory above 1 GiB", `"memory":64`, `"memory":1048577`, ErrCost},
		{"Argon2 without memory", `"memory":64`, `"memory":0`, ErrCost},
		{"Argon2 with many passes over much memory", `"time":4,"memory":64`, `"time":65,"memory":1048576`, ErrCost},
		{"Argon2 without lanes", `"cpus":1`, `"cpus":0`, ErrCost},
		{"Argon2 with many lanes", `"memory":64,"cpus":1`, `"memory":65536,"cpus":17`, ErrCost},
		{"Argon2 with 256 lanes", `"memory":64,"cpus":1`, `"memory":65536,"cpus":257`, ErrCost},
		{"PBKDF2 iterations", `"kdf":{"type":"argon2id","time":4,"memory":64,"cpus":1,`, strings.Replace(pbkdf2, "1000", "999", 1), ErrCost},
		{"PBKDF2 iterations above", `"kdf":{"type":"argon2id","time":4,"memory":64,"cpus":1,`, strings.Replace(pbkdf2, "1000", "100000001", 1), ErrCost},
		{"PBKDF2 hash", `"kdf":{"type":"argon2id","time":4,"memory":64,"cpus":1,`, strings.Replace(pbkdf2, "sha256", "none", 1), ErrHash},
		{"salt with line end", `"salt":"`, `"salt":"\n`, ErrMalformed},
		{"salt empty", `"salt":"`, `"salt":"","x":"`, ErrMalformed},
		{"unknown member of slot", `"key_size":32,"af"`, `"backdoor":1,"key_size":32,"af"`, ErrMalformed},
		{"unknown member of root", `"tokens"`, `"opal":{},"tokens"`, ErrMalformed},
		{"unknown member of config", `"json_size"`, `"x":1,"json_size"`, ErrMalformed},
		{"member of root twice", `"tokens"`, `"segments":{},"tokens"`, ErrMalformed},
		{"token not an object", `"tokens":{}`, `"tokens":{"0":1}`, ErrMalformed},
		{"token without type", `"tokens":{}`, `"tokens":{"0":{"keyslots":[]}}`, ErrMalformed},
		{"member of token twice", `"tokens":{}`, `"tokens":{"0":{"type":"a","type":"b","keyslots":[]}}`, ErrMalformed},
		{"JSON size", `"json_size":"12288"`, `"json_size":"28672"`, ErrSize},
		{"key slots' size", `"keyslots_size":"16744448"`, `"keyslots_size":"16744449"`, ErrSize},
		{"key slots' size over data", `"keyslots_size":"16744448"`, `"keyslots_size":"16748544"`, ErrOverlap},
		{"key slots' size huge", `"keyslots_size":"16744448"`, `"keyslots_size":"4611686018427383808"`, ErrSize},
		{"requirement", `"config":{`, `"config":{"requirements":{"mandatory":["online-reencrypt"]},`, ErrUnsupported},
		{"deep", `"tokens":{}`, `"tokens":{"0":{"type":"a","keyslots":[],"x":` + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 102), ErrMalformed},
		{"not UTF-8", `"tokens":{}`, "\"tokens\":{\"0\":{\"type\":\"\xff\",\"keyslots\":[]}}", ErrMalformed},
		{"two values", `"keyslots_size":"16744448"}}`, `"keyslots_size":"16744448"}}{}`, ErrMalformed},
		{"a list", `{"keyslots"`, `[{"keyslots"`, ErrMalformed},
		{"half", `"tokens":{}`, ``, ErrMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bad := strings.Replace(text, test.from, test.to, 1)
			if bad == text {
				t.Fatalf("%s is not in %s", test.from, text)
			}
			h, err := Read(memory{withJSON(good, []byte(bad)), size}, size)
			var field *FieldError
			if !errors.Is(err, test.want) || !errors.As(err, &field) || h != nil {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	if len(tests) < 60 {
		t.Errorf("only %d tests", len(tests))
	}
}

// TestLimits has bounds of the caller's take the place of the default ones.
func TestLimits(t *testing.T) {
	const size = 18 << 20
	good := unpack(t, "luks2-argon2id.gz") // 4 passes over 64 KiB, 1 lane; digest of 1000 iterations
	exact := Limits{Iterations: 1000, MemoryKiB: 64, Parallel: 1, Work: 4 * 64}
	if _, err := ReadWithLimits(memory{good, size}, size, exact); err != nil {
		t.Fatal(err)
	}
	for name, lower := range map[string]func(l *Limits){
		"iterations": func(l *Limits) { l.Iterations-- },
		"memory":     func(l *Limits) { l.MemoryKiB-- },
		"lanes":      func(l *Limits) { l.Parallel-- },
		"work":       func(l *Limits) { l.Work-- },
	} {
		limits := exact
		lower(&limits)
		if h, err := ReadWithLimits(memory{good, size}, size, limits); !errors.Is(err, ErrCost) || h != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStrictTwoSlots has two key slots that must not share an area or differ in key size.
func TestStrictTwoSlots(t *testing.T) {
	const size = 18 << 20
	good := unpack(t, "luks2-argon2id.gz")
	with := func(change func(slot map[string]any)) error {
		var root map[string]any
		if err := json.Unmarshal(jsonOf(good), &root); err != nil {
			t.Fatal(err)
		}
		slots := root["keyslots"].(map[string]any)
		twin, _ := json.Marshal(slots["0"])
		var second map[string]any
		if err := json.Unmarshal(twin, &second); err != nil {
			t.Fatal(err)
		}
		second["area"].(map[string]any)["offset"] = "163840"
		change(second)
		slots["7"] = second
		root["digests"].(map[string]any)["0"].(map[string]any)["keyslots"] = []string{"0", "7"}
		text, _ := json.Marshal(root)
		_, err := Read(memory{withJSON(good, text), size}, size)
		return err
	}
	if err := with(func(map[string]any) {}); err != nil {
		t.Fatal("two good slots: ", err)
	}
	if err := with(func(s map[string]any) { s["area"].(map[string]any)["offset"] = "159744" }); !errors.Is(err, ErrOverlap) {
		t.Errorf("overlapping areas: %v", err)
	}
	if err := with(func(s map[string]any) {
		s["key_size"] = 64
		s["area"].(map[string]any)["size"] = "258048"
	}); !errors.Is(err, ErrSize) {
		t.Errorf("keys of two sizes: %v", err)
	}
}

// TestStrictBinary spoils fields of the binary header under a right checksum.
func TestStrictBinary(t *testing.T) {
	const size = 18 << 20
	good := unpack(t, "luks2-argon2id.gz")
	for _, test := range []struct {
		name  string
		spoil func(b []byte)
		want  error
	}{
		{"version", func(b []byte) { b[offsetVersion+1] = 3 }, ErrUnsupported},
		{"sequence number 0", func(b []byte) { b[offsetSeqID+7] = 0 }, ErrSize},
		{"sequence number near its end", func(b []byte) { b[offsetSeqID] = 0xff }, ErrSize},
		{"own offset", func(b []byte) { b[offsetSelf+5]++ }, ErrMalformed},
		{"label without end", func(b []byte) {
			for i := range 48 {
				b[offsetLabel+i] = 'x'
			}
		}, ErrMalformed},
		{"escape in label", func(b []byte) { b[offsetLabel] = 0x1b }, ErrMalformed},
		{"bytes behind label", func(b []byte) { b[offsetLabel+40] = 'x' }, ErrMalformed},
		{"UUID", func(b []byte) { b[offsetUUID+3] = 'g' }, ErrMalformed},
		{"padding", func(b []byte) { b[offsetPadding+9] = 1 }, ErrMalformed},
		{"second padding", func(b []byte) { b[4000] = 1 }, ErrMalformed},
		{"something behind the JSON", func(b []byte) { b[16383] = 1 }, ErrMalformed},
		{"JSON without end", func(b []byte) {
			for i := binarySize; i < 16384; i++ {
				if b[i] == 0 {
					b[i] = ' '
				}
			}
		}, ErrMalformed},
	} {
		b := bytes.Clone(good)
		for _, at := range []int{0, 16384} {
			test.spoil(b[at : at+16384])
			sign(b[at : at+16384])
		}
		if h, err := Read(memory{b, size}, size); !errors.Is(err, test.want) || h != nil {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		// A refused copy refuses the header, though the other one is good.
		one := bytes.Clone(good)
		test.spoil(one[:16384])
		sign(one[:16384])
		if h, err := Read(memory{one, size}, size); err == nil || h != nil {
			t.Errorf("%s in the primary copy alone was passed over", test.name)
		}
	}
}

// TestStrictLUKS1 spoils one thing after the other in a LUKS1 header.
func TestStrictLUKS1(t *testing.T) {
	const size = 18 << 20
	good := unpack(t, "luks1.gz")
	put := func(at int, n uint32) func([]byte) {
		return func(b []byte) { binary.BigEndian.PutUint32(b[at:], n) }
	}
	text := func(at int, s string) func([]byte) {
		return func(b []byte) { clear(b[at : at+32]); copy(b[at:], s) }
	}
	second := luks1Slots + luks1SlotSize
	for _, test := range []struct {
		name  string
		spoil func(b []byte)
		want  error
	}{
		{"null cipher", text(luks1Cipher, "cipher_null"), ErrCipher},
		{"cipher mode", text(luks1Mode, "ecb"), ErrCipher},
		{"no cipher", text(luks1Cipher, ""), ErrCipher},
		{"hash", text(luks1Hash, "crc32"), ErrHash},
		{"key bytes", put(luks1KeyBytes, 48), ErrSize},
		{"key bytes huge", put(luks1KeyBytes, 0xffffffff), ErrSize},
		{"no digest", func(b []byte) { clear(b[luks1Digest:luks1Salt]) }, ErrDigest},
		{"digest iterations", put(luks1Iterations, 0), ErrCost},
		{"digest iterations huge", put(luks1Iterations, 0xffffffff), ErrCost},
		{"payload over header", put(luks1Payload, 0), ErrOverlap},
		{"payload over slots", put(luks1Payload, 16), ErrOverlap},
		{"payload behind the end", put(luks1Payload, 0xffffffff), ErrSize},
		{"UUID", func(b []byte) { b[luks1UUID] = 'x' }, ErrMalformed},
		{"slot state", put(luks1Slots, 1), ErrMalformed},
		{"slot iterations", put(luks1Slots+4, 1), ErrCost},
		{"slot iterations huge", put(luks1Slots+4, 0xffffffff), ErrCost},
		{"slot over header", put(luks1Slots+40, 0), ErrOverlap},
		{"slot behind the end", put(luks1Slots+40, 0xffffffff), ErrOverlap},
		{"stripes", put(luks1Slots+44, 1), ErrMalformed},
		{"slots overlap", func(b []byte) {
			copy(b[second:second+luks1SlotSize], b[luks1Slots:])
			put(second+40, 9)(b)
		}, ErrOverlap},
	} {
		b := bytes.Clone(good)
		test.spoil(b)
		if h, err := Read(memory{b, size}, size); !errors.Is(err, test.want) || h != nil {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	h, err := Read(memory{good, size}, size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Encode(); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Encode: %v", err)
	}
	if _, err := h.AddKey(nil, testPassphrase, testPassphrase, MinimalPBKDF2, nil); !errors.Is(err, ErrReadOnly) {
		t.Errorf("AddKey: %v", err)
	}
	if _, err := h.RemoveKey(nil, testPassphrase, nil); !errors.Is(err, ErrReadOnly) {
		t.Errorf("RemoveKey: %v", err)
	}
}
