package keyserver

import (
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// Standing is what decides about an image, at one moment.
type Standing struct {
	Image      string
	Record     *measure.Record
	Policy     Policy
	Passphrase bool  // it has one: it may be revoked
	Released   int64 // since the image's version was registered
	Revoked    Revocations
}

// Attempt is one try to get an image's secrets: who asks, from where and when, and the evidence. Chain or report have been
// verified: Judge does not do it again.
type Attempt struct {
	Time     time.Time
	Address  string
	Platform string // as the audit names it
	Chip     string // SHA-256 of the CEK's public key (SEV), or CHIP_ID (SNP), in lower-case hexadecimal
	SEV      *SEVEvidence
	SNP      SNPEvidence
}

// SEVEvidence is a launch measurement with the session that it is of.
type SEVEvidence struct {
	Session     *sev.Session
	Measurement sev.Measurement
	API         sev.API // as the host claims it: the measurement holds only if it is true
}

// SNPEvidence is a verified attestation report.
type SNPEvidence interface {
	Launch() []byte                // the launch digest, 48 bytes
	Complaints(snp.Policy) []error // everything that the policy has against the report
}

// Verdict is what Judge finds. There is no secret without a digest, nor with a complaint.
type Verdict struct {
	Digest     []byte // of the record, that the evidence fits
	Complaints []error
	Reason     string // what is likely behind a measurement or report that fits nothing; not Judge's, but of those who know other images
}

// Err joins the complaints; nil if there is none.
func (v Verdict) Err() error {
	if len(v.Complaints) == 0 && len(v.Digest) > 0 {
		return nil
	}
	return complaints(v.Complaints)
}

// complaints is errors.Join on one line, for the audit.
type complaints []error

func (c complaints) Error() string {
	if len(c) == 0 {
		return "there is no evidence"
	}
	var texts []string
	for _, err := range c {
		texts = append(texts, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return strings.Join(texts, "; ")
}

func (c complaints) Unwrap() []error { return c }

// What Judge complains of, beside sev.ErrMeasurement and sev.ErrAPI and what package snp has against a report.
var (
	ErrRevoked       = errors.New("revoked")
	ErrNetwork       = errors.New("source is in none of the networks that the policy allows")
	ErrChip          = errors.New("chip is not one that the policy allows")
	ErrWindow        = errors.New("outside of the policy's time window")
	ErrReleases      = errors.New("the policy's number of releases is used up")
	ErrNoPassphrase  = errors.New("image's passphrase is revoked")
	ErrNoWay         = errors.New("the policy does not open this way in")
	ErrSessionPolicy = errors.New("session's policy is not the image's")
)

// Judge says everything that stands between an attempt and the image's secrets. It is the only judge that there is: a release,
// and the making of a session, which has no evidence yet, go through it, and so does a trial of a policy. It does no I/O.
func Judge(about Standing, a Attempt) Verdict {
	v := Verdict{Complaints: about.circumstances(a)}
	switch {
	case a.SEV != nil && a.SNP == nil:
		v.sev(about, a.SEV)
	case a.SNP != nil && a.SEV == nil:
		v.snp(about, a.SNP)
	}
	if reason, is := about.Revoked.find(RevokedDigest, hex.EncodeToString(v.Digest)); is && len(v.Digest) > 0 {
		v.Complaints = append(v.Complaints, fmt.Errorf("the digest is %w: %s", ErrRevoked, reason))
	}
	return v
}

// circumstances are what needs no evidence.
func (s Standing) circumstances(a Attempt) (list []error) {
	complain := func(format string, args ...any) { list = append(list, fmt.Errorf(format, args...)) }
	if reason, is := s.Revoked.find(RevokedImage, s.Image); is {
		complain("image is %w: %s", ErrRevoked, reason)
	}
	if !s.Passphrase {
		complain("%w", ErrNoPassphrase)
	}
	for _, name := range []string{a.Chip, a.Platform} {
		if reason, is := s.Revoked.find(RevokedChip, name); is {
			complain("the chip is %w: %s", ErrRevoked, reason)
			break
		}
	}
	if chips, only := s.Policy.Platforms.Value(); !s.Policy.Platforms.said || only && !slices.Contains(chips, a.Chip) {
		complain("%w: %s", ErrChip, a.Chip)
	}
	if !s.Policy.inNetworks(a.Address) {
		complain("%w: %s", ErrNetwork, clean(a.Address))
	}
	if !s.Policy.inWindow(a.Time) {
		complain("%w: %s", ErrWindow, a.Time.UTC().Format(time.RFC3339))
	}
	if !s.Policy.mayRelease(s.Released) {
		complain("%w: there were %d", ErrReleases, s.Released)
	}
	return list
}

func (p Policy) inNetworks(address string) bool {
	networks, only := p.Networks.Value()
	if !only {
		return p.Networks.said
	}
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(ip) })
}

func (p Policy) inWindow(now time.Time) bool {
	from, hasFrom := p.NotBefore.Value()
	until, hasUntil := p.NotAfter.Value()
	return p.NotBefore.said && p.NotAfter.said && (!hasFrom || !now.Before(from)) && (!hasUntil || now.Before(until))
}

func (p Policy) mayRelease(had int64) bool {
	most, only := p.Releases.Value()
	return p.Releases.said && (!only || had < most)
}

func (v *Verdict) sev(about Standing, e *SEVEvidence) {
	if about.Policy.SEV == nil {
		v.Complaints = append(v.Complaints, fmt.Errorf("%w: SEV", ErrNoWay))
		return
	}
	if e.Session.Policy != about.Policy.SEV.Session() {
		v.Complaints = append(v.Complaints, fmt.Errorf("%w: %v, not %v", ErrSessionPolicy, e.Session.Policy, about.Policy.SEV.Session()))
	}
	digest, ok := match(e, digests(about.Record, about.Policy.SEV.Mode()))
	if !ok {
		v.Complaints = append(v.Complaints, sev.ErrMeasurement)
		return
	}
	v.Digest = digest[:]
	if !about.Policy.SEV.allows(e.API) { // confirmed by now: it is in the measurement's MAC
		oldest, _ := about.Policy.SEV.MinAPI.Value()
		v.Complaints = append(v.Complaints, fmt.Errorf("%w: %v, policy asks for %v", sev.ErrAPI, e.API, oldest))
	}
}

// matchBlock is the number of digests that are always tried, and a multiple of which is: an image with one cannot be told from
// one with as many, or from none.
const matchBlock = 32

// match tries every digest, whichever fits: the time that it takes tells nothing about the one that did.
func match(e *SEVEvidence, digests []sev.Digest) (fits sev.Digest, ok bool) {
	for i := range max(1, (len(digests)+matchBlock-1)/matchBlock) * matchBlock {
		var d sev.Digest
		if i < len(digests) {
			d = digests[i]
		}
		err := e.Session.VerifyMeasurement(e.Measurement, e.API, d)
		if (err == nil || errors.Is(err, sev.ErrAPI)) && i < len(digests) { // the digest fits; the version is judged by the image's policy
			fits, ok = d, true
		}
	}
	return fits, ok
}

func (v *Verdict) snp(about Standing, e SNPEvidence) {
	if about.Policy.SNP == nil {
		v.Complaints = append(v.Complaints, fmt.Errorf("%w: SNP", ErrNoWay))
		return
	}
	launch := e.Launch()
	for _, d := range about.Record.Digests {
		if (d.Mode == measure.SNP || d.Mode == measure.SNPSVSM) && len(launch) == d.Mode.DigestSize() &&
			subtle.ConstantTimeCompare(d.Digest, launch) == 1 {
			v.Digest = launch
		}
	}
	if v.Digest == nil {
		v.Complaints = append(v.Complaints, fmt.Errorf("%w: %x", errReportDigest, launch))
	}
	v.Complaints = append(v.Complaints, e.Complaints(*about.Policy.SNP)...)
}

var errReportDigest = errors.New("the report's launch digest is none of the record's")
