package luks

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// Spec says what header to make. Zero values are the defaults.
type Spec struct {
	UUID       string // "": a random one (version 4)
	Label      string // at most 47 bytes
	SectorSize int    // 512 or 4096; 0: 4096
	DataOffset int64  // bytes; 0: 16 MiB
	KDF        KDF    // of the first key slot; zero: DefaultArgon2id
}

const (
	defaultDataOffset = 16 << 20 // cryptsetup's
	defaultHeaderSize = 16 << 10 // of one copy, cryptsetup's
	volumeKeyBytes    = 64       // AES-256 in XTS mode: two keys
	afHash            = "sha256"
	writtenArea       = (volumeKeyBytes*stripes + alignment - 1) / alignment * alignment
	minDataOffset     = 2*defaultHeaderSize + writtenArea
	maxDataOffset     = 1 << 40
)

func (s Spec) withDefaults() Spec {
	if s.SectorSize == 0 {
		s.SectorSize = 4096
	}
	if s.DataOffset == 0 {
		s.DataOffset = defaultDataOffset
	}
	if s.KDF == (KDF{}) {
		s.KDF = DefaultArgon2id
	}
	return s
}

// Validate says what is wrong with the Spec.
func (s Spec) Validate() error {
	s = s.withDefaults()
	if s.UUID != "" && (!validUUID(s.UUID) || s.UUID != strings.ToLower(s.UUID)) {
		return refuse(ErrMalformed, "uuid", "%q is not of the form 8-4-4-4-12 in lower case", s.UUID)
	}
	if len(s.Label) >= offsetSumAlg-offsetLabel {
		return refuse(ErrSize, "label", "%d bytes, want at most %d", len(s.Label), offsetSumAlg-offsetLabel-1)
	}
	if _, err := fixedString(append([]byte(s.Label), 0), "label"); err != nil {
		return err
	}
	if s.SectorSize != 512 && s.SectorSize != 4096 {
		return refuse(ErrSize, "sector size", "%d, want 512 or 4096", s.SectorSize)
	}
	if s.DataOffset%alignment != 0 || s.DataOffset < minDataOffset || s.DataOffset > maxDataOffset {
		return refuse(ErrSize, "data offset", "%d, want a multiple of %d from %d to %d", s.DataOffset, alignment, minDataOffset, int64(maxDataOffset))
	}
	return s.KDF.Validate()
}

// Validate says what is wrong with a KDF for a new key slot.
func (k KDF) Validate() error {
	if k.Type == Argon2i {
		return refuse(ErrUnsupported, "kdf.type", "%q is only read", k.Type)
	}
	if k.Type == PBKDF2 && k.Hash != "sha256" && k.Hash != "sha512" {
		return refuse(ErrHash, "kdf.hash", "%q, want sha256 or sha512", k.Hash)
	}
	return k.check("kdf", DefaultLimits)
}

// Format makes a header with a new volume key in key slot 0. The caller passes
// [crypto/rand.Reader]; equal random bytes give an equal header.
func Format(spec Spec, passphrase []byte, random io.Reader) (*Header, *VolumeKey, error) {
	if err := spec.Validate(); err != nil {
		return nil, nil, err
	}
	spec = spec.withDefaults()
	uuid, err := spec.uuid(random)
	if err != nil {
		return nil, nil, err
	}
	key, err := newVolumeKey(volumeKeyBytes, random)
	if err != nil {
		return nil, nil, err
	}
	h := &Header{version: 2, uuid: uuid, label: spec.Label, status: Status{Version: 2, Sequence: 1}}
	for i := range h.copies {
		h.copies[i] = &binaryHeader{
			size: defaultHeaderSize, seqID: 1, label: spec.Label, sumAlg: "sha256", uuid: uuid, offset: int64(i) * defaultHeaderSize,
		}
	}
	h.meta = &metadata{
		slots:        map[int]*keyslot{},
		tokens:       map[string]map[string]any{},
		segment:      Segment{Offset: spec.DataOffset, SectorSize: spec.SectorSize, Cipher: cipherXTS, KeyBytes: volumeKeyBytes},
		jsonSize:     defaultHeaderSize - binarySize,
		keyslotsSize: min(spec.DataOffset-2*defaultHeaderSize, maxSlotsSize),
	}
	if err := h.fill(spec.KDF, key, passphrase, random); err != nil {
		key.Wipe()
		return nil, nil, err
	}
	return h, key, nil
}

