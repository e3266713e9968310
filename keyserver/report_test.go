package keyserver

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/proto/sevsnp"

	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// TestReportAttacks spoils a good exchange, one thing at a time.
func TestReportAttacks(t *testing.T) {
	l := newSNPLab(t)
	l.registerSNP("other")
	report := func(spoil func(*sevsnp.Report)) func(*snpGuest) { return func(g *snpGuest) { g.spoil = spoil } }
	strict := func(change func(*Registration)) func(*snpGuest) {
		return func(g *snpGuest) {
			g.image = fmt.Sprintf("strict%d", len(l.rows()))
			l.registerSNP(g.image, change)
		}
	}
	for name, c := range map[string]struct {
		before func(*snpGuest) // the challenge
		during func(*snpGuest) // between challenge and report
		after  func(*snpGuest) // between report and request
		class  wire.Class      // "": refused
		cause  string
	}{
		"another guest's report, my key": {after: func(g *snpGuest) {
			other := newGuest(t, "web")
			other.challenge = g.challenge
			other.report(t)
			g.request.Report = other.request.Report
		}, cause: snp.ErrReportData.Error()},
		"my report, another's key":    {after: func(g *snpGuest) { g.request.PublicKey = newGuest(t, "web").key.Public() }, cause: snp.ErrReportData.Error()},
		"report of another challenge": {during: func(g *snpGuest) { g.challenge.Nonce[0]++ }, cause: snp.ErrReportData.Error()},
		"report for another image":    {after: func(g *snpGuest) { g.image = "other"; g.report(t); g.image, g.request.Image = "web", "web" }, cause: snp.ErrReportData.Error()},
		"key of zeros":                {after: func(g *snpGuest) { g.request.PublicKey = make([]byte, 32) }, cause: snp.ErrReportData.Error()},
		"another digest":              {during: report(func(r *sevsnp.Report) { r.Measurement[0]++ }), cause: errReportDigest.Error()},
		"digest of SEV": {during: func(g *snpGuest) {
			g.spoil = func(r *sevsnp.Report) { clear(r.Measurement); copy(r.Measurement, goodDigest[:]) }
		}, cause: errReportDigest.Error()},
		"debug guest":            {during: report(func(r *sevsnp.Report) { r.Policy |= 1 << 19 }), cause: snp.ErrDebug.Error()},
		"wrong VMPL":             {during: report(func(r *sevsnp.Report) { r.Vmpl = 2 }), cause: snp.ErrVMPL.Error()},
		"unknown image":          {before: func(g *snpGuest) { g.image = "unknown" }, cause: "no image was registered under that name"},
		"image of the other way": {before: func(g *snpGuest) { g.image = "sev"; l.register("sev") }, cause: ErrNoWay.Error()},
		"TCB below the floor": {before: strict(func(r *Registration) {
			r.Policy.SNP.Products = map[snp.Product]snp.Floor{snp.Milan: {TCB: snp.TCB{SNP: 25}}}
		}), cause: "snp 24, not 25"},
		"unlisted chip":                   {before: strict(func(r *Registration) { r.Policy.SNP.Chips = snp.Only(snp.ChipID{1}) }), cause: snp.ErrChip.Error()},
		"unlisted platform":               {before: strict(func(r *Registration) { r.Policy.Platforms = Only([]string{strings.Repeat("0", 128)}) }), cause: ErrChip.Error()},
		"ID key":                          {before: strict(func(r *Registration) { r.Policy.SNP.IDKeys = snp.Only(snp.KeyDigest{1}) }), cause: snp.ErrKey.Error()},
		"list of revocations needed":      {before: strict(func(r *Registration) { r.Policy.SNP.Revocation = snp.DefaultPolicy().Revocation }), cause: snp.ErrRevocationAge.Error()},
		"network":                         {before: strict(func(r *Registration) { r.Policy.Networks = Only([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}) }), cause: ErrNetwork.Error()},
		"forged signature":                {after: func(g *snpGuest) { g.request.Report[0x2a0]++ }, class: wire.UntrustedPlatform, cause: snp.ErrSignature.Error()},
		"byte of the report changed":      {after: func(g *snpGuest) { g.request.Report[0x90]++ }, class: wire.UntrustedPlatform, cause: snp.ErrSignature.Error()},
		"no certificates":                 {during: func(g *snpGuest) { g.certificates = nil }, class: wire.UntrustedPlatform, cause: snp.ErrNoCertificate.Error()},
		"garbage for certificates":        {during: func(g *snpGuest) { g.certificates = bytes.Repeat([]byte{7}, 32<<10) }, class: wire.UntrustedPlatform, cause: "certificate table"},
		"another product's chip and root": {before: func(g *snpGuest) { g.amd = fake.New(snp.Genoa); g.certificates = testAMD().Table() }, class: wire.UntrustedPlatform, cause: snp.ErrMismatch.Error()},
	} {
		must(t, func() error {
			g := newGuest(t, "web")
			s, err := g.run(t, l.client)
			if err == nil {
				g.unlocked(t, s)
			}
			return err
		}())
		if c.class == "" {
			c.class = wire.Refused
		}
		g := newGuest(t, "web")
		step := func(f func(*snpGuest)) {
			if f != nil {
				f(g)
			}
		}
		step(c.before)
		must(t, g.begin(t.Context(), l.client))
		step(c.during)
		g.report(t)
		step(c.after)
		s, err := g.finish(t.Context(), l.client)
		refused := (*client.Refused)(nil)
		if !errors.As(err, &refused) || refused.Class != c.class || s.Secret != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if cause := l.lastCause(); !strings.Contains(cause, c.cause) {
			t.Errorf("%s: cause is %q", name, cause)
		}
		// It was the only report: the right one comes too late.
		if g.image == "web" {
			again := &snpGuest{image: "web", amd: testAMD(), key: g.key, challenge: g.challenge, certificates: testAMD().Table()}
			again.report(t)
			if _, err := again.finish(t.Context(), l.client); !errors.As(err, &refused) || refused.Class != wire.Used {
				t.Errorf("%s, and then a good one: %v", name, err)
			}
		}
	}
}

// TestReportReason: the owner is told which other version a guest was started from, or where to search.
func TestReportReason(t *testing.T) {
	l := newSNPLab(t)
	l.registerSNP("web", func(r *Registration) {
		r.Replace = true
		newer := snp.Digest{9}
		r.Record.Digests[len(r.Record.Digests)-1].Digest = newer[:]
	})
	for name, c := range map[string]struct {
		spoil  func(*sevsnp.Report)
		reason string
	}{
		"older version": {nil, "the digest is that of version 1 of the image, mode snp, 2 vCPUs of type EPYC-v4"},
		"never seen":    {func(r *sevsnp.Report) { r.Measurement[0]++ }, "sealboot explain --digest 0202030400"},
	} {
		g := newGuest(t, "web")
		g.spoil = c.spoil
		_, err := g.run(t, l.client)
		refusedAs(t, err, wire.Refused)
		rows := l.rows()
		if row := rows[len(rows)-1]; !strings.Contains(row.Reason, c.reason) || row.Class != wire.Refused {
			t.Errorf("%s: reason is %q", name, row.Reason)
		}
	}
}
