package sev

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
)

func encoded(b []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(b)) }

func TestDecodeFile(t *testing.T) {
	raw := []byte("0123456789abcdef")
	for name, data := range map[string][]byte{
		"bytes": raw, "base64": encoded(raw), "base64 and a line end": append(encoded(raw), '\n'), "in lines": []byte("MDEyMzQ1Njc4\r\nOWFiY2RlZg==\r\n"),
	} {
		if got, err := DecodeFile("TIK", data, 16, 32); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "short": raw[:15], "long": append(bytes.Clone(raw), 0), "base64 of too little": encoded(raw[:15]), "spare bits": []byte("MDEyMzQ1Njc4OWFiY2RlZh=="),
	} {
		var format *FormatError
		if got, err := DecodeFile("TIK", data, 16, 32); !errors.As(err, &format) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestCertificateFiles reads a chain in every tool's division into files.
func TestCertificateFiles(t *testing.T) {
	forEachVector(t, func(t *testing.T, v vector) {
		want := v.chain(t)
		full := slices.Concat(v.PDH, v.CertChain, v.CA)
		for name, files := range map[string][][]byte{
			"QMP, base64":             {encoded(v.PDH), encoded(v.CertChain), encoded(v.CA)},
			"sevctl export and CA":    {slices.Concat(v.PDH, v.CertChain), v.CA},
			"sevctl export --full":    {full},
			"ARK first":               {want.ARK.Encode(), want.ASK.Encode(), v.CertChain, v.PDH},
			"sev-tool, one by one":    {v.PDH, want.PEK.Encode(), want.OCA.Encode(), want.CEK.Encode(), want.ASK.Encode(), want.ARK.Encode()},
			"the same twice":          {full, v.PDH, want.CEK.Encode(), v.CA},
			"an unsigned CEK as well": {full, unsignedCEK(want).Encode()},
			"an unsigned CEK first":   {unsignedCEK(want).Encode(), full},
		} {
			got, err := chainOf(files...)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if !bytes.Equal(got.PDH.Encode(), v.PDH) || !bytes.Equal(got.EncodePlatform(), v.CertChain) || !bytes.Equal(got.EncodeCA(), v.CA) {
				t.Errorf("%s: another chain", name)
			}
		}
		if _, err := chainOf(v.PDH, v.CertChain); !errors.Is(err, ErrMissing) || !strings.HasSuffix(err.Error(), "ASK, ARK") {
			t.Errorf("without AMD's: %v", err)
		}
		other := *want.PDH
		other.APIMinor++
		if _, err := chainOf(full, other.Encode()); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("two PDHs: %v", err)
		}
		ark := *want.ARK
		ark.KeyID[0] ^= 1
		if _, err := chainOf(full, ark.Encode()); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("two ARKs: %v", err)
		}
		for name, data := range map[string][]byte{"nothing": nil, "text": []byte("a certificate?"), "cut": full[:len(full)-1], "cut in the PDH": full[:2000], "too much": make([]byte, MaxCertificates+1)} {
			var format *FormatError
			if c, err := ParseCertificates(data); !errors.As(err, &format) || c.SEV != nil || c.CA != nil {
				t.Errorf("%s: %v, %v", name, c, err)
			}
		}
	})
}

func unsignedCEK(c Chain) *Certificate {
	cek := *c.CEK
	cek.Signatures = [2]Signature{{Usage: UsageNone}, {Usage: UsageNone}}
	return &cek
}

func chainOf(files ...[]byte) (Chain, error) {
	var all Certificates
	for _, data := range files {
		c, err := ParseCertificates(data)
		if err != nil {
			return Chain{}, err
		}
		all.Add(c)
	}
	return all.Chain()
}

func TestParsePolicy(t *testing.T) {
	for s, want := range map[string]Policy{
		"0": 0, "3": 3, "0x0b": NoDebug | NoKeySharing | NoSend, "0X17000001": 0x17000001, "nodbg,NOKS,nosend": 0xb, "es": ES, "4294967295": 0xffffffff,
	} {
		if got, err := ParsePolicy(s); err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-1", "0x", "0x100000000", "4294967296", "nodbg,", "nodbg noks", "0b1", "1_000", "0x_1", "+3"} {
		if got, err := ParsePolicy(s); err == nil || got != 0 {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestOpenSecret(t *testing.T) {
	forEachVector(t, func(t *testing.T, v vector) {
		s := &Session{v.Policy, TEK(v.TEK), TIK(v.TIK)}
		m, err := ParseMeasurement(v.Measurement)
		if err != nil {
			t.Fatal(err)
		}
		p := Packet{Header: [PacketHeaderSize]byte(v.PacketHeader), Secret: v.Secret}
		if table, err := s.OpenSecret(p, m); err != nil || !bytes.Equal(table, v.Table) {
			t.Fatalf("%x, %v", table, err)
		}
		m.MAC[0] ^= 1
		if table, err := s.OpenSecret(p, m); !errors.Is(err, ErrSecret) || table != nil {
			t.Errorf("for another launch: %x, %v", table, err)
		}
	})
}

func FuzzCertificates(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add([]byte(slices.Concat(v.PDH, v.CertChain, v.CA)))
		f.Add(encoded(v.CertChain))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCertificates(data)
		if err != nil {
			if c.SEV != nil || c.CA != nil {
				t.Error("certificates beside an error")
			}
			return
		}
		if len(c.SEV)+len(c.CA) == 0 {
			t.Error("no certificate and no error")
		}
		size := 0
		for _, cert := range c.SEV {
			size += len(cert.Encode())
		}
		for _, cert := range c.CA {
			size += len(cert.Encode())
		}
		if data[0] == 1 && size != len(data) {
			t.Errorf("certificates of %d bytes in %d", size, len(data))
		}
		c.Chain()
	})
}

func FuzzDecodeFile(f *testing.F) {
	f.Add([]byte("0123456789abcdef"))
	f.Add([]byte("MDEyMzQ1Njc4\nOWFiY2RlZg==\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		raw, err := DecodeFile("key", data, 16)
		if (len(raw) == 16) != (err == nil) {
			t.Errorf("%x, %v", raw, err)
		}
		if err == nil && len(data) != 16 && string(encoded(raw)) != strings.Join(strings.Fields(string(data)), "") {
			t.Errorf("%q encodes to other base64", data)
		}
	})
}

func FuzzPolicy(f *testing.F) {
	f.Add("0x0b")
	f.Add("11")
	f.Add("nodbg,noks")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePolicy(s); err != nil && p != 0 {
			t.Errorf("%v, %v", p, err)
		}
	})
}
