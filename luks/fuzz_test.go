package luks

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"slices"
	"testing"
)

const fuzzDisk = 18 << 20

// FuzzMetadata parses JSON, writes it, and parses it again: the same must come out.
func FuzzMetadata(f *testing.F) {
	text := jsonOf(unpack(f, "luks2-argon2id.gz"))
	f.Add(text)
	f.Add(bytes.Replace(text, []byte(`"tokens":{}`), []byte(`"tokens":{"3":{"type":"other","keyslots":["0"],"x":[1.50,null,{"y":"<\u0000"}]}}`), 1))
	f.Add(bytes.Replace(text, []byte(`"config":{`), []byte(`"config":{"flags":["allow-discards"],"requirements":{},`), 1))
	f.Add(bytes.Replace(text, []byte(`"key_size":32,"af"`), []byte(`"priority":2,"key_size":32,"af"`), 1))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMetadata(text)
		if err != nil {
			if m != nil {
				t.Error("a result beside an error")
			}
			return
		}
		written, err := m.text()
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		again, err := parseMetadata(written)
		if err != nil {
			t.Fatalf("cannot be read again: %v\n%s", err, written)
		}
		if !reflect.DeepEqual(m, again) {
			t.Errorf("%s\nbecame\n%s", text, written)
		}
	})
}

// FuzzRead reads whole headers; with right checksums, since chance does not find those. What is
// taken must encode, and read again as the same.
func FuzzRead(f *testing.F) {
	luks2, luks1 := unpack(f, "luks2-argon2id.gz"), unpack(f, "luks1.gz")
	text := jsonOf(luks2)
	f.Add(luks2[:binarySize], text, true, true)
	f.Add(luks2[:binarySize], text, false, true)
	f.Add(luks2[:binarySize], text, true, false)
	f.Add(luks1[:binarySize], []byte(nil), false, false)
	for _, good := range [][]byte{fuzzImage(luks2[:binarySize], text, true, true), fuzzImage(luks1[:binarySize], nil, false, false)} {
		if _, err := Read(memory{good, fuzzDisk}, fuzzDisk); err != nil {
			f.Fatalf("a seed is refused: %v", err)
		}
	}
	f.Fuzz(func(t *testing.T, binaryPart, text []byte, primary, secondary bool) {
		disk := fuzzImage(binaryPart, text, primary, secondary)
		h, err := Read(memory{disk, fuzzDisk}, fuzzDisk)
		if err != nil {
			if h != nil {
				t.Error("a result beside an error")
			}
			return
		}
		checkInvariants(t, h)
		if h.version == 1 {
			return
		}
		image, err := h.Encode()
		if err != nil {
			t.Fatalf("cannot be encoded: %v", err)
		}
		again, err := Read(memory{image, fuzzDisk}, fuzzDisk)
		if err != nil {
			t.Fatalf("cannot be read again: %v", err)
		}
		if again.Pin() != h.Pin() || again.Segment() != h.Segment() || !slices.Equal(again.Slots(), h.Slots()) || again.Label() != h.Label() {
			t.Error("became another header")
		}
	})
}

// fuzzImage puts a header together, with the checksums of the asked copies right.
func fuzzImage(binaryPart, text []byte, primary, secondary bool) []byte {
	image := make([]byte, 16384)
	copy(image, binaryPart[:min(len(binaryPart), binarySize)])
	copy(image[binarySize:], text)
	twin := bytes.Clone(image)
	copy(twin, magicSecondary)
	binary.BigEndian.PutUint64(twin[offsetSelf:], 16384)
	for part, right := range map[*[]byte]bool{&image: primary, &twin: secondary} {
		if right {
			sign(*part)
		}
	}
	return append(image, twin...)
}

// checkInvariants holds for everything that Read takes.
func checkInvariants(t *testing.T, h *Header) {
	s := h.Segment()
	if s.Cipher != cipherXTS || s.Offset < luks1End || s.Offset > fuzzDisk || s.Size < 0 || s.DataSize(fuzzDisk)%int64(s.SectorSize) != 0 {
		t.Errorf("segment %+v", s)
	}
	if len(h.meta.digest.value) < minDigest || h.meta.digest.iterations < minIterations {
		t.Error("a weak digest")
	}
	for _, slot := range h.meta.slots {
		if slot.cipher != cipherXTS || slot.offset+slot.size > fuzzDisk || int64(len(slot.material)) != areaSize(slot.keyBytes) {
			t.Errorf("slot at %d+%d with %s", slot.offset, slot.size, slot.cipher)
		}
		if slot.kdf.MemoryKiB > 1<<20 || slot.kdf.Iterations > 100_000_000 || slot.kdf.Parallel > 16 {
			t.Errorf("costs %+v", slot.kdf)
		}
	}
}
