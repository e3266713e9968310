package agent

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/sealboot/sealboot/luks"
)

// Mapper makes the block device of the root.
type Mapper interface {
	// Map makes the device RootName. It does not keep the key.
	Map(t Table, key []byte) error
}

// Table describes the device, in the terms of dm-crypt (Linux Documentation/admin-guide/device-mapper/dm-crypt).
type Table struct {
	UUID       string // LUKS UUID
	Device     string // MAJOR:MINOR of the disk
	Cipher     string
	Start      int64 // first byte of the data on the disk
	Length     int64 // bytes
	SectorSize int
	IVOffset   uint64
}

// linuxSector is the unit of the device mapper, and of the IV of plain64.
const linuxSector = 512

// Unlock checks the disk that was found against the keys and opens it.
func Unlock(found *Found, keys *Keys, m Mapper) error {
	// First of all: nothing of a header that is not the recorded one is used.
	if !keys.Pin.Equal(found.Header.Pin()) {
		return fmt.Errorf("%w: %s", ErrPin, found.Name)
	}
	table, err := tableFor(found)
	if err != nil {
		return err
	}
	key, err := volumeKey(found.Header, keys.Passphrase)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrKey, found.Name, err)
	}
	defer key.Wipe()
	if err := m.Map(table, key.Bytes()); err != nil {
		return fmt.Errorf("open %s: %w", found.Name, err)
	}
	return nil
}

// volumeKey tries the key slots.
func volumeKey(h *luks.Header, passphrase []byte) (*luks.VolumeKey, error) {
	for _, s := range cheapFirst(h.Slots()) {
		key, err := h.UnlockSlot(s.ID, passphrase)
		if err == nil || !errors.Is(err, luks.ErrNoKey) {
			return key, err
		}
	}
	return nil, luks.ErrNoKey
}

// cheapFirst sorts slots by what they cost. Key slots are not in the pin: an owner may have added one for a
// person, whose Argon2 takes more memory than the guest has, and so may the host have.
func cheapFirst(slots []luks.Slot) []luks.Slot {
	slices.SortStableFunc(slots, func(a, b luks.Slot) int {
		return cmp.Or(
			cmp.Compare(a.KDF.MemoryKiB, b.KDF.MemoryKiB), // 0 for PBKDF2
			cmp.Compare(a.KDF.Iterations, b.KDF.Iterations),
			cmp.Compare(a.KDF.Time, b.KDF.Time))
	})
	return slots
}

// tableFor places the data segment on the disk.
func tableFor(found *Found) (Table, error) {
	segment, size := found.Header.Segment(), found.Disk.Size()
	sector := int64(segment.SectorSize)
	length := segment.Size
	if length == 0 { // to the end of the disk
		length = size - segment.Offset
		length -= length % sector
	}
	if segment.Offset <= 0 || segment.Offset%linuxSector != 0 || length < sector || length%sector != 0 || segment.Offset > size-length {
		return Table{}, fmt.Errorf("%w: %s has %d bytes, its data begins at %d and has %d",
			ErrTruncated, found.Name, size, segment.Offset, segment.Size)
	}
	return Table{
		UUID: found.Header.UUID(), Device: found.Disk.Number(), Cipher: segment.Cipher,
		Start: segment.Offset, Length: length, SectorSize: segment.SectorSize, IVOffset: segment.IVTweak,
	}, nil
}
