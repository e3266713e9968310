package grub_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
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
	previous := sev.SecretEntry{GUID: sev.PreviousPassphrase, Data: []byte("the one before")}
	receipt := sev.SecretEntry{GUID: sev.ReleaseReceipt, Data: bytes.Repeat([]byte{9}, 48)}
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
		{"with all of ours and somebody else's", encodeTable(t, append([]sev.SecretEntry{passphrase, previous, pin, receipt}, many(60)...)...), "ok"},
		{"ours in another order", encodeTable(t, receipt, foreign, pin, previous, passphrase), "ok"},
		{"previous passphrase alone", encodeTable(t, passphrase, previous, pin), "ok"},
		{"receipt alone", encodeTable(t, passphrase, pin, receipt), "ok"},
		{"previous passphrase of 4096 bytes", encodeTable(t, passphrase, sev.SecretEntry{GUID: sev.PreviousPassphrase, Data: make([]byte, 4096)}, pin), "ok"},
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
		{"somebody else's entry beyond the table", put32(encodeTable(t, passphrase, pin, foreign), end+16, tableHeader+3), badEntry},
		{"somebody else's entry of 19 bytes", put32(encodeTable(t, passphrase, pin, foreign), end+16, 19), badEntry},
		{"somebody else's entry twice", append(put32(encodeTable(t, passphrase, pin, foreign)[:end+22:end+22], 16, uint32(end)+22+tableHeader), put32(append(foreign.GUID[:], 0, 0, 0, 0), 16, tableHeader)...), duplicate},
		{"previous passphrase in the place of the new", encodeTable(t, previous, pin, receipt), "no secret: the secret table holds no disk passphrase"},
		{"empty previous passphrase", encodeTable(t, passphrase, sev.SecretEntry{GUID: sev.PreviousPassphrase}, pin), "malformed secret table: the previous passphrase is empty"},
		{"previous passphrase of 4097 bytes", encodeTable(t, passphrase, pin, sev.SecretEntry{GUID: sev.PreviousPassphrase, Data: make([]byte, 4097)}), "malformed secret table: the previous passphrase is longer than 4096 bytes"},
		{"receipt of 47 bytes", encodeTable(t, passphrase, pin, sev.SecretEntry{GUID: sev.ReleaseReceipt, Data: make([]byte, 47)}), "malformed secret table: the receipt is not 48 bytes long"},
		{"receipt of 49 bytes", encodeTable(t, passphrase, pin, sev.SecretEntry{GUID: sev.ReleaseReceipt, Data: make([]byte, 49)}), "malformed secret table: the receipt is not 48 bytes long"},
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
	var place [4]struct{ at, size int }
	var after string
	if _, err := fmt.Sscanf(answer, "ok %d %d %d %d %d %d %d %d %s", &place[0].at, &place[0].size, &place[1].at, &place[1].size,
		&place[2].at, &place[2].size, &place[3].at, &place[3].size, &after); err != nil {
		return fmt.Errorf("answer %q: %v", answer, err)
	}
	want := bytes.Clone(area)
	for i, id := range []guid.GUID{passphraseGUID, sev.PreviousPassphrase, pinGUID, sev.ReleaseReceipt} {
		e := place[i]
		optional := id == sev.PreviousPassphrase || id == sev.ReleaseReceipt
		if optional && e.at == -1 {
			if slices.Contains(entryGUIDs(area), id) {
				return fmt.Errorf("the entry %v was overlooked", id)
			}
			continue
		}
		if e.size < 1 || e.at < 2*tableHeader || e.at > len(area) || e.size > len(area)-e.at {
			return fmt.Errorf("entry at %d, %d bytes, outside of the area of %d", e.at, e.size, len(area))
		}
		start := e.at - tableHeader
		if !bytes.Equal(area[start:start+16], id[:]) || binary.LittleEndian.Uint32(area[start+16:]) != uint32(e.size+tableHeader) {
			return fmt.Errorf("no entry %v of %d bytes at %d", id, e.size, start)
		}
		clear(want[start : start+16])
		clear(want[e.at : e.at+e.size])
	}
	if pin, receipt := place[2], place[3]; pin.size != len(luks.Pin{}) || receipt.at >= 0 && receipt.size != 48 {
		return fmt.Errorf("pin of %d bytes, receipt of %d", pin.size, receipt.size)
	}
	if after != hex.EncodeToString(want) {
		return fmt.Errorf("after deletion the area is %s, want %x", after, want)
	}
	return nil
}

// entryGUIDs lists the entries of a table that was taken.
func entryGUIDs(area []byte) (ids []guid.GUID) {
	total := int(binary.LittleEndian.Uint32(area[16:]))
	for at := tableHeader; total-at >= tableHeader; at += int(binary.LittleEndian.Uint32(area[at+16:])) {
		ids = append(ids, guid.GUID(area[at:at+16]))
	}
	return ids
}

// FuzzTable looks for tables that make the C parser read outside of the area (the
// sanitizers stop it), or that it and package sev take differently.
func FuzzTable(f *testing.F) {
	passphrase := sev.SecretEntry{GUID: passphraseGUID, Data: []byte("passphrase")}
	pin := sev.SecretEntry{GUID: pinGUID, Data: make([]byte, 32)}
	f.Add(encodeTable(f, passphrase, pin))
	f.Add(encodeTable(f, sev.SecretEntry{Data: []byte("deleted")}, pin, passphrase))
	previous := sev.SecretEntry{GUID: sev.PreviousPassphrase, Data: []byte("the one before")}
	receipt := sev.SecretEntry{GUID: sev.ReleaseReceipt, Data: make([]byte, 48)}
	f.Add(encodeTable(f, passphrase, previous, pin, receipt, foreign))
	f.Add(encodeTable(f, foreign, receipt, pin, passphrase))
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
			!strings.Contains(answer, "passphrase is") && !strings.Contains(answer, "the pin of") && !strings.Contains(answer, "the receipt is") && !strings.Contains(answer, "more than 64") {
			t.Errorf("package sev takes the table, the module says %q", answer)
		}
	})
}
