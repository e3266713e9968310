package grub_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/luks"
	"github.com/sealboot/sealboot/sev"
)

const tableHeader = 20

// put32 gives b with a length written into it.
func put32(b []byte, at int, n uint32) []byte {
	binary.LittleEndian.PutUint32(b[at:], n)
	return b
}

func encodeTable(t testing.TB, entries ...sev.SecretEntry) []byte {
	t.Helper()
	b, err := sev.SecretTable(entries).Encode(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTable spoils one thing of a good table at a time.
func TestTable(t *testing.T) {
	h := newHost(t)
	passphrase := sev.SecretEntry{GUID: passphraseGUID, Data: []byte("passphrase")}
	pin := sev.SecretEntry{GUID: pinGUID, Data: bytes.Repeat([]byte{7}, 32)}
	foreign := sev.SecretEntry{GUID: guid.MustParse("e6f5a162-d67f-4750-a67c-5d065f2a9910"), Data: []byte("{}")}
	pinAt := 2*tableHeader + len(passphrase.Data)
	end := pinAt + tableHeader + 32
	good := func() []byte { return encodeTable(t, passphrase, pin) }
	many := func(n int) (entries []sev.SecretEntry) {
		for i := range n {
			id := foreign.GUID
			id[0] += byte(i)
			entries = append(entries, sev.SecretEntry{GUID: id})
		}
		return entries
	}
	const (
		noTable   = "no secret: the secret area does not begin with a secret table"
		badTotal  = "malformed secret table: its length does not fit the secret area"
		badEntry  = "malformed secret table: the length of an entry does not fit the table"
		duplicate = "malformed secret table: two entries have the same GUID"
		rest      = "malformed secret table: bytes after the last entry"
	)
	for _, c := range []struct {
		name string
		area []byte
		want string // "ok": accepted
	}{
		{"good", good(), "ok"},
		{"in a larger area", append(good(), make([]byte, 3072)...), "ok"},
		{"in an area of old bytes", append(good(), bytes.Repeat([]byte{0xff}, 64)...), "ok"},
		{"other order", encodeTable(t, pin, passphrase), "ok"},
		{"with one of somebody else's", encodeTable(t, foreign, passphrase, pin), "ok"},
		{"with two deleted ones", encodeTable(t, sev.SecretEntry{Data: []byte("x")}, passphrase, sev.SecretEntry{}, pin), "ok"},
		{"length counts the padding", put32(append(good()[:end:end], make([]byte, 19)...), 16, uint32(end)+19), "ok"},
		{"64 entries", encodeTable(t, append(many(62), passphrase, pin)...), "ok"},
		{"passphrase of 4096 bytes", encodeTable(t, sev.SecretEntry{GUID: passphraseGUID, Data: make([]byte, 4096)}, pin), "ok"},
		{"no area", nil, "the firmware's secret area is smaller than the header of a table"},
		{"area of 19 bytes", make([]byte, 19), "the firmware's secret area is smaller than the header of a table"},
		{"area of zeros", make([]byte, 3072), "no secret: nothing was put into the secret area of this machine"},
		{"GUID", append([]byte{0}, good()[1:]...), noTable},
		{"total below a header", put32(good(), 16, 19), badTotal},
		{"total beyond the area", put32(good()[:end:end], 16, uint32(end)+1), badTotal},
		{"total of 4 GiB", put32(good(), 16, 0xffffffff), badTotal},
		{"total cuts the last entry", put32(good(), 16, uint32(end)-1), badEntry},
		{"entry of 0 bytes", put32(good(), tableHeader+16, 0), badEntry},
		{"entry below a header", put32(good(), tableHeader+16, 19), badEntry},
		{"entry beyond the table", put32(good(), pinAt+16, tableHeader+32+1), badEntry},
		{"entry of 4 GiB", put32(good(), pinAt+16, 0xffffffff), badEntry},
		{"deleted entry of 0 bytes", put32(encodeTable(t, sev.SecretEntry{}, passphrase, pin), tableHeader+16, 0), badEntry},
		{"bytes in the padding", put32(append(good()[:end:end], 0, 0, 1), 16, uint32(end)+3), rest},
		{"passphrase twice", append(put32(good()[:end:end], 16, uint32(end)+tableHeader), put32(append(passphraseGUID[:], 0, 0, 0, 0), 16, tableHeader)...), duplicate},
		{"65 entries", encodeTable(t, append(many(63), passphrase, pin)...), "malformed secret table: more than 64 entries"},
		{"no entries", encodeTable(t), "no secret: the secret table holds no disk passphrase"},
		{"no passphrase", encodeTable(t, pin), "no secret: the secret table holds no disk passphrase"},
		{"no pin", encodeTable(t, passphrase), "no secret: the secret table holds no pin of the disk's header"},
		{"empty passphrase", encodeTable(t, sev.SecretEntry{GUID: passphraseGUID}, pin), "malformed secret table: the disk passphrase is empty"},
		{"passphrase of 4097 bytes", encodeTable(t, sev.SecretEntry{GUID: passphraseGUID, Data: make([]byte, 4097)}, pin), "malformed secret table: the disk passphrase is longer than 4096 bytes"},
		{"pin of 31 bytes", encodeTable(t, passphrase, sev.SecretEntry{GUID: pinGUID, Data: make([]byte, 31)}), "malformed secret table: the pin of the disk's header is not 32 bytes long"},
		{"pin of 33 bytes", encodeTable(t, passphrase, sev.SecretEntry{GUID: pinGUID, Data: make([]byte, 33)}), "malformed secret table: the pin of the disk's header is not 32 bytes long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := h.ask(t, 't', c.area)
			if c.want != "ok" {
				if got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
				return
			}
			if err := checkAccepted(c.area, got); err != nil {
				t.Error(err)
			}
		})
	}
}

// checkAccepted compares what the C parser says of an area with what package sev reads
// there, and the area after deletion with what it should be.
func checkAccepted(area []byte, answer string) error {
	var pass, passSize, pin, pinSize int
	var after string
	if _, err := fmt.Sscanf(answer, "ok %d %d %d %d %s", &pass, &passSize, &pin, &pinSize, &after); err != nil {
		return fmt.Errorf("answer %q: %v", answer, err)
	}
	want := bytes.Clone(area)
	for _, e := range []struct {
		id       guid.GUID
		at, size int
	}{{passphraseGUID, pass, passSize}, {pinGUID, pin, pinSize}} {
		if e.size < 1 || e.at < 2*tableHeader || e.at > len(area) || e.size > len(area)-e.at {
			return fmt.Errorf("entry at %d, %d bytes, outside of the area of %d", e.at, e.size, len(area))
		}
		start := e.at - tableHeader
		if !bytes.Equal(area[start:start+16], e.id[:]) || binary.LittleEndian.Uint32(area[start+16:]) != uint32(e.size+tableHeader) {
			return fmt.Errorf("no entry %v of %d bytes at %d", e.id, e.size, start)
		}
		clear(want[start : start+16])
		clear(want[e.at : e.at+e.size])
	}
	if pinSize != len(luks.Pin{}) {
		return fmt.Errorf("pin of %d bytes", pinSize)
	}
	if after != hex.EncodeToString(want) {
		return fmt.Errorf("after deletion the area is %s, want %x", after, want)
	}
	return nil
}

// FuzzTable looks for tables that make the C parser read outside of the area (the
// sanitizers stop it), or that it and package sev take differently.
func FuzzTable(f *testing.F) {
	passphrase := sev.SecretEntry{GUID: passphraseGUID, Data: []byte("passphrase")}
	pin := sev.SecretEntry{GUID: pinGUID, Data: make([]byte, 32)}
	f.Add(encodeTable(f, passphrase, pin))
	f.Add(encodeTable(f, sev.SecretEntry{Data: []byte("deleted")}, pin, passphrase))
	f.Add(encodeTable(f, passphrase))
	f.Add(make([]byte, 64))
	h := newHost(f)
	f.Fuzz(func(t *testing.T, area []byte) {
		if len(area) > 8192 {
			t.Skip()
		}
		answer := h.ask(t, 't', area)
		if strings.HasPrefix(answer, "ok ") {
			if err := checkAccepted(area, answer); err != nil {
				t.Error(err)
			}
			return
		}
		if strings.Contains(answer, "but entries are set") {
			t.Error(answer)
		}
		// What package sev takes for a whole table is at most incomplete, never malformed,
		// but for the limits that only the module has.
		if _, err := sev.ParseSecretTable(area); err == nil && strings.HasPrefix(answer, "malformed") &&
			!strings.Contains(answer, "passphrase is") && !strings.Contains(answer, "the pin of") && !strings.Contains(answer, "more than 64") {
			t.Errorf("package sev takes the table, the module says %q", answer)
		}
	})
}
