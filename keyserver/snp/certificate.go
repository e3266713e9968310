package snp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-sev-guest/kds"
)

// commonName is the subject of a signer's certificate (publication 57230, tables of VCEK and VLEK certificates).
var commonName = map[Signer]string{VCEK: "SEV-VCEK", VLEK: "SEV-VLEK"}

// Extensions under AMD's arc that the library has no name for (publication 57230, certificates of structure 1).
var oidFMC = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 9}

// amdArc holds every extension of AMD's.
var amdArc = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}

// endorsement is what AMD says in the certificate of the key that signs reports.
type endorsement struct {
	certificate *x509.Certificate
	signer      Signer
	structure   uint8
	productName string // "Milan-B1"; "Milan" in a VLEK's
	tcb         TCB
	chip        ChipID // of a VCEK
	csp         string // of a VLEK: the cloud
}

// parseEndorsement reads the certificate of a signer. Extensions of AMD's that are not known are an error: they may
// take back what the others say. (None can be there twice: crypto/x509 refuses that.)
func parseEndorsement(c *x509.Certificate, signer Signer) (*endorsement, error) {
	bad := func(format string, args ...any) (*endorsement, error) {
		return nil, &LinkError{strings.ToUpper(string(signer)), &FormatError{"certificate", fmt.Sprintf(format, args...)}}
	}
	key, ok := c.PublicKey.(*ecdsa.PublicKey)
	switch {
	case c.Version != 3:
		return bad("is of version %d, not 3", c.Version)
	case c.SignatureAlgorithm != x509.SHA384WithRSAPSS:
		return bad("is signed by %v, not RSASSA-PSS with SHA-384", c.SignatureAlgorithm)
	case !ok || key.Curve != elliptic.P384():
		return bad("has no key on P-384")
	case c.IsCA:
		return bad("may issue certificates")
	case c.Subject.CommonName != commonName[signer]:
		return bad("is %q's", clip(c.Subject.CommonName))
	case len(c.UnhandledCriticalExtensions) > 0:
		return bad("has a critical extension that is not known")
	}
	e := &endorsement{certificate: c, signer: signer}
	var levels [10]int // by the last number of the OID; 9: FMC
	for i := range levels {
		levels[i] = -1
	}
	structure, chip := -1, 0 // chip: length of its id
	for _, x := range c.Extensions {
		if len(x.Id) < len(amdArc) || !x.Id[:len(amdArc)].Equal(amdArc) {
			continue
		}
		var err error
		switch {
		case x.Id.Equal(kds.OidStructVersion):
			structure, err = small(x.Value)
		case x.Id.Equal(kds.OidProductName1):
			e.productName, err = ia5(x.Value)
		case x.Id.Equal(kds.OidCspID):
			e.csp, err = ia5(x.Value)
		case x.Id.Equal(kds.OidHwid):
			chip, err = readChip(&e.chip, x.Value)
		case len(x.Id) == len(oidFMC) && x.Id[8] == 3 && x.Id[9] >= 1 && x.Id[9] <= 9:
			levels[x.Id[9]], err = small(x.Value)
		default:
			return bad("has AMD's extension %v, which is not known", x.Id)
		}
		if err != nil {
			return bad("extension %v: %v", x.Id, err)
		}
	}
	if structure < 0 || structure > 1 || e.productName == "" {
		return bad("does not say its structure or product")
	}
	e.structure = uint8(structure)
	if (chip > 0) != (signer == VCEK) || (e.csp != "") != (signer == VLEK) {
		return bad("must have a chip's id if it is a VCEK, a cloud's if it is a VLEK, and not the other")
	}
	if chip > 0 && chip != []int{64, 8}[structure] {
		return bad("has a chip id of %d bytes and structure %d", chip, structure)
	}
	if (levels[9] >= 0) != (structure == 1) || levels[1] < 0 || levels[2] < 0 || levels[3] < 0 || levels[8] < 0 {
		return bad("does not give the levels of structure %d", structure)
	}
	for _, reserved := range levels[4:8] {
		if reserved > 0 {
			return bad("has a level that is not known")
		}
	}
	e.tcb = TCB{uint8(max(levels[9], 0)), uint8(levels[1]), uint8(levels[2]), uint8(levels[3]), uint8(levels[8])}
	return e, nil
}

// small reads a number of one byte.
func small(der []byte) (int, error) {
	var n int
	rest, err := asn1.Unmarshal(der, &n)
	if err != nil || len(rest) > 0 || n < 0 || n > 255 {
		return -1, errors.New("is no number up to 255")
	}
	return n, nil
}

func ia5(der []byte) (string, error) {
	var s string
	rest, err := asn1.UnmarshalWithParams(der, &s, "ia5")
	if err != nil || len(rest) > 0 || s == "" || clip(s) != s {
		return "", errors.New("is no short text")
	}
	return s, nil
}

// readChip reads a chip's id and gives its length: 64 bytes, or 8 from structure 1 on. AMD's certificates hold the bytes alone, the document
// says an OCTET STRING; both are taken.
func readChip(to *ChipID, value []byte) (int, error) {
	if len(value) != 64 && len(value) != 8 {
		rest, err := asn1.Unmarshal(value, &value)
		if err != nil || len(rest) > 0 || len(value) != 64 && len(value) != 8 {
			return 0, errors.New("is no chip's id")
		}
	}
	*to = ChipID{}
	return copy(to[:], value), nil
}

// speaksFor compares the certificate with the report, given the product that its issuer certifies.
func (e *endorsement) speaksFor(r *report, p Product) error {
	mismatch := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrMismatch, fmt.Sprintf(format, args...))
	}
	if (e.structure == 1) != (p == Turin) {
		return mismatch("structure %d for %s", e.structure, p)
	}
	if r.version >= 3 {
		q, _, ok := productOf(r.family, r.model)
		if !ok {
			return fmt.Errorf("%w: family %#x, model %#x", ErrProduct, r.family, r.model)
		}
		if q != p {
			return mismatch("certificate is of %s, report of %s", p, q)
		}
		// The certificate's own product name is not compared: there are chips with a wrong one.
	} else if line, _, _ := strings.Cut(e.productName, "-"); line != string(p) && !(p == Genoa && (line == "Siena" || line == "Bergamo")) {
		return mismatch("certificate of %s names %q", p, e.productName)
	}
	reported, err := parseTCB(p, r.reported)
	if err != nil {
		return err
	}
	if reported != e.tcb {
		return mismatch("its TCB is %v, the report's %v", e.tcb, reported)
	}
	if e.signer == VCEK && r.chip != (ChipID{}) && r.chip != e.chip { // zeros: the host masks the id (MASK_CHIP_ID)
		return mismatch("it is of chip %v, the report of %v", e.chip, r.chip)
	}
	return nil
}

// current says whether a certificate's time has come and is not over. A VCEK is made when it is asked for, by AMD's clock.
func current(name string, c *x509.Certificate, now time.Time) error {
	if now.Add(clockSlack).Before(c.NotBefore) || now.After(c.NotAfter) {
		return &LinkError{name, fmt.Errorf("valid from %s to %s", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))}
	}
	return nil
}

// issuedBy checks one signature of a chain.
func issuedBy(name string, c, issuer *x509.Certificate) error {
	if !bytes.Equal(c.RawIssuer, issuer.RawSubject) {
		return &LinkError{name, errors.New("names another issuer")}
	}
	if err := issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
		return &LinkError{name, fmt.Errorf("signature does not hold: %w", err)}
	}
	return nil
}
