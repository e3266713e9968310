package snp

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/sealboot/sealboot/sev"
)

// maxList bounds a list of revocations in bytes. AMD's have under 2 KiB.
const maxList = 64 << 10

// list is AMD's list of revoked certificates of one product, made by its ARK.
type list struct {
	*x509.RevocationList

	mu     sync.Mutex
	signed map[sev.RootDigest]bool // by which trusted roots it was found to be signed, or not
}

func parseList(der []byte) (*list, error) {
	if len(der) > maxList {
		return nil, &FormatError{"list of revocations", fmt.Sprintf("has %d bytes, more than %d", len(der), maxList)}
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, &FormatError{"list of revocations", clip(err.Error())}
	}
	if crl.ThisUpdate.IsZero() || crl.NextUpdate.IsZero() || crl.NextUpdate.Before(crl.ThisUpdate) {
		return nil, &FormatError{"list of revocations", "does not say from when to when it holds"}
	}
	for _, x := range crl.Extensions {
		if x.Critical { // a delta, or a part of a list
			return nil, &FormatError{"list of revocations", "has a critical extension that is not known"}
		}
	}
	return &list{RevocationList: crl, signed: map[sev.RootDigest]bool{}}, nil
}

// by says whether the authority's root made the list. Roots are few, and trusted, so the answers are kept.
func (l *list) by(a *authority) bool {
	if !bytes.Equal(l.RawIssuer, a.ark.RawSubject) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	signed, known := l.signed[a.root]
	if !known {
		signed = l.CheckSignatureFrom(a.ark) == nil
		l.signed[a.root] = signed
	}
	return signed
}

// names says whether the list takes a serial number back.
func (l *list) names(serial *big.Int) bool {
	for _, entry := range l.RevokedCertificateEntries {
		if entry.SerialNumber.Cmp(serial) == 0 {
			return true
		}
	}
	return false
}

// revocations is what is known of a product's revoked certificates at a time.
type revocations struct {
	made, due time.Time // of the newest list; zero: there is none
	trouble   error     // why there is no newer one, if something was tried
}

// check refuses what any list takes back, old ones too, and tells how new the newest is. VCEKs have no serial numbers of their own
// (all are 0): AMD takes them back by raising the TCB. VLEKs have, and are looked for in the same list.
func check(lists []*list, a *authority, e *endorsement, now time.Time) (revocations, error) {
	var known revocations
	for _, l := range lists {
		if !l.by(a) {
			continue
		}
		if l.names(a.ica.SerialNumber) {
			return revocations{}, &LinkError{a.name(), ErrRevoked}
		}
		if e.signer == VLEK && e.certificate.SerialNumber.Sign() != 0 && l.names(e.certificate.SerialNumber) {
			return revocations{}, &LinkError{"VLEK", ErrRevoked}
		}
		if l.ThisUpdate.After(known.made) && !l.ThisUpdate.After(now.Add(clockSlack)) {
			known.made, known.due = l.ThisUpdate, l.NextUpdate
		}
	}
	return known, nil
}

// clockSlack is how far AMD's clock may be ahead of ours.
const clockSlack = 5 * time.Minute

// allows says what a policy has against the lists' age.
func (r Revocation) allows(known revocations, now time.Time) error {
	if !r.Required {
		return nil
	}
	detail := ""
	switch {
	case known.made.IsZero():
		detail = "no list of the product's root is at hand"
	case !now.Before(known.due):
		detail = fmt.Sprintf("the newest list's successor was due at %s", known.due.UTC().Format(time.RFC3339))
	case now.Sub(known.made) > r.MaxAge:
		detail = fmt.Sprintf("the newest list is of %s, older than %v", known.made.UTC().Format(time.RFC3339), r.MaxAge)
	default:
		return nil
	}
	return &Complaint{ErrRevocationAge, detail, known.trouble}
}
