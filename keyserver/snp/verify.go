package snp

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/go-sev-guest/verify"

	"github.com/sealboot/sealboot/sev"
)

// Source gives what is missing: KDS is one. Its answers are believed no further than what a guest sends. Its errors
// wrap ErrUnavailable where asking again later may help.
type Source interface {
	VCEK(ctx context.Context, p Product, chip ChipID, t TCB) (der []byte, err error)
	Issuers(ctx context.Context, p Product, s Signer) (text []byte, err error) // PEM: ASK or ASVK, and ARK
	Revocations(ctx context.Context, p Product) (der []byte, err error)
}

// ErrUnavailable says that nothing was decided, for a Source has no answer now.
var ErrUnavailable = errors.New("certificates are not to be had now")

// Verifier finds out who signed a report. It is safe for concurrent use.
type Verifier struct {
	roots       sev.RootSet
	arks        []*x509.Certificate
	authorities []*authority                // of our own certificates
	known       map[endorsed][]*endorsement // of our own certificates
	revoked     []*list                     // of our own
	source      Source

	mu      sync.Mutex
	fetched map[Product]*list // the source's last ones, as they were read
}

// endorsed is what a report says of the certificate that it needs.
type endorsed struct {
	signer    Signer
	structure uint8
	chip      ChipID // 0: a VLEK's
	tcb       TCB
}

// maxSame bounds the certificates among which only the report's signature can tell.
const maxSame = 16

// NewVerifier makes a verifier that trusts the given roots, with AMD's own certificates, those of the bundles and, unless it is nil, what
// the source has.
func NewVerifier(roots sev.RootSet, source Source, bundles ...*Bundle) (*Verifier, error) {
	if len(roots) == 0 {
		return nil, errors.New("SNP verifier trusts no root")
	}
	own, err := amdIssuers()
	if err != nil {
		return nil, fmt.Errorf("read AMD's certificates: %w", err)
	}
	for _, b := range bundles {
		own = append(own, b.issuers...)
	}
	v := &Verifier{roots: roots, source: source, known: map[endorsed][]*endorsement{}, fetched: map[Product]*list{}}
	for _, b := range bundles {
		for _, e := range b.endorsements {
			key := endorsed{e.signer, e.structure, e.chip, e.tcb}
			if len(v.known[key]) == maxSame {
				return nil, fmt.Errorf("bundles hold more than %d certificates of one %s", maxSame, e.signer)
			}
			v.known[key] = append(v.known[key], e)
		}
		v.revoked = append(v.revoked, b.lists...)
	}
	for _, c := range own {
		if isRoot(c) {
			v.arks = append(v.arks, c)
		}
	}
	v.authorities, _ = pair(roots, v.arks, own) // what is not trusted is left out
	return v, nil
}

// Evidence is what a guest shows.
type Evidence struct {
	Report       []byte // ReportSize bytes
	Certificates []byte // a certificate table, PEM, DER, or nothing; at most MaxCertificates bytes
}

// Attested is a report whose signature leads to a trusted root: what it says was said by AMD's firmware on a chip of AMD's.
type Attested struct {
	report      *report
	endorsement *endorsement
	product     Product
	name        string // of the processor, where it is not the product's
	revocations revocations
	tcb         tcbs
}

// tcbs are a report's four TCBs.
type tcbs struct{ reported, current, committed, launch TCB }

// Verify reads the evidence and follows the report's signature up to a trusted root. An error means that the report speaks for nobody,
// or, if it wraps ErrUnavailable, that this cannot be known now. Whether the guest is the right one is Judge's to say.
func (v *Verifier) Verify(ctx context.Context, evidence Evidence, now time.Time) (*Attested, error) {
	a, err := v.verify(ctx, evidence, now)
	if err != nil {
		return nil, fmt.Errorf("verify SNP report: %w", err)
	}
	return a, nil
}

func (v *Verifier) verify(ctx context.Context, evidence Evidence, now time.Time) (*Attested, error) {
	r, err := parseReport(evidence.Report)
	if err != nil {
		return nil, err
	}
	g, err := parseCertificates(evidence.Certificates)
	if err != nil {
		return nil, err
	}
	e, err := v.endorsement(ctx, r, g)
	if err != nil {
		return nil, err
	}
	a, err := v.authority(ctx, e, g, now)
	if err != nil {
		return nil, err
	}
	if err := e.speaksFor(r, a.product); err != nil {
		return nil, err
	}
	if err := verify.SnpReportSignature(r.raw, e.certificate); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrSignature, clip(err.Error()))
	}
	at := &Attested{report: r, endorsement: e, product: a.product, name: string(a.product)}
	if r.version >= 3 {
		_, at.name, _ = productOf(r.family, r.model)
	}
	for _, t := range []struct {
		to      *TCB
		version uint64
	}{{&at.tcb.reported, r.reported}, {&at.tcb.current, r.current}, {&at.tcb.committed, r.committed}, {&at.tcb.launch, r.launch}} {
		if *t.to, err = parseTCB(a.product, t.version); err != nil {
			return nil, err
		}
	}
	lists, trouble := v.lists(ctx, a.product)
	if at.revocations, err = check(lists, a, e, now); err != nil {
		return nil, err
	}
	at.revocations.trouble = trouble
	return at, nil
}

