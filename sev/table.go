package sev

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sealboot/sealboot/internal/guid"
)

// Identifiers in a secret table.
var (
	// SecretTableHeader begins the table (edk2 and Linux, drivers/virt/coco/efi_secret).
	SecretTableHeader = guid.MustParse("1e74f542-71dd-4d66-963e-ef4287ff173b")
	// DiskPassphrase is the disk's passphrase (the same; QEMU's virt-qemu-sev-validate).
	DiskPassphrase = guid.MustParse("736869e5-84f0-4973-92ec-06879ce3da0b")
	// PreviousPassphrase is ours: the one before DiskPassphrase, while the change from it is under way.
	PreviousPassphrase = guid.MustParse("0fb5b5f5-2c3f-4d0c-9d7a-6f7f1e7b5a10")
	// HeaderPin is ours: the 32 bytes of the LUKS header's digest.
	HeaderPin = guid.MustParse("5ea1b007-6c75-4b73-8d31-5c0a1f5e9d21")
	// ReleaseReceipt is ours: session id [16] | key [32], with which the guest tells the key server what it used.
	ReleaseReceipt = guid.MustParse("8d8f6b1e-53a4-4a7e-b6c1-2c9d3f0a7e44")
)

const entryHeader = 16 + 4 // of the table as of each entry: GUID | length u32, itself counted

// SecretEntry is one secret. A zero GUID marks an entry that its reader has deleted.
type SecretEntry struct {
	GUID guid.GUID
	Data []byte
}

// SecretTable is what a guest's firmware finds in its secret area: header GUID | total length
// u32 | entries, then zeros up to a multiple of 16, which the length does not count.
type SecretTable []SecretEntry

var (
	// ErrTableTooLarge: the table does not fit the firmware's secret area.
	ErrTableTooLarge = errors.New("the secret table does not fit the secret area")
	// ErrDuplicateSecret: two entries have the same GUID.
	ErrDuplicateSecret = errors.New("two secrets with the same GUID")
)

// Encode gives the table's bytes, if they fit maxSize: the size of the secret area of the
// firmware that the table is for.
func (t SecretTable) Encode(maxSize int) ([]byte, error) {
	if err := t.checkUnique(); err != nil {
		return nil, err
	}
	maxSize = min(maxSize, MaxSecret)
	size := entryHeader
	for _, e := range t {
		if len(e.Data) > maxSize { // before adding, so that the sum cannot overflow
			return nil, fmt.Errorf("%w: entry of %d bytes, area of %d", ErrTableTooLarge, len(e.Data), maxSize)
		}
		size += entryHeader + len(e.Data)
		if size > maxSize {
			break
		}
	}
	padded := (size + 15) &^ 15
	if padded > maxSize {
		return nil, fmt.Errorf("%w: it takes more than %d bytes", ErrTableTooLarge, maxSize)
	}
	out := make([]byte, 0, padded)
	out = append(out, SecretTableHeader[:]...)
	out = binary.LittleEndian.AppendUint32(out, uint32(size))
	for _, e := range t {
		out = append(out, e.GUID[:]...)
		out = binary.LittleEndian.AppendUint32(out, uint32(entryHeader+len(e.Data)))
		out = append(out, e.Data...)
	}
	return out[:padded], nil
}

func (t SecretTable) checkUnique() error {
	seen := map[guid.GUID]bool{}
	for _, e := range t {
		if seen[e.GUID] && !e.GUID.IsZero() {
			return fmt.Errorf("%w: %v", ErrDuplicateSecret, e.GUID)
		}
		seen[e.GUID] = true
	}
	return nil
}

// ParseSecretTable reads a table; b may be a whole secret area. What follows the table is zero.
func ParseSecretTable(b []byte) (SecretTable, error) {
	fail := func(offset int, format string, args ...any) (SecretTable, error) {
		return nil, &FormatError{Object: "secret table", Offset: offset, Problem: fmt.Sprintf(format, args...)}
	}
	if len(b) < entryHeader {
		return fail(0, "%d bytes, want at least %d", len(b), entryHeader)
	}
	if guid.GUID(b[:16]) != SecretTableHeader {
		return fail(0, "the header's GUID is missing")
	}
	total := int64(le32(b[16:]))
	if total < entryHeader || total > int64(len(b)) {
		return fail(16, "table of %d bytes, %d there", total, len(b))
	}
	if !allZero(b[total:]) {
		return fail(int(total), "bytes after the table are not zero")
	}
	var t SecretTable
	for at := int64(entryHeader); at < total; {
		left := total - at
		if left < entryHeader {
			return fail(int(at), "entry of at least %d bytes, %d left", entryHeader, left)
		}
		size := int64(le32(b[at+16:]))
		if size < entryHeader || size > left {
			return fail(int(at)+16, "entry of %d bytes, %d left", size, left)
		}
		t = append(t, SecretEntry{GUID: guid.GUID(b[at : at+16]), Data: append([]byte(nil), b[at+entryHeader:at+size]...)})
		at += size
	}
	if err := t.checkUnique(); err != nil {
		return nil, err
	}
	return t, nil
}

// Find gives an entry's data.
func (t SecretTable) Find(id guid.GUID) ([]byte, bool) {
	for _, e := range t {
		if e.GUID == id && !id.IsZero() {
			return e.Data, true
		}
	}
	return nil, false
}
