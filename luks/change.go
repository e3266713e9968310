package luks

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// Disk is where a header is changed: an *os.File. Sync must make durable all that was written
// before.
//
// Changes are crash-safe. A new key slot's area, which nothing refers to yet, is written and
// synced first; then one copy of the header with the next sequence number, JSON before binary
// header; then the other copy in the same way; last, areas given up are overwritten. A sync
// stands between the steps. So at any moment one copy is whole and refers to whole key slots:
// the one that stood before, or the new one. The copy that is rewritten first is the one not in
// use, or the secondary: GRUB 2.12 believes sequence numbers without checking checksums, and
// meets no half-written header in this order either.
//
// Overwriting does not reach what flash translation, snapshots or backups keep.
//
// After an error from a write the header in memory is as before the change, but the disk
// may hold either: Read it again.
type Disk interface {
	io.WriterAt
	Sync() error
}

// AddKey puts the volume key that a passphrase opens under another passphrase too, in a
// free slot.
func (h *Header) AddKey(d Disk, passphrase, added []byte, kdf KDF, random io.Reader) (slot int, err error) {
	_, key, err := h.forChange(passphrase, kdf)
	if err != nil {
		return 0, err
	}
	defer key.Wipe()
	for slot = 0; h.meta.slots[slot] != nil; slot++ {
		if slot == maxID {
			return 0, ErrNoSpace
		}
	}
	if err := h.replace(d, slot, key, added, kdf, random); err != nil {
		return 0, err
	}
	return slot, nil
}

// ChangeKey replaces the slot that a passphrase opens by one for another passphrase. The slot
// keeps its number.
func (h *Header) ChangeKey(d Disk, passphrase, changed []byte, kdf KDF, random io.Reader) (slot int, err error) {
	slot, key, err := h.forChange(passphrase, kdf)
	if err != nil {
		return 0, err
	}
	defer key.Wipe()
	if err := h.replace(d, slot, key, changed, kdf, random); err != nil {
		return 0, err
	}
	return slot, nil
}

func (h *Header) forChange(passphrase []byte, kdf KDF) (int, *VolumeKey, error) {
	if h.version != 2 {
		return 0, nil, ErrReadOnly
	}
	if err := kdf.Validate(); err != nil {
		return 0, nil, err
	}
	return h.Unlock(passphrase)
}

// RemoveKey removes the slot that a passphrase opens. The last slot is refused with ErrLastKey.
func (h *Header) RemoveKey(d Disk, passphrase []byte, random io.Reader) (slot int, err error) {
	if h.version != 2 {
		return 0, ErrReadOnly
	}
	slot, key, err := h.Unlock(passphrase)
	if err != nil {
		return 0, err
	}
	key.Wipe()
	if err := h.RemoveSlot(d, slot, random); err != nil {
		return 0, err
	}
	return slot, nil
}

// RemoveSlot removes a slot by its number. The last slot is refused with ErrLastKey.
func (h *Header) RemoveSlot(d Disk, slot int, random io.Reader) error {
	switch {
	case h.version != 2:
		return ErrReadOnly
	case h.meta.slots[slot] == nil:
		return fmt.Errorf("key slot %d: %w", slot, ErrNoSlot)
	case len(h.meta.slots) == 1:
		return ErrLastKey
	}
	next := h.successor()
	delete(next.meta.slots, slot)
	next.forgetTokens(slot)
	return h.write(d, next, nil, random)
}

// replace fills a slot, new or not, in an area that nothing uses.
func (h *Header) replace(d Disk, slot int, key *VolumeKey, passphrase []byte, kdf KDF, random io.Reader) error {
	added, err := newKeyslot(kdf, key, passphrase, random)
	if err != nil {
		return err
	}
	if added.offset, err = h.freeArea(added.size); err != nil {
		return err
	}
	next := h.successor()
	if old := next.meta.slots[slot]; old != nil {
		added.priority = old.priority
	}
	next.meta.slots[slot] = added
	return h.write(d, next, added, random)
}

// successor copies the header for a change.
func (h *Header) successor() *Header {
	next, meta := *h, *h.meta
	next.meta = &meta
	meta.slots = maps.Clone(h.meta.slots)
	for i, c := range h.copies {
		twin := *c
		next.copies[i] = &twin
	}
	next.status.Sequence++
	return &next
}

