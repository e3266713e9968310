package sev

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// DecodeFile reads an object of one of the given sizes from a file as tools write it: the bytes
// themselves (sevctl's *.bin, sev-tool), or base64 with or without line breaks (sevctl's *.b64,
// QEMU, libvirt). No object is as long as another's base64.
func DecodeFile(object string, data []byte, sizes ...int) ([]byte, error) {
	if slices.Contains(sizes, len(data)) {
		return bytes.Clone(data), nil
	}
	raw, err := decodeBase64(data)
	if err == nil && slices.Contains(sizes, len(raw)) {
		return raw, nil
	}
	clear(raw)
	want := strings.Trim(strings.ReplaceAll(fmt.Sprint(sizes), " ", " or "), "[]")
	return nil, &FormatError{Object: object, Problem: fmt.Sprintf("%d bytes, neither %s bytes nor their base64", len(data), want)}
}

func decodeBase64(data []byte) ([]byte, error) {
	return base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(string(data)), ""))
}

// MaxCertificates bounds what ParseCertificates reads: several chains with CA keys of 4096 bits.
const MaxCertificates = 64 << 10

// Certificates are those that files hold, in the files' order.
type Certificates struct {
	SEV []*Certificate
	CA  []*CACertificate
}

// ParseCertificates reads one certificate or many, one after the other, in bytes or in base64:
// QMP's pdh and cert-chain, libvirt's, sevctl's export (with or without --full), sev-tool's *.cert.
func ParseCertificates(data []byte) (Certificates, error) {
	if len(data) > MaxCertificates {
		return Certificates{}, &FormatError{Object: "certificates", Problem: fmt.Sprintf("%d bytes, more than %d", len(data), MaxCertificates)}
	}
	if !bytes.HasPrefix(data, []byte{1, 0, 0, 0}) { // the version that both kinds begin with
		raw, err := decodeBase64(data)
		if err != nil {
			return Certificates{}, &FormatError{Object: "certificates", Problem: "neither certificates nor base64"}
		}
		data = raw
	}
	var c Certificates
	for at := 0; at < len(data) || at == 0; {
		rest := data[at:]
		if isSEVCertificate(rest) {
			cert, err := ParseCertificate(rest[:min(len(rest), CertificateSize)])
			if err != nil {
				return Certificates{}, fmt.Errorf("certificate at byte %d: %w", at, err)
			}
			c.SEV = append(c.SEV, cert)
			at += CertificateSize
			continue
		}
		cert, after, err := nextCA(rest)
		if err != nil {
			return Certificates{}, fmt.Errorf("certificate at byte %d: %w", at, err)
		}
		c.CA = append(c.CA, cert)
		at = len(data) - len(after)
	}
	return c, nil
}

// isSEVCertificate tells the two kinds apart: where this one has its usage, a CA certificate has
// random bytes of its key's name.
func isSEVCertificate(b []byte) bool {
	if len(b) < 12 || b[6] != 0 || b[7] != 0 {
		return false
	}
	usage := Usage(le32(b[8:]))
	return usage >= UsageOCA && usage <= UsageCEK
}

// Add appends another file's certificates.
func (c *Certificates) Add(more Certificates) {
	c.SEV, c.CA = append(c.SEV, more.SEV...), append(c.CA, more.CA...)
}

var (
	// ErrMissing: a chain lacks one of its certificates.
	ErrMissing = errors.New("the chain lacks a certificate")
	// ErrAmbiguous: two different certificates for one place in the chain.
	ErrAmbiguous = errors.New("two certificates for one place in the chain")
)

// Chain puts the certificates in their places by their usage. One may be there twice if it is the
// same; of two CEKs with the same key, the one that AMD signed is taken: a platform hands out the
// other. Chain verifies nothing.
func (c Certificates) Chain() (Chain, error) {
	var out Chain
	sevPlaces := map[Usage]**Certificate{UsagePDH: &out.PDH, UsagePEK: &out.PEK, UsageOCA: &out.OCA, UsageCEK: &out.CEK}
	for _, cert := range c.SEV {
		place := sevPlaces[cert.Usage]
		switch {
		case place == nil:
			return Chain{}, fmt.Errorf("certificate of usage %v: %w", cert.Usage, ErrAmbiguous)
		case *place == nil, cert.Usage == UsageCEK && bytes.Equal(cert.signed(), (*place).signed()) && !(*place).names(UsageASK):
			*place = cert
		case cert.Usage == UsageCEK && bytes.Equal(cert.signed(), (*place).signed()) && !cert.names(UsageASK):
		case !bytes.Equal(cert.Encode(), (*place).Encode()):
			return Chain{}, fmt.Errorf("%w: %v", ErrAmbiguous, cert.Usage)
		}
	}
	caPlaces := map[Usage]**CACertificate{UsageASK: &out.ASK, UsageARK: &out.ARK}
	for _, cert := range c.CA {
		switch place := caPlaces[cert.Usage]; {
		case place == nil:
			return Chain{}, fmt.Errorf("certificate of usage %v: %w", cert.Usage, ErrAmbiguous)
		case *place == nil:
			*place = cert
		case !bytes.Equal(cert.Encode(), (*place).Encode()):
			return Chain{}, fmt.Errorf("%w: %v", ErrAmbiguous, cert.Usage)
		}
	}
	var missing []string
	for _, usage := range []Usage{UsagePDH, UsagePEK, UsageOCA, UsageCEK} {
		if *sevPlaces[usage] == nil {
			missing = append(missing, usage.String())
		}
	}
	for _, usage := range []Usage{UsageASK, UsageARK} {
		if *caPlaces[usage] == nil {
			missing = append(missing, usage.String())
		}
	}
	if missing != nil {
		return Chain{}, fmt.Errorf("%w: %s", ErrMissing, strings.Join(missing, ", "))
	}
	return out, nil
}

// names says whether one of the signatures names a key of that usage.
func (c *Certificate) names(by Usage) bool {
	return c.Signatures[0].Usage == by || c.Signatures[1].Usage == by
}

// ParsePolicy reads a policy as tools take it, a number (decimal, or hexadecimal after 0x), or the
// names of its bits: nodbg,noks,nosend.
func ParsePolicy(s string) (Policy, error) {
	if digits, hexadecimal := strings.CutPrefix(strings.ToLower(s), "0x"); hexadecimal {
		if n, err := strconv.ParseUint(digits, 16, 32); err == nil {
			return Policy(n), nil
		}
	} else if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return Policy(n), nil
	}
	var p Policy
	for name := range strings.SplitSeq(s, ",") {
		known := false
		for _, n := range policyNames {
			if strings.EqualFold(name, n.name) {
				p, known = p|n.bit, true
			}
		}
		if !known {
			return 0, fmt.Errorf("policy %q is neither a number of 32 bits nor names of its bits (nodbg, noks, es, nosend, domain, sev)", s)
		}
	}
	return p, nil
}
