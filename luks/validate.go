package luks

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
)

// span is a piece of the device.
type span struct {
	name         string
	offset, size int64
}

func (s span) end() int64 { return s.offset + s.size } // both are below 2^62

// checkSpans refuses areas that overlap.
func checkSpans(spans []span) error {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.offset, b.offset) })
	for i := 1; i < len(spans); i++ {
		if spans[i-1].end() > spans[i].offset {
			return refuse(ErrOverlap, spans[i].name, "%d+%d and %s %d+%d", spans[i].offset, spans[i].size,
				spans[i-1].name, spans[i-1].offset, spans[i-1].size)
		}
	}
	return nil
}

// validate checks what the parts of LUKS2 metadata say about each other and about the device.
func (m *metadata) validate(headerSize, device int64, limits Limits) error {
	if m.jsonSize != headerSize-binarySize {
		return refuse(ErrSize, "config.json_size", "%d, want %d", m.jsonSize, headerSize-binarySize)
	}
	if m.keyslotsSize%alignment != 0 || m.keyslotsSize > maxSlotsSize {
		return refuse(ErrSize, "config.keyslots_size", "%d", m.keyslotsSize)
	}
	slotsArea := span{"key slots", 2 * headerSize, m.keyslotsSize}
	if slotsArea.end() > m.segment.Offset {
		return refuse(ErrOverlap, "segments.0.offset", "%d, key slots end at %d", m.segment.Offset, slotsArea.end())
	}
	var spans []span
	for _, id := range slices.Sorted(maps.Keys(m.slots)) {
		s, field := m.slots[id], fmt.Sprintf("keyslots.%d.area", id)
		if s.offset%alignment != 0 || s.size%alignment != 0 || s.offset < slotsArea.offset || s.offset+s.size > slotsArea.end() {
			return refuse(ErrSize, field, "%d+%d, key slots lie at %d+%d", s.offset, s.size, slotsArea.offset, slotsArea.size)
		}
		spans = append(spans, span{field, s.offset, s.size})
	}
	if err := checkSpans(spans); err != nil {
		return err
	}
	return m.validateCommon(device, limits)
}

// validateCommon holds for LUKS1 too.
func (m *metadata) validateCommon(device int64, limits Limits) error {
	if err := m.segment.validate(device); err != nil {
		return err
	}
	d := m.digest
	if _, err := hashByName(d.hash); err != nil {
		return refuse(ErrHash, "digests.0.hash", "%q", d.hash)
	}
	if d.iterations < minIterations || d.iterations > limits.Iterations {
		return refuse(ErrCost, "digests.0.iterations", "%d, want %d to %d", d.iterations, minIterations, limits.Iterations)
	}
	keyBytes := 0
	for _, id := range slices.Sorted(maps.Keys(m.slots)) {
		s, field := m.slots[id], fmt.Sprintf("keyslots.%d", id)
		if keyBytes == 0 {
			keyBytes = s.keyBytes
		}
		if !keySize(s.keyBytes) || s.keyBytes != keyBytes {
			return refuse(ErrSize, field+".key_size", "%d", s.keyBytes)
		}
		if !keySize(s.areaKey) {
			return refuse(ErrSize, field+".area.key_size", "%d", s.areaKey)
		}
		if s.size < areaSize(s.keyBytes) || s.offset+s.size > device {
			return refuse(ErrSize, field+".area", "%d+%d for a key of %d bytes, device of %d", s.offset, s.size, s.keyBytes, device)
		}
		if _, err := hashByName(s.afHash); err != nil {
			return refuse(ErrHash, field+".af.hash", "%q", s.afHash)
		}
		if err := s.kdf.check(field+".kdf", limits); err != nil {
			return err
		}
	}
	m.segment.KeyBytes = keyBytes
	return nil
}

func (s Segment) validate(device int64) error {
	if s.SectorSize != 512 && s.SectorSize != 1024 && s.SectorSize != 2048 && s.SectorSize != 4096 {
		return refuse(ErrSize, "segments.0.sector_size", "%d", s.SectorSize)
	}
	if s.Offset%512 != 0 || s.Offset > device {
		return refuse(ErrSize, "segments.0.offset", "%d, device of %d", s.Offset, device)
	}
	// A fixed size is checked against the device unless nothing but the header is there.
	if s.Size%int64(s.SectorSize) != 0 || s.Size > math.MaxInt64/2 || device > s.Offset && s.Size > device-s.Offset {
		return refuse(ErrSize, "segments.0.size", "%d at %d, device of %d", s.Size, s.Offset, device)
	}
	if s.IVTweak%uint64(s.SectorSize/512) != 0 {
		return refuse(ErrMalformed, "segments.0.iv_tweak", "%d with sectors of %d", s.IVTweak, s.SectorSize)
	}
	return nil
}

// keySize knows AES-XTS with two keys of 128 or of 256 bits.
func keySize(bytes int) bool { return bytes == 32 || bytes == 64 }

// areaSize is the length of a split key, which is a whole number of 512-byte sectors.
func areaSize(keyBytes int) int64 { return int64(keyBytes) * stripes }
