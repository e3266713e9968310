package agent

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/sealboot/sealboot/luks"
	"github.com/sealboot/sealboot/luks/layout"
)

// Mapper makes block devices.
type Mapper interface {
	// Map makes the device t.Name. It does not keep the key.
	Map(t Table, key []byte) error
}

// Table describes the device, in the terms of dm-crypt (Linux Documentation/admin-guide/device-mapper/dm-crypt).
type Table struct {
	Name       string // RootName or BootName
	UUID       string // LUKS UUID
	Device     string // MAJOR:MINOR of the disk
	Cipher     string
	Start      int64 // first byte on the disk
	Length     int64 // bytes
	SectorSize int
	IVOffset   uint64 // of the first sector, in units of linuxSector
}

// linuxSector is the unit of the device mapper, and of the IV of plain64.
const linuxSector = 512

// Unlock checks the disk that was found against the keys and opens it. It says whether there is a boot volume beside the root.
func Unlock(found *Found, keys *Keys, m Mapper) (bool, error) {
	// First of all: nothing of a header that is not the recorded one is used.
	if !keys.Pin.Equal(found.Header.Pin()) {
		return false, fmt.Errorf("%w: %s", ErrPin, found.Name)
	}
	payload, err := tableFor(found)
	if err != nil {
		return false, err
	}
	key, err := volumeKey(found.Header, keys.Passphrase)
	if err != nil {
		return false, fmt.Errorf("%w: %s: %w", ErrKey, found.Name, err)
	}
	defer key.Wipe()
	tables, err := divide(found, payload, key)
	if err != nil {
		return false, err
	}
	for _, t := range tables {
		if err := m.Map(t, key.Bytes()); err != nil {
			return false, fmt.Errorf("open %s on %s: %w", t.Name, found.Name, err)
		}
	}
	return len(tables) > 1, nil
}

// divide gives the devices that are in the payload, the root first.
func divide(found *Found, payload Table, key *luks.VolumeKey) ([]Table, error) {
	boot, err := bootSize(found, payload, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBootVolume, found.Name, err)
	}
	root := payload.part(RootName, boot, payload.Length-boot)
	if boot == 0 {
		return []Table{root}, nil
	}
	return []Table{root, payload.part(BootName, 0, boot)}, nil
}

// part gives the table of some of the sectors. The IV of each stays that of its place in the whole.
func (t Table) part(name string, offset, length int64) Table {
	t.Name, t.Start, t.Length = name, t.Start+offset, length
	t.IVOffset += uint64(offset) / linuxSector
	return t
}

// bootSize decrypts the beginning of the payload to see whether it is a boot volume.
func bootSize(found *Found, payload Table, key *luks.VolumeKey) (int64, error) {
	const sectors = 4096 // at least layout.Head, and whole sectors of any size
	if payload.Length < sectors {
		return 0, nil
	}
	cipher, err := luks.NewCipher(key, payload.SectorSize, payload.IVOffset)
	if err != nil {
		return 0, err
	}
	head := make([]byte, sectors)
	if _, err := found.Disk.ReadAt(head, payload.Start); err != nil {
		return 0, err
	}
	if err := cipher.Decrypt(head, head, 0); err != nil {
		return 0, err
	}
	return layout.BootSize(head, payload.Length)
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

// tableFor places the data segment, which is the payload, on the disk.
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