// endorsement finds the certificate of the report's signer: the guest's own, a bundle's, the source's.
func (v *Verifier) endorsement(ctx context.Context, r *report, g *given) (*endorsement, error) {
	c := g.vcek
	if r.signer == VLEK {
		c = g.vlek
	}
	if c != nil {
		return parseEndorsement(c, r.signer)
	}
	if e := v.ours(r); e != nil {
		return e, nil
	}
	missing := fmt.Errorf("%w: %s", ErrNoCertificate, strings.ToUpper(string(r.signer)))
	p, _, known := productOf(r.family, r.model)
	switch {
	case v.source == nil:
		return nil, missing
	case r.signer == VLEK:
		return nil, fmt.Errorf("%w (AMD gives it to the cloud alone, which must hand it to the guest)", missing)
	case r.version < 3:
		return nil, fmt.Errorf("%w (a report of version %d does not say for which product to ask)", missing, r.version)
	case !known:
		return nil, fmt.Errorf("%w: family %#x, model %#x", ErrProduct, r.family, r.model)
	case r.chip == ChipID{}:
		return nil, fmt.Errorf("%w (the host masks the chip's id)", missing)
	}
	t, err := parseTCB(p, r.reported)
	if err != nil {
		return nil, err
	}
	der, err := v.source.VCEK(ctx, p, r.chip, t)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", missing, err)
	}
	if c, err = parseCertificate(der); err != nil {
		return nil, err
	}
	return parseEndorsement(c, r.signer)
}

// ours looks among our own certificates. Of several for the same chip or TCB, the report's signature tells which one is meant.
func (v *Verifier) ours(r *report) *endorsement {
	for structure, p := range []Product{Milan, Turin} { // Genoa's TCB has Milan's form
		t, err := parseTCB(p, r.reported)
		if err != nil {
			continue
		}
		key := endorsed{signer: r.signer, structure: uint8(structure), tcb: t}
		if r.signer == VCEK {
			key.chip = r.chip
		}
		for _, e := range v.known[key] {
			if verify.SnpReportSignature(r.raw, e.certificate) == nil {
				return e
			}
		}
	}
	return nil
}

// authority finds who made the certificate, among our own certificates first, then the guest's, then the source's.
func (v *Verifier) authority(ctx context.Context, e *endorsement, g *given, now time.Time) (*authority, error) {
	a, err := among(v.authorities, e, now)
	if err == nil {
		return a, nil
	}
	b, theirs := v.made(g.issuers, e, now)
	switch {
	case theirs == nil:
		return b, nil
	case !errors.Is(err, ErrNoCertificate):
		return nil, err
	case !errors.Is(theirs, ErrNoCertificate):
		return nil, theirs
	}
	p := Product(strings.TrimPrefix(strings.TrimPrefix(e.certificate.Issuer.CommonName, "SEV-"), "VLEK-"))
	if _, known := p.layout(); v.source == nil || !known {
		return nil, theirs
	}
	text, err := v.source.Issuers(ctx, p, e.signer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", theirs, err)
	}
	fetched, err := parseLoose(text)
	if err != nil {
		return nil, err
	}
	return v.made(fetched.issuers, e, now)
}

// made looks for an authority among issuers that were not checked yet, and our own roots.
func (v *Verifier) made(issuers []*x509.Certificate, e *endorsement, now time.Time) (*authority, error) {
	var of []*x509.Certificate
	for _, c := range issuers {
		if string(c.RawSubject) == string(e.certificate.RawIssuer) {
			of = append(of, c)
		}
	}
	list, problem := pair(v.roots, append(issuers[:len(issuers):len(issuers)], v.arks...), of)
	if len(list) == 0 {
		return nil, problem
	}
	return among(list, e, now)
}

// among tries every authority that has the name of the certificate's issuer.
func among(list []*authority, e *endorsement, now time.Time) (*authority, error) {
	err := fmt.Errorf("%w: issuer %q", ErrNoCertificate, clip(e.certificate.Issuer.CommonName))
	for _, a := range list {
		if a.signer != e.signer || string(a.ica.RawSubject) != string(e.certificate.RawIssuer) {
			continue
		}
		if err = a.issued(e, now); err == nil {
			return a, nil
		}
	}
	return nil, err
}

// lists gathers what may be a product's list of revocations, and the source's trouble if it had one.
func (v *Verifier) lists(ctx context.Context, p Product) (lists []*list, trouble error) {
	if v.source == nil {
		return v.revoked, nil
	}
	l, err := v.fetch(ctx, p)
	if l != nil {
		lists = append(v.revoked[:len(v.revoked):len(v.revoked)], l)
		return lists, err
	}
	return v.revoked, err
}

// fetch asks the source for a product's list. If it has none now, the last one is given with the error.
func (v *Verifier) fetch(ctx context.Context, p Product) (*list, error) {
	der, err := v.source.Revocations(ctx, p)
	v.mu.Lock()
	defer v.mu.Unlock()
	last := v.fetched[p]
	if err != nil || last != nil && bytes.Equal(last.Raw, der) {
		return last, err
	}
	l, err := parseList(der)
	if err != nil {
		return last, err
	}
	v.fetched[p] = l
	return l, nil
}
