package luks

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sealboot/sealboot/luks/xts"
)

// Slot describes a key slot.
type Slot struct {
	ID       int
	KDF      KDF
	Priority int   // 0: only when asked for by number; 2: tried first
	Offset   int64 // of its area, from the start of the device
	Size     int64
}

// Slots lists the key slots in the order of their numbers.
func (h *Header) Slots() []Slot {
	var slots []Slot
	for _, id := range slices.Sorted(maps.Keys(h.meta.slots)) {
		s := h.meta.slots[id]
		slots = append(slots, Slot{ID: id, KDF: s.kdf, Priority: s.priority, Offset: s.offset, Size: s.size})
	}
	return slots
}

// Unlock tries the key slots one after the other, and gives the first that the passphrase
// opens and the volume key. ErrNoKey says that none does.
func (h *Header) Unlock(passphrase []byte) (slot int, key *VolumeKey, err error) {
	slots := h.Slots()
	slices.SortStableFunc(slots, func(a, b Slot) int { return cmp.Compare(b.Priority, a.Priority) })
	for _, s := range slots {
		if s.Priority == 0 {
			continue
		}
		key, err := h.UnlockSlot(s.ID, passphrase)
		if errors.Is(err, ErrNoKey) {
			continue
		} else if err != nil {
			return 0, nil, err
		}
		return s.ID, key, nil
	}
	return 0, nil, ErrNoKey
}

// UnlockSlot tries one key slot, whatever its priority. ErrNoKey says that the passphrase does
// not open it.
func (h *Header) UnlockSlot(slot int, passphrase []byte) (*VolumeKey, error) {
	if len(passphrase) == 0 {
		return nil, ErrEmptyPassphrase
	}
	s := h.meta.slots[slot]
	if s == nil {
		return nil, fmt.Errorf("key slot %d: %w", slot, ErrNoSlot)
	}
	key, err := s.open(passphrase)
	if err != nil {
		return nil, fmt.Errorf("open key slot %d: %w", slot, err)
	}
	right, err := h.meta.digest.matches(key)
	if err == nil && !right {
		err = ErrNoKey
	}
	if err != nil {
		clear(key)
		return nil, err
	}
	return &VolumeKey{key}, nil
}

// open gives what the slot holds under this passphrase: the volume key, or random bytes.
func (s *keyslot) open(passphrase []byte) ([]byte, error) {
	newHash, err := hashByName(s.afHash)
	if err != nil {
		return nil, err
	}
	c, err := s.areaCipher(passphrase)
	if err != nil {
		return nil, err
	}
	pieces := make([]byte, len(s.material))
	defer clear(pieces)
	c.Decrypt(pieces, s.material, 0, 512, 1)
	return merge(pieces, s.keyBytes, newHash), nil
}

// seal puts a volume key into the slot.
func (s *keyslot) seal(key *VolumeKey, pieces, passphrase []byte) error {
	c, err := s.areaCipher(passphrase)
	if err != nil {
		return err
	}
	s.material = make([]byte, len(pieces))
	c.Encrypt(s.material, pieces, 0, 512, 1)
	return nil
}

// areaCipher encrypts the area, in sectors of 512 bytes counted from the area's start.
func (s *keyslot) areaCipher(passphrase []byte) (*xts.Cipher, error) {
	stretched, err := s.kdf.derive(passphrase, s.salt, s.areaKey)
	if err != nil {
		return nil, err
	}
	defer clear(stretched)
	return xts.New(stretched)
}
