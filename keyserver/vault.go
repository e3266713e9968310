package keyserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// vault is all secrets of an image. The store holds it as one sealed value, with ids and versions inside: no secret can
// be taken out of it, put beside another image's, or set back to an older version, without the store key.
type vault struct {
	serial  uint64   // goes up with each change but a confirmation: receipts are for one serial
	secrets []secret // by id
}

// secret is a secret with the version that it had before, while a rotation is under way.
type secret struct {
	id       guid.GUID
	current  value // without data: revoked
	previous value // version 0: there is none
}

type value struct {
	version int64
	made    time.Time
	data    []byte
}

// Sizes of the stored form.
const (
	maxSecrets  = 256
	vaultPrefix = "sealboot vault 1\n"
	valueHeader = 8 + 8 + 4
)

var errVault = errors.New("stored secrets do not read")

// encode gives the stored form: prefix | serial u64 | for each secret: GUID | current | previous, each value being
// version u64 | time u64 | length u32 | data, big-endian. The caller wipes it.
func (v *vault) encode() []byte {
	size := len(vaultPrefix) + 8
	for _, s := range v.secrets {
		size += len(s.id) + 2*valueHeader + len(s.current.data) + len(s.previous.data)
	}
	b := append(make([]byte, 0, size), vaultPrefix...) // whole, so that growing leaves no copy
	b = binary.BigEndian.AppendUint64(b, v.serial)
	for _, s := range v.secrets {
		b = append(b, s.id[:]...)
		for _, x := range []value{s.current, s.previous} {
			var made int64
			if x.version != 0 {
				made = x.made.Unix()
			}
			b = binary.BigEndian.AppendUint64(b, uint64(x.version))
			b = binary.BigEndian.AppendUint64(b, uint64(made))
			b = binary.BigEndian.AppendUint32(b, uint32(len(x.data)))
			b = append(b, x.data...)
		}
	}
	return b
}

// parseVault reads what encode gives. The data are parts of b.
func parseVault(b []byte) (*vault, error) {
	head := len(vaultPrefix) + 8
	if len(b) < head || string(b[:len(vaultPrefix)]) != vaultPrefix {
		return nil, errVault
	}
	v := &vault{serial: binary.BigEndian.Uint64(b[len(vaultPrefix):])}
	for rest := b[head:]; len(rest) > 0; {
		var s secret
		if len(rest) < len(s.id) {
			return nil, errVault
		}
		rest = rest[copy(s.id[:], rest):]
		for _, x := range []*value{&s.current, &s.previous} {
			if len(rest) < valueHeader {
				return nil, errVault
			}
			size := int64(binary.BigEndian.Uint32(rest[16:]))
			if size > int64(len(rest)-valueHeader) {
				return nil, errVault
			}
			x.version = int64(binary.BigEndian.Uint64(rest))
			made := int64(binary.BigEndian.Uint64(rest[8:]))
			if x.version != 0 {
				x.made = time.Unix(made, 0).UTC()
			}
			if size > 0 {
				x.data = rest[valueHeader : valueHeader+size : valueHeader+size]
			}
			rest = rest[valueHeader+size:]
			if x.version < 0 || x.version == 0 && (made != 0 || size > 0) {
				return nil, errVault
			}
		}
		if n := len(v.secrets); s.current.version <= s.previous.version || s.previous.version != 0 && (s.previous.data == nil || s.current.data == nil) ||
			n == maxSecrets || n > 0 && compareGUID(v.secrets[n-1].id, s.id) >= 0 {
			return nil, errVault
		}
		v.secrets = append(v.secrets, s)
	}
	return v, nil
}

// compareGUID orders by the text form, which is what people see.
func compareGUID(a, b guid.GUID) int { return strings.Compare(a.String(), b.String()) }

// find gives a secret's entry, nil if there never was one.
func (v *vault) find(id guid.GUID) *secret {
	for i := range v.secrets {
		if v.secrets[i].id == id {
			return &v.secrets[i]
		}
	}
	return nil
}

