package luks

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The LUKS1 header (LUKS1 specification, "PHDR layout"): 592 bytes, big-endian, then 8 key
// slots' areas.
const (
	luks1Cipher     = 8
	luks1Mode       = 40
	luks1Hash       = 72
	luks1Payload    = 104
	luks1KeyBytes   = 108
	luks1Digest     = 112
	luks1Salt       = 132
	luks1Iterations = 164
	luks1UUID       = 168
	luks1Slots      = 208
	luks1SlotSize   = 48
	luks1SlotCount  = 8
	luks1End        = luks1Slots + luks1SlotCount*luks1SlotSize

	luks1Enabled  = 0x00AC71F3
	luks1Disabled = 0x0000DEAD
)

// readLUKS1 puts a LUKS1 header into the same form as a LUKS2 header.
func readLUKS1(r io.ReaderAt, size int64, b []byte, limits Limits) (*Header, error) {
	var text [4]string
	for i, f := range []struct {
		name     string
		from, up int
	}{{"cipher-name", luks1Cipher, luks1Mode}, {"cipher-mode", luks1Mode, luks1Hash}, {"hash-spec", luks1Hash, luks1Payload}, {"uuid", luks1UUID, luks1Slots}} {
		var err error
		if text[i], err = fixedString(b[f.from:f.up], f.name); err != nil {
			return nil, err
		}
	}
	cipher, hash, uuid := text[0]+"-"+text[1], text[2], text[3]
	if cipher != cipherXTS {
		return nil, refuse(ErrCipher, "cipher", "%q", cipher)
	}
	if !validUUID(uuid) {
		return nil, refuse(ErrMalformed, "uuid", "%q", uuid)
	}
	number := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	keyBytes := number(luks1KeyBytes)
	if keyBytes > 64 || !keySize(int(keyBytes)) {
		return nil, refuse(ErrSize, "key-bytes", "%d", keyBytes)
	}
	iterations := number(luks1Iterations)
	if int64(iterations) > int64(limits.Iterations) {
		return nil, refuse(ErrCost, "mk-digest-iter", "%d", iterations)
	}
	m := &metadata{
		slots:   map[int]*keyslot{},
		segment: Segment{Offset: int64(number(luks1Payload)) * 512, SectorSize: 512, Cipher: cipher, KeyBytes: int(keyBytes)},
		digest:  digest{hash: hash, iterations: int(iterations), salt: b[luks1Salt:luks1Iterations], value: b[luks1Digest:luks1Salt]},
	}
	if isZero(m.digest.value) {
		return nil, refuse(ErrDigest, "mk-digest", "all zero")
	}
	spans := []span{{"header", 0, luks1End}, {"payload", m.segment.Offset, 1 << 61}}
	for i := range luks1SlotCount {
		at, field := luks1Slots+i*luks1SlotSize, fmt.Sprintf("keyslots.%d", i)
		switch active := number(at); active {
		case luks1Disabled:
			continue
		case luks1Enabled:
		default:
			return nil, refuse(ErrMalformed, field, "neither active nor not: %#x", active)
		}
		if n := number(at + 44); n != stripes {
			return nil, refuse(ErrMalformed, field, "%d stripes, want %d", n, stripes)
		}
		if n := number(at + 4); int64(n) > int64(limits.Iterations) {
			return nil, refuse(ErrCost, field+".kdf.iterations", "%d", n)
		}
		s := &keyslot{
			keyBytes: int(keyBytes), priority: 1, afHash: hash, cipher: cipher, areaKey: int(keyBytes),
			offset: int64(number(at+40)) * 512, size: areaSize(int(keyBytes)),
			kdf:  KDF{Type: PBKDF2, Hash: hash, Iterations: int(number(at + 4))},
			salt: b[at+8 : at+40],
		}
		spans = append(spans, span{field, s.offset, s.size})
		m.slots[i] = s
	}
	if err := checkSpans(spans); err != nil {
		return nil, err
	}
	if err := m.validateCommon(size, limits); err != nil {
		return nil, err
	}
	m.segment.KeyBytes = int(keyBytes) // also with no slot left
	h := &Header{version: 1, uuid: uuid, meta: m, status: Status{Version: 1}}
	if err := h.readSlots(r, size); err != nil {
		return nil, err
	}
	return h, nil
}
