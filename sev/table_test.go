package sev

import (
	"bytes"
	"errors"
	"testing"

	"github.com/sealboot/sealboot/internal/guid"
)

func TestTableSizes(t *testing.T) {
	for _, c := range []struct {
		data, max int
		fits      bool
	}{
		{8, 48, true}, {9, 48, false}, {9, 63, false}, {9, 64, true}, {0, 48, true}, {0, 32, false},
		{3072 - 40, 3072, true}, {3072 - 39, 3072, false}, {1 << 20, 1 << 30, false}, {1, 0, false}, {1, -1, false},
	} {
		b, err := SecretTable{{DiskPassphrase, make([]byte, c.data)}}.Encode(c.max)
		if c.fits != (err == nil) || err != nil && (!errors.Is(err, ErrTableTooLarge) || b != nil) || len(b)%16 != 0 {
			t.Errorf("%d bytes into %d: %d bytes, %v", c.data, c.max, len(b), err)
		}
	}
	many := make(SecretTable, 1000)
	for i := range many {
		many[i].GUID[0], many[i].GUID[1], many[i].GUID[2] = byte(i), byte(i>>8), 1
	}
	if _, err := many.Encode(3072); !errors.Is(err, ErrTableTooLarge) {
		t.Error(err)
	}
}

func TestTableRefuses(t *testing.T) {
	good, err := SecretTable{{DiskPassphrase, []byte("12345678")}, {HeaderPin, make([]byte, 32)}}.Encode(3072)
	if err != nil {
		t.Fatal(err)
	}
	if len(good) != 112 || good[16] != 100 {
		t.Fatalf("the good table takes %d bytes and says %d", len(good), good[16])
	}
	if _, err := ParseSecretTable(append(bytes.Clone(good), make([]byte, 3072-len(good))...)); err != nil {
		t.Fatalf("in its area: %v", err)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "short": good[:19], "other GUID": changed(good, 0, 0), "total of 0": changed(good, 16, 0),
		"total of the header less one": changed(good, 16, 19), "total beyond": changed(good, 16, 113), "huge total": changed(good, 19, 0xff),
		"total cuts an entry": changed(good, 16, 99), "total cuts an entry's header": changed(good, 16, 60),
		"ends in an entry's header": changed(good, 16, 60)[:60], "ends before an entry's length": changed(good, 16, 49)[:49],
		"entry of 0": changed(good, 36, 0), "entry of its header less one": changed(good, 36, 19),
		"entry beyond": changed(good, 36, 81), "huge entry": changed(good, 39, 0xff), "bytes after it": changed(good, 111, 1),
	} {
		var format *FormatError
		if table, err := ParseSecretTable(b); !errors.As(err, &format) || table != nil {
			t.Errorf("%s: %v, %v", name, table, err)
		}
	}
	twice := SecretTable{{DiskPassphrase, nil}, {DiskPassphrase, nil}}
	if b, err := twice.Encode(3072); !errors.Is(err, ErrDuplicateSecret) || b != nil {
		t.Errorf("twice the same: %v", err)
	}
	both := append([]byte(nil), good[:48]...)
	both = append(both, good[20:48]...)
	both[16] = 76
	if table, err := ParseSecretTable(both); !errors.Is(err, ErrDuplicateSecret) || table != nil {
		t.Errorf("twice the same: %v", err)
	}
}

func TestDeletedEntries(t *testing.T) {
	table := SecretTable{{guid.GUID{}, make([]byte, 5)}, {guid.GUID{}, make([]byte, 7)}, {DiskPassphrase, []byte("x")}}
	b, err := table.Encode(3072)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseSecretTable(b)
	if err != nil || len(again) != 3 {
		t.Fatal(again, err)
	}
	if data, ok := again.Find(DiskPassphrase); !ok || string(data) != "x" {
		t.Error("the entry after deleted ones is not found")
	}
	if _, ok := again.Find(guid.GUID{}); ok {
		t.Error("a deleted entry is found")
	}
	if _, ok := again.Find(HeaderPin); ok {
		t.Error("an entry that is not there is found")
	}
}