// put makes a copy of data the current version of a secret, alone. Version numbers are never used twice.
func (v *vault) put(id guid.GUID, data []byte, now time.Time) int64 {
	v.serial++
	s := v.find(id)
	if s == nil {
		i, _ := slices.BinarySearchFunc(v.secrets, id, func(s secret, id guid.GUID) int { return compareGUID(s.id, id) })
		v.secrets = slices.Insert(v.secrets, i, secret{id: id})
		s = &v.secrets[i]
	}
	clear(s.current.data)
	s.next(data, now)
	s.settle()
	return s.current.version
}

// next makes a copy of data the secret's next version, nil for none.
func (s *secret) next(data []byte, now time.Time) {
	s.current = value{version: s.current.version + 1, made: now.UTC().Truncate(time.Second), data: bytes.Clone(data)}
}

// settle ends a rotation: the previous version is dropped.
func (s *secret) settle() {
	clear(s.previous.data)
	s.previous = value{}
}

// rotating says whether a secret's previous version is kept until its new one has been used.
func (s *secret) rotating() bool { return s.previous.version != 0 }

func (v *vault) rotating() bool {
	return slices.ContainsFunc(v.secrets, func(s secret) bool { return s.rotating() })
}

// wipe forgets the data.
func (v *vault) wipe() {
	for _, s := range v.secrets {
		clear(s.current.data)
		clear(s.previous.data)
	}
}

// table makes what the guest's firmware finds, if it fits the firmware's secret area: the disk's passphrase, the one
// before it while a rotation of it is under way, the digest of the LUKS header, and the others by GUID. While any rotation is
// under way the receipt is one of them. The caller wipes it.
func (v *vault) table(record *measure.Record, receipt []byte) ([]byte, error) {
	passphrase := v.find(sev.DiskPassphrase)
	if passphrase == nil || passphrase.current.data == nil {
		return nil, ErrNoSecret
	}
	pin := record.Disk.HeaderPin
	table := sev.SecretTable{{GUID: sev.DiskPassphrase, Data: passphrase.current.data}}
	if passphrase.rotating() {
		table = append(table, sev.SecretEntry{GUID: sev.PreviousPassphrase, Data: passphrase.previous.data})
	}
	table = append(table, sev.SecretEntry{GUID: sev.HeaderPin, Data: pin[:]})
	var others sev.SecretTable
	if v.rotating() {
		others = append(others, sev.SecretEntry{GUID: sev.ReleaseReceipt, Data: receipt})
	}
	for _, s := range v.secrets {
		if s.id != sev.DiskPassphrase && s.current.data != nil {
			others = append(others, sev.SecretEntry{GUID: s.id, Data: s.current.data})
		}
	}
	slices.SortFunc(others, func(a, b sev.SecretEntry) int { return compareGUID(a.GUID, b.GUID) })
	table = append(table, others...)
	return table.Encode(int(record.Firmware.SecretArea.Size))
}

// fits says whether the table fits the firmware's secret area, with the bytes that there are and that it takes.
func (v *vault) fits(record *measure.Record) error {
	table, err := v.table(record, make([]byte, receiptSize))
	clear(table)
	if !errors.Is(err, sev.ErrTableTooLarge) {
		return err
	}
	const header = 16 + 4 // of the table and of each entry
	want := header + header + len(record.Disk.HeaderPin)
	if v.rotating() {
		want += header + receiptSize
	}
	for _, s := range v.secrets {
		if s.current.data != nil {
			want += header + len(s.current.data)
		}
		if s.id == sev.DiskPassphrase && s.rotating() {
			want += header + len(s.previous.data)
		}
	}
	return fmt.Errorf("%w: it has %d bytes, the secrets take %d", sev.ErrTableTooLarge,
		min(int(record.Firmware.SecretArea.Size), sev.MaxSecret), (want+15)&^15)
}
