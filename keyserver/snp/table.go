package snp

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/uuid"
)

// Bounds of what comes beside a report. Real certificates have 1,300 to 1,700 bytes, a table of three takes two pages.
const (
	MaxCertificates = 32 << 10 // bytes in all
	maxCertificate  = 4 << 10  // bytes of one
	maxEntries      = 16
)

// given are the certificates that came beside a report, read and not yet believed.
type given struct {
	vcek, vlek *x509.Certificate // nil: not there
	issuers    []*x509.Certificate
}

// parseCertificates reads what came beside a report: nothing; the certificate table of an extended guest request (GHCB
// specification, publication 56421, SNP Extended Guest Request); or certificates as PEM, or as DER one behind the other.
func parseCertificates(b []byte) (*given, error) {
	switch {
	case len(b) > MaxCertificates:
		return nil, &FormatError{"certificates", fmt.Sprintf("have %d bytes, more than %d", len(b), MaxCertificates)}
	case len(b) == 0:
		return new(given), nil
	case bytes.HasPrefix(b, []byte("-----BEGIN ")), b[0] == derSequence && len(b) > 1 && b[1] == derLength16:
		return parseLoose(b)
	}
	return parseTable(b)
}

// A certificate's first two bytes: a sequence whose length has two bytes. No GUID of a table's known entries begins with them.
const (
	derSequence = 0x30
	derLength16 = 0x82
)

// parseTable walks the entries {GUID, offset, length} up to the one of zeros, and takes the certificates that are known. Every entry must
// lie behind the entries and inside the table, in 64 bits: the library adds offset and length in 32.
func parseTable(b []byte) (*given, error) {
	bad := func(format string, args ...any) (*given, error) {
		return nil, &FormatError{"certificate table", fmt.Sprintf(format, args...)}
	}
	type entry struct {
		id             uuid.UUID
		offset, length uint64
	}
	var entries []entry
	end := 0
	for {
		if len(b)-end < abi.CertTableEntrySize {
			return bad("ends before its last entry")
		}
		raw := b[end : end+abi.CertTableEntrySize]
		end += abi.CertTableEntrySize
		if bytes.Equal(raw, make([]byte, abi.CertTableEntrySize)) {
			break
		}
		if len(entries) == maxEntries {
			return bad("has more than %d entries", maxEntries)
		}
		entries = append(entries, entry{uuid.UUID(raw[:abi.GUIDSize]),
			uint64(binary.LittleEndian.Uint32(raw[16:])), uint64(binary.LittleEndian.Uint32(raw[20:]))})
	}
	g := new(given)
	seen := map[uuid.UUID]bool{}
	for _, e := range entries {
		if e.offset < uint64(end) || e.offset+e.length > uint64(len(b)) {
			return bad("entry %v of %d bytes at %d is not behind the entries and within %d", e.id, e.length, e.offset, len(b))
		}
		if seen[e.id] {
			return bad("entry %v is there twice", e.id)
		}
		seen[e.id] = true
		der := b[e.offset : e.offset+e.length]
		switch e.id.String() {
		case abi.VcekGUID, abi.VlekGUID, abi.AskGUID, abi.AsvkGUID, abi.ArkGUID:
		default:
			continue // the GHCB specification lets a host put anything there
		}
		if len(der) == 0 {
			continue // a host that has none says so
		}
		c, err := parseCertificate(der)
		if err != nil {
			return nil, err
		}
		switch e.id.String() {
		case abi.VcekGUID:
			g.vcek = c
		case abi.VlekGUID:
			g.vlek = c
		default:
			g.issuers = append(g.issuers, c)
		}
	}
	return g, nil
}

// parseLoose takes certificates by their subjects' names.
func parseLoose(b []byte) (*given, error) {
	g := new(given)
	certificates, lists, err := splitDER(b, maxEntries)
	if err != nil {
		return nil, err
	}
	if len(lists) > 0 {
		return nil, &FormatError{"certificates", "hold a list of revocations, which the owner gives, not a guest"}
	}
	for _, der := range certificates {
		c, err := parseCertificate(der)
		if err != nil {
			return nil, err
		}
		switch {
		case c.Subject.CommonName == commonName[VCEK] && g.vcek == nil:
			g.vcek = c
		case c.Subject.CommonName == commonName[VLEK] && g.vlek == nil:
			g.vlek = c
		case c.IsCA:
			g.issuers = append(g.issuers, c)
		default:
			return nil, &FormatError{"certificates", fmt.Sprintf("%q does not belong there", clip(c.Subject.CommonName))}
		}
	}
	return g, nil
}

// parseCertificate reads one certificate, of AMD's size.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, &FormatError{"certificate", fmt.Sprintf("has %d bytes, more than %d", len(der), maxCertificate)}
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, &FormatError{"certificate", clip(err.Error())}
	}
	return c, nil
}

const (
	pemCertificate = "CERTIFICATE"
	pemList        = "X509 CRL"
)

// splitDER takes apart PEM, or DER values one behind the other, into certificates and lists of revocations. Nothing else may be
// between them, and no more than most.
func splitDER(b []byte, most int) (certificates, lists [][]byte, err error) {
	bad := func(problem string) ([][]byte, [][]byte, error) {
		return nil, nil, &FormatError{"certificates", problem}
	}
	armoured := bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----BEGIN "))
	for n := 0; len(bytes.TrimSpace(b)) > 0; n++ {
		if n == most {
			return bad(fmt.Sprintf("are more than %d", most))
		}
		if armoured {
			b = bytes.TrimLeft(b, " \t\r\n")
			block, rest := pem.Decode(b)
			if block == nil || len(block.Headers) != 0 || !bytes.HasPrefix(b, []byte("-----BEGIN ")) {
				return bad("are no PEM")
			}
			b = rest
			switch block.Type {
			case pemCertificate:
				certificates = append(certificates, block.Bytes)
			case pemList:
				lists = append(lists, block.Bytes)
			default:
				return bad(fmt.Sprintf("hold a %q", clip(block.Type)))
			}
			continue
		}
		var one asn1.RawValue
		rest, err := asn1.Unmarshal(b, &one)
		if err != nil {
			return bad("are neither PEM nor DER")
		}
		b = rest
		if isList(one.FullBytes) {
			lists = append(lists, one.FullBytes)
		} else {
			certificates = append(certificates, one.FullBytes)
		}
	}
	return certificates, lists, nil
}

// isList tells a list of revocations from a certificate. Both are a sequence that holds a sequence; of a certificate of version 3 that
// begins with a version in a tag of its own ([0]), of a list with a plain number (RFC 5280, sections 4.1 and 5.1).
func isList(der []byte) bool {
	var outer, inner, first asn1.RawValue
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return false
	}
	if _, err := asn1.Unmarshal(outer.Bytes, &inner); err != nil {
		return false
	}
	if _, err := asn1.Unmarshal(inner.Bytes, &first); err != nil {
		return false
	}
	return first.Class == asn1.ClassUniversal && first.Tag == asn1.TagInteger
}