// freeArea finds room for a key slot, away from all that either copy of the header names.
func (h *Header) freeArea(size int64) (int64, error) {
	start := 2 * h.copies[Primary].size
	used := h.areas()
	slices.SortFunc(used, func(a, b span) int { return cmp.Compare(a.offset, b.offset) })
	at := start
	for _, s := range used {
		if s.offset-at >= size {
			break
		}
		at = max(at, s.end())
	}
	if at+size > start+h.meta.keyslotsSize {
		return 0, ErrNoSpace
	}
	return at, nil
}

// areas lists what the header names, and what an older copy of it still names.
func (h *Header) areas() []span {
	var areas []span
	for _, m := range []*metadata{h.meta, h.stale} {
		if m != nil {
			for id, s := range m.slots {
				areas = append(areas, span{fmt.Sprint(id), s.offset, s.size})
			}
		}
	}
	return areas
}

// forgetTokens takes a slot out of the tokens that name it: cryptsetup refuses tokens that name
// slots which do not exist.
func (h *Header) forgetTokens(slot int) {
	tokens := maps.Clone(h.meta.tokens)
	for id, token := range tokens {
		token = maps.Clone(token)
		names, _ := token["keyslots"].([]any) // parseMetadata saw a list
		token["keyslots"] = slices.DeleteFunc(slices.Clone(names), func(name any) bool { return name == strconv.Itoa(slot) })
		tokens[id] = token
	}
	h.meta.tokens = tokens
}

// write brings the disk from h to next, and h with it.
func (h *Header) write(d Disk, next *Header, added *keyslot, random io.Reader) error {
	for _, c := range next.copies {
		c.seqID = next.status.Sequence
		if _, err := io.ReadFull(random, c.salt[:]); err != nil {
			return fmt.Errorf("make salt: %w", err)
		}
	}
	images, err := next.encodeCopies()
	if err != nil {
		return err
	}
	if added != nil {
		area := make([]byte, added.size)
		copy(area, added.material)
		if err := writeSynced(d, area, added.offset); err != nil {
			return fmt.Errorf("write key slot: %w", err)
		}
	}
	first := Secondary
	if h.status.Used == Secondary {
		first = Primary // it is damaged or old
	}
	for _, c := range []Copy{first, 1 - first} {
		image, at := images[c], next.copies[c].offset
		if err := writeSynced(d, image[binarySize:], at+binarySize); err != nil {
			return fmt.Errorf("write %v header: %w", c, err)
		}
		if err := writeSynced(d, image[:binarySize], at); err != nil {
			return fmt.Errorf("write %v header: %w", c, err)
		}
	}
	next.status.Used, next.status.Other, next.stale = Primary, nil, nil
	given := next.areas()
	for _, s := range h.areas() {
		if !slices.ContainsFunc(given, func(g span) bool { return g.offset < s.end() && s.offset < g.end() }) {
			if err := wipe(d, s, random); err != nil {
				return err
			}
		}
	}
	*h = *next
	return nil
}

// wipe overwrites an area that nothing refers to any more: with random bytes, which no layer
// below can leave out as zeros.
func wipe(d Disk, area span, random io.Reader) error {
	noise := make([]byte, min(area.size, 1<<20))
	for at := area.offset; at < area.end(); at += int64(len(noise)) {
		noise = noise[:min(int64(len(noise)), area.end()-at)]
		if _, err := io.ReadFull(random, noise); err != nil {
			return fmt.Errorf("wipe key slot %s: %w", area.name, err)
		}
		if _, err := d.WriteAt(noise, at); err != nil {
			return fmt.Errorf("wipe key slot %s: %w", area.name, err)
		}
	}
	return d.Sync()
}

func writeSynced(d Disk, data []byte, at int64) error {
	if _, err := d.WriteAt(data, at); err != nil {
		return err
	}
	return d.Sync()
}

// Install writes a header that Format made to a device: first zeros over all that is there up
// to the data, so that nothing of an older header survives, then the key slots, and the copies
// last.
func (h *Header) Install(d Disk) error {
	image, err := h.Encode()
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < h.meta.segment.Offset; at += int64(len(zeros)) {
		zeros = zeros[:min(int64(len(zeros)), h.meta.segment.Offset-at)]
		if _, err := d.WriteAt(zeros, at); err != nil {
			return fmt.Errorf("clear: %w", err)
		}
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("clear: %w", err)
	}
	headers := 2 * h.copies[Primary].size
	if err := writeSynced(d, image[headers:], headers); err != nil {
		return fmt.Errorf("write key slots: %w", err)
	}
	if err := writeSynced(d, image[:headers], 0); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	return nil
}
