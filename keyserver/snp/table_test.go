package snp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/google/uuid"
)

// realTable is the table of a real Milan's VCEK, filled up to a page as hosts do.
func realTable() []byte {
	table := (&abi.CertTable{Entries: []abi.CertTableEntry{{GUID: uuid.MustParse(abi.VcekGUID), RawCert: testdata.VcekBytes}}}).Marshal()
	return append(table, make([]byte, -len(table)&4095)...)
}

// TestTable spoils a good certificate table, one thing at a time: above all, lengths that lie.
func TestTable(t *testing.T) {
	good := realTable()
	if g, err := parseCertificates(good); err != nil || g.vcek == nil || !bytes.Equal(g.vcek.Raw, testdata.VcekBytes) {
		t.Fatal(err)
	}
	put := func(at int, n uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], n); return b }
	}
	entry := func(guid string, offset, length uint32) []byte {
		id := uuid.MustParse(guid)
		b := append([]byte{}, id[:]...)
		b = binary.LittleEndian.AppendUint32(b, offset)
		return binary.LittleEndian.AppendUint32(b, length)
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"offset into the entries":          put(16, 24),
		"offset of zero":                   put(16, 0),
		"offset behind the end":            put(16, 5000),
		"length behind the end":            put(20, 5000),
		"offset and length of over 32 bit": func(b []byte) []byte { return put(20, 0xffffffff)(put(16, 48)(b)) },
		"sum of exactly 32 bit":            func(b []byte) []byte { return put(20, 0xffffffd0)(put(16, 48)(b)) },
		"one byte short":                   put(20, uint32(len(testdata.VcekBytes)-1)),
		"one byte long":                    put(20, uint32(len(testdata.VcekBytes)+1)),
		"cut off in the entries":           func(b []byte) []byte { return b[:40] },
		"cut off in the certificate":       func(b []byte) []byte { return b[:1000] },
		"no end":                           func([]byte) []byte { return bytes.Repeat(entry(abi.ExtraPlatformInfoGUID, 0, 0), 200) },
		"seventeen entries": func([]byte) []byte {
			var b []byte
			for i := range 17 {
				b = append(b, entry(uuid.UUID{1, byte(i)}.String(), 1000, 0)...)
			}
			return append(b, make([]byte, 1000)...)
		},
		"entry twice": func([]byte) []byte {
			e := entry(abi.AskGUID, 100, 0)
			return append(append(append([]byte{}, e...), e...), make([]byte, 100)...)
		},
		"garbage for the ARK": func([]byte) []byte {
			return append(entry(abi.ArkGUID, 48, 100), bytes.Repeat([]byte{0}, 124)...)
		},
		"one byte": func([]byte) []byte { return []byte{0} },
	} {
		g, err := parseCertificates(spoil(bytes.Clone(good)))
		if format := (*FormatError)(nil); !errors.As(err, &format) || g != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"nothing":             nil,
		"no entry":            make([]byte, 24),
		"a page of zeros":     make([]byte, 4096),
		"empty certificate":   append(entry(abi.VcekGUID, 48, 0), make([]byte, 24)...),
		"what nobody defined": append(append(entry(abi.ExtraPlatformInfoGUID, 48, 8), make([]byte, 24)...), 8, 0, 0, 0, 1, 2, 3, 4),
	} {
		if g, err := parseCertificates(b); err != nil || g.vcek != nil || g.vlek != nil || g.issuers != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTableOfLibrary is the premise of parsing tables ourselves: the library adds offset and length in 32 bits, and panics.
func TestTableOfLibrary(t *testing.T) {
	table := realTable()
	binary.LittleEndian.PutUint32(table[16:], 0xfffffff0)
	binary.LittleEndian.PutUint32(table[20:], 0x20)
	defer func() {
		if recover() == nil {
			t.Log("the library does not panic any more")
		}
	}()
	new(abi.CertTable).Unmarshal(table)
}

// FuzzCertificates holds whatever parses against the library's own reading of a table.
func FuzzCertificates(f *testing.F) {
	f.Add(realTable())
	f.Add(realTable()[:1000])
	f.Add([]byte{})
	f.Add(make([]byte, 24))
	f.Add(testdata.VcekBytes)
	f.Add(testdata.MilanVcekBytes)
	f.Add(append(bytes.Clone(testdata.VcekBytes), testdata.VcekBytes...))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := parseCertificates(b)
		if (g == nil) != (err != nil) {
			t.Fatalf("%v with the error %v", g, err)
		}
		if err != nil || bytes.HasPrefix(b, []byte("-----BEGIN ")) || len(b) > 1 && b[0] == derSequence && b[1] == derLength16 {
			return
		}
		theirs := new(abi.CertTable)
		if err := theirs.Unmarshal(b); err != nil {
			t.Fatalf("taken, but the library says %v", err)
		}
		if raw, err := theirs.GetByGUIDString(abi.VcekGUID); (err == nil && len(raw) > 0) != (g.vcek != nil) || g.vcek != nil && !bytes.Equal(raw, g.vcek.Raw) {
			t.Fatal("the library reads another VCEK")
		}
	})
}

// FuzzReport: what parses encodes to the same bytes, which parseReport itself checks, and never panics.
func FuzzReport(f *testing.F) {
	for _, version := range []byte{2, 3, 5} {
		b := bytes.Clone(testdata.AttestationBytes)
		b[0] = version
		f.Add(b)
	}
	f.Add(testdata.AttestationBytes[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReport(b)
		if (r == nil) != (err != nil) {
			t.Fatalf("%v with the error %v", r, err)
		}
		if r != nil && (len(b) != ReportSize || r.vmpl > 3 || r.signer != VCEK && r.signer != VLEK) {
			t.Fatalf("%+v", r)
		}
	})
}

// FuzzPolicy: what reads is valid, and writes to a form that reads to the same.
func FuzzPolicy(f *testing.F) {
	for _, p := range []Policy{DefaultPolicy(), strictPolicy()} {
		b, err := p.MarshalJSON()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, q Policy
		if p.UnmarshalJSON(b) != nil {
			return
		}
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		once, err := p.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := q.UnmarshalJSON(once); err != nil {
			t.Fatal(err)
		}
		if twice, err := q.MarshalJSON(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s became %s: %v", once, twice, err)
		}
	})
}
