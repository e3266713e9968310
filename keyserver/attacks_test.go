package keyserver

import (
	"context"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// listSource has AMD's certificates, and the list of revocations that it was last given.
type listSource struct {
	mu   sync.Mutex
	list []byte
}

func (s *listSource) set(list []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = list
}

func (s *listSource) VCEK(context.Context, snp.Product, snp.ChipID, snp.TCB) ([]byte, error) {
	return testAMD().VCEK().Raw, nil
}

func (s *listSource) Issuers(context.Context, snp.Product, snp.Signer) ([]byte, error) {
	return fake.PEM(testAMD().ASK(), testAMD().ARK()), nil
}

func (s *listSource) Revocations(context.Context, snp.Product) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list, nil
}

// TestStaleList: a list of revocations that was good yesterday is none once its time is over, and one that names a guest's issuer ends it
// whatever its age.
func TestStaleList(t *testing.T) {
	const day = 24 * time.Hour
	source := new(listSource)
	l := newSNPLab(t, func(c *Config) { c.SNP = testVerifier(t, source) })
	l.registerSNP("strict", func(r *Registration) {
		r.Policy.SNP.Revocation = snp.Revocation{Required: true, MaxAge: 30 * day}
	})
	try := func() error {
		g := newGuest(t, "strict")
		s, err := g.run(t, l.client)
		if err == nil {
			g.unlocked(t, s)
		}
		return err
	}
	good := func() {
		t.Helper()
		source.set(testAMD().List(l.clock().Add(-day), l.clock().Add(60*day)))
		must(t, try())
	}
	good()
	l.wait(31 * day) // it is not due yet, but older than the policy allows
	refusedAs(t, try(), wire.Refused)
	if cause := l.lastCause(); !strings.Contains(cause, snp.ErrRevocationAge.Error()) {
		t.Errorf("cause is %q", cause)
	}
	good()
	source.set(testAMD().List(l.clock().Add(-day), l.clock().Add(-time.Second))) // its successor is due
	refusedAs(t, try(), wire.Refused)
	good()
	source.set(testAMD().List(l.clock().Add(-day), l.clock().Add(60*day), fake.ASKSerial))
	refusedAs(t, try(), wire.UntrustedPlatform)
	source.set(testAMD().List(l.clock().Add(-day), l.clock().Add(60*day), big.NewInt(1)))
	must(t, try())
}

// TestForgedCertificates brings a guest's own report under certificates that AMD did not make.
func TestForgedCertificates(t *testing.T) {
	l := newSNPLab(t)
	a := testAMD()
	spoiled := func(c *x509.Certificate) *x509.Certificate {
		raw := slices.Clone(c.Raw)
		raw[len(raw)-1] ^= 1 // of the signature
		forged, err := x509.ParseCertificate(raw)
		must(t, err)
		return forged
	}
	for name, list := range map[string][]*x509.Certificate{
		"good":             {a.VCEK(), a.ASK(), a.ARK()},
		"forged VCEK":      {spoiled(a.VCEK()), a.ASK(), a.ARK()},
		"forged ASK":       {a.VCEK(), spoiled(a.ASK()), a.ARK()},
		"forged ARK":       {a.VCEK(), a.ASK(), spoiled(a.ARK())},
		"no issuer":        {a.VCEK(), a.ARK()},
		"VLEK for VCEK":    {a.VLEK(), a.ASK(), a.ARK()},
		"ASVK for the ASK": {a.VCEK(), a.ASVK(), a.ARK()},
	} {
		g := newGuest(t, "web")
		g.certificates = fake.PEM(list...)
		s, err := g.run(t, l.client)
		if name == "good" {
			must(t, err)
			g.unlocked(t, s)
			continue
		}
		if refused := (*client.Refused)(nil); !errors.As(err, &refused) || refused.Class != wire.UntrustedPlatform {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestClockJumps sets the server's clock while a launch is under way.
func TestClockJumps(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.register("window", func(r *Registration) {
		r.Policy.NotBefore, r.Policy.NotAfter = Only(l.clock().UTC().Add(-time.Second)), Only(l.clock().UTC().Add(time.Minute))
	})
	for _, jump := range []struct {
		name, image string
		by          []time.Duration
		class       wire.Class // "": released
	}{
		{"none", "web", nil, ""},
		{"none, under a window", "window", nil, ""},
		{"forward within the session's time", "web", []time.Duration{DefaultSessionTTL - 2*time.Second}, ""},
		{"forward to the session's end", "web", []time.Duration{DefaultSessionTTL}, wire.Expired},
		{"forward by years: it is forgotten", "web", []time.Duration{10 * 365 * 24 * time.Hour}, wire.UnknownSession},
		{"back a little", "web", []time.Duration{-30 * time.Second}, ""},
		{"back by more than a clock is set", "web", []time.Duration{-2 * time.Minute}, wire.Expired},
		{"back by years", "web", []time.Duration{-10 * 365 * 24 * time.Hour}, wire.Expired},
		{"forward and back: what has ended stays ended", "web", []time.Duration{time.Hour / 2, -time.Hour / 2}, wire.Expired},
		{"forward behind the window", "window", []time.Duration{time.Minute}, wire.Refused},
		{"back before the window", "window", []time.Duration{-10 * time.Second}, wire.Refused},
	} {
		h := newLaunch(platforms()[0], jump.image)
		must(t, h.begin(t.Context(), l.client))
		h.measure(t)
		var moved time.Duration
		for _, by := range jump.by {
			l.wait(by)
			moved += by
			must(t, l.server.Expire(t.Context()))
		}
		packet, err := h.finish(t.Context(), l.client)
		refused := (*client.Refused)(nil)
		switch {
		case jump.class == "" && err == nil:
			h.unlocked(t, packet)
		case jump.class == "" || !errors.As(err, &refused) || refused.Class != jump.class:
			t.Errorf("%s: %v", jump.name, err)
		}
		l.wait(-moved)
	}
	l.good("web")
	l.rows()
}