func (h *Header) fill(kdf KDF, key *VolumeKey, passphrase []byte, random io.Reader) error {
	salt := make([]byte, 32)
	for _, b := range [][]byte{h.copies[Primary].salt[:], h.copies[Secondary].salt[:], salt} {
		if _, err := io.ReadFull(random, b); err != nil {
			return fmt.Errorf("make salt: %w", err)
		}
	}
	var err error
	if h.meta.digest, err = newDigest(key, salt); err != nil {
		return err
	}
	slot, err := newKeyslot(kdf, key, passphrase, random)
	if err != nil {
		return err
	}
	slot.offset = 2 * defaultHeaderSize
	h.meta.slots[0] = slot
	return nil
}

// newKeyslot makes a key slot that has no place yet.
func newKeyslot(kdf KDF, key *VolumeKey, passphrase []byte, random io.Reader) (*keyslot, error) {
	if len(passphrase) == 0 {
		return nil, ErrEmptyPassphrase
	}
	newHash, err := hashByName(afHash)
	if err != nil {
		return nil, err
	}
	s := &keyslot{
		keyBytes: len(key.bytes), priority: 1, afHash: afHash, cipher: cipherXTS, areaKey: 64,
		size: (areaSize(len(key.bytes)) + alignment - 1) / alignment * alignment,
		kdf:  kdf, salt: make([]byte, 32),
	}
	if _, err := io.ReadFull(random, s.salt); err != nil {
		return nil, fmt.Errorf("make salt: %w", err)
	}
	pieces, err := split(key.bytes, newHash, random)
	if err != nil {
		return nil, err
	}
	defer clear(pieces)
	if err := s.seal(key, pieces, passphrase); err != nil {
		return nil, err
	}
	return s, nil
}

// uuid makes a random UUID (RFC 9562, version 4) where the Spec names none.
func (s Spec) uuid(random io.Reader) (string, error) {
	if s.UUID != "" {
		return s.UUID, nil
	}
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("make UUID: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	x := hex.EncodeToString(b[:])
	return strings.Join([]string{x[:8], x[8:12], x[12:16], x[16:20], x[20:]}, "-"), nil
}

// Encode gives the header as it stands at the start of the device: both copies, then the
// key slots' areas up to the end of the last one. What follows up to the data may be anything.
func (h *Header) Encode() ([]byte, error) {
	if h.version != 2 {
		return nil, ErrReadOnly
	}
	end := 2 * h.copies[Primary].size
	for _, s := range h.meta.slots {
		end = max(end, s.offset+s.size)
	}
	out := make([]byte, end)
	copies, err := h.encodeCopies()
	if err != nil {
		return nil, err
	}
	for i, image := range copies {
		copy(out[h.copies[i].offset:], image)
	}
	for _, s := range h.meta.slots {
		copy(out[s.offset:], s.material)
	}
	return out, nil
}

func (h *Header) encodeCopies() (copies [2][]byte, err error) {
	text, err := h.meta.text()
	if err != nil {
		return copies, fmt.Errorf("encode LUKS header: %w", err)
	}
	for i, magic := range [][]byte{magicPrimary, magicSecondary} {
		if copies[i], err = h.copies[i].encode(magic, text); err != nil {
			return [2][]byte{}, fmt.Errorf("encode LUKS header: %w", err)
		}
	}
	return copies, nil
}
