package luks

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"slices"
	"unicode"
	"unicode/utf8"
)

// The binary header (LUKS2 specification, "Binary Header"): 4096 bytes, big-endian.
const (
	binarySize    = 4096
	offsetVersion = 6
	offsetSize    = 8
	offsetSeqID   = 16
	offsetLabel   = 24
	offsetSumAlg  = 72
	offsetSalt    = 104
	offsetUUID    = 168
	offsetSubsys  = 208
	offsetSelf    = 256
	offsetPadding = 264
	offsetSum     = 448
	offsetPad4096 = 512

	sumSize  = 64
	saltSize = 64
)

var (
	magicPrimary   = []byte("LUKS\xba\xbe")
	magicSecondary = []byte("SKUL\xba\xbe")
	// headerSizes are the sizes of one copy that exist (LUKS2 specification, "JSON Area"),
	// and so the offsets at which a second copy can lie.
	headerSizes = []int64{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20}
)

// maxSeqID leaves room to count on.
const maxSeqID = 1 << 62

// binaryHeader is the part of a copy before its JSON.
type binaryHeader struct {
	size      int64 // of the copy, JSON included
	seqID     uint64
	label     string
	sumAlg    string
	salt      [saltSize]byte
	uuid      string
	subsystem string
	offset    int64 // where this copy lies
}

// measureCopy reads what is needed to take the checksum of a copy: its size and the checksum's
// algorithm.
func measureCopy(b, magic []byte) (size int64, sumAlg string, err error) {
	if len(b) < binarySize || !bytes.Equal(b[:len(magic)], magic) {
		return 0, "", ErrNotLUKS
	}
	told := binary.BigEndian.Uint64(b[offsetSize:])
	if told > uint64(slices.Max(headerSizes)) || !slices.Contains(headerSizes, int64(told)) {
		return 0, "", refuse(ErrSize, "hdr_size", "%d", told)
	}
	sumAlg, err = fixedString(b[offsetSumAlg:offsetSalt], "csum_alg")
	if err != nil {
		return 0, "", err
	}
	if _, err := hashByName(sumAlg); err != nil || sumAlg == "sha1" {
		return 0, "", refuse(ErrHash, "csum_alg", "%q", sumAlg)
	}
	return int64(told), sumAlg, nil
}

// parseBinary reads the binary header of a copy whose checksum is right.
func parseBinary(b []byte, at int64) (*binaryHeader, error) {
	if v := binary.BigEndian.Uint16(b[offsetVersion:]); v != 2 {
		return nil, refuse(ErrUnsupported, "version", "%d", v)
	}
	h := &binaryHeader{size: int64(len(b)), seqID: binary.BigEndian.Uint64(b[offsetSeqID:]), offset: at}
	if h.seqID == 0 || h.seqID >= maxSeqID {
		return nil, refuse(ErrSize, "seqid", "%d", h.seqID)
	}
	if self := binary.BigEndian.Uint64(b[offsetSelf:]); self != uint64(at) {
		return nil, refuse(ErrMalformed, "hdr_offset", "%d, read at %d", self, at)
	}
	var err error
	for _, f := range []struct {
		name     string
		to       *string
		from, up int
	}{
		{"label", &h.label, offsetLabel, offsetSumAlg},
		{"csum_alg", &h.sumAlg, offsetSumAlg, offsetSalt},
		{"uuid", &h.uuid, offsetUUID, offsetSubsys},
		{"subsystem", &h.subsystem, offsetSubsys, offsetSelf},
	} {
		if *f.to, err = fixedString(b[f.from:f.up], f.name); err != nil {
			return nil, err
		}
	}
	if !validUUID(h.uuid) {
		return nil, refuse(ErrMalformed, "uuid", "%q", h.uuid)
	}
	if !isZero(b[offsetPadding:offsetSum]) || !isZero(b[offsetPad4096:binarySize]) {
		return nil, refuse(ErrMalformed, "padding", "not zero")
	}
	copy(h.salt[:], b[offsetSalt:offsetUUID])
	return h, nil
}

// checkSum compares the checksum over the whole copy, in which the checksum itself counts as zeros.
func checkSum(image []byte, alg string) error {
	sum, err := checksum(image, alg)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(sum[:], image[offsetSum:offsetSum+sumSize]) != 1 {
		return ErrChecksum
	}
	return nil
}

func checksum(image []byte, alg string) (sum [sumSize]byte, err error) {
	newHash, err := hashByName(alg)
	if err != nil {
		return sum, err
	}
	h := newHash()
	h.Write(image[:offsetSum])
	h.Write(make([]byte, sumSize))
	h.Write(image[offsetSum+sumSize:])
	copy(sum[:], h.Sum(nil))
	return sum, nil
}

// encode writes a whole copy: binary header, JSON, zeros, checksum.
func (h *binaryHeader) encode(magic, text []byte) ([]byte, error) {
	if int64(len(text)) >= h.size-binarySize { // a zero must follow
		return nil, ErrNoSpace
	}
	b := make([]byte, h.size)
	copy(b, magic)
	binary.BigEndian.PutUint16(b[offsetVersion:], 2)
	binary.BigEndian.PutUint64(b[offsetSize:], uint64(h.size))
	binary.BigEndian.PutUint64(b[offsetSeqID:], h.seqID)
	copy(b[offsetLabel:offsetSumAlg], h.label)
	copy(b[offsetSumAlg:offsetSalt], h.sumAlg)
	copy(b[offsetSalt:offsetUUID], h.salt[:])
	copy(b[offsetUUID:offsetSubsys], h.uuid)
	copy(b[offsetSubsys:offsetSelf], h.subsystem)
	binary.BigEndian.PutUint64(b[offsetSelf:], uint64(h.offset))
	copy(b[binarySize:], text)
	sum, err := checksum(b, h.sumAlg)
	if err != nil {
		return nil, err
	}
	copy(b[offsetSum:], sum[:])
	return b, nil
}

// fixedString takes a string that ends at a zero byte, with nothing but zeros behind.
func fixedString(b []byte, field string) (string, error) {
	text, rest, found := bytes.Cut(b, []byte{0})
	if !found || !isZero(rest) {
		return "", refuse(ErrMalformed, field, "not a zero-padded string")
	}
	if !utf8.Valid(text) || bytes.ContainsFunc(text, unicode.IsControl) {
		return "", refuse(ErrMalformed, field, "%q", text)
	}
	return string(text), nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// validUUID knows the text form alone: 8-4-4-4-12 hexadecimal digits.
func validUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
				return false
			}
		}
	}
	return true
}
