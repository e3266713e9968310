package luks

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// Pin identifies what a header decides: how the data is decrypted, and which volume key is right.
//
// It is the SHA-256 of the text "sealboot LUKS pin 1\n" followed by these fields in order, each
// preceded by its length as a 64-bit number, numbers being 64 bits wide, all big-endian: the
// version (1 or 2), the UUID in lower case, the data segment's offset, size (0: to the end), IV
// tweak, sector size, key bytes, cipher; the volume key digest's hash, iterations, salt and
// value.
//
// Key slots are not in it, so that passphrases can be changed. This suffices: a key slot only
// proposes a volume key, which counts only if it meets the digest (PBKDF2 of the volume key, at
// least 160 bits), and the digest is in the pin. A host that swaps the slots can at most offer
// the same volume key, or none. It cannot offer a key of its own, a null cipher, another sector
// size, or data from another place. Left out too are labels, tokens, flags and sizes of the
// header itself: nothing of them reaches the decryption of data.
//
// The pin does not authenticate the data: XTS has no integrity.
type Pin [32]byte

const pinDomain = "sealboot LUKS pin 1\n"

// Pin computes the header's pin.
func (h *Header) Pin() Pin {
	sum := sha256.New()
	sum.Write([]byte(pinDomain))
	field := func(b []byte) {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(b)))
		sum.Write(length[:])
		sum.Write(b)
	}
	number := func(n uint64) { field(binary.BigEndian.AppendUint64(nil, n)) }
	s, d := h.meta.segment, h.meta.digest
	number(uint64(h.version))
	field([]byte(strings.ToLower(h.uuid)))
	number(uint64(s.Offset))
	number(uint64(s.Size))
	number(s.IVTweak)
	number(uint64(s.SectorSize))
	number(uint64(s.KeyBytes))
	field([]byte(s.Cipher))
	field([]byte(d.hash))
	number(uint64(d.iterations))
	field(d.salt)
	field(d.value)
	return Pin(sum.Sum(nil))
}

// Equal compares in constant time.
func (p Pin) Equal(q Pin) bool { return subtle.ConstantTimeCompare(p[:], q[:]) == 1 }

// String gives 64 hexadecimal digits.
func (p Pin) String() string { return hex.EncodeToString(p[:]) }

// MarshalText and UnmarshalText make JSON show the digits.
func (p Pin) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (p *Pin) UnmarshalText(text []byte) error {
	parsed, err := ParsePin(string(text))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}

// ParsePin reads 64 lower-case hexadecimal digits.
func ParsePin(s string) (Pin, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(Pin{}) || hex.EncodeToString(b) != s {
		return Pin{}, fmt.Errorf("header pin %q is not 64 lower-case hexadecimal digits", s)
	}
	return Pin(b), nil
}
