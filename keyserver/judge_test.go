package keyserver

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// trial is a standing and an attempt that it allows.
func trial(t *testing.T) (Standing, Attempt) {
	t.Helper()
	p := platforms()[0]
	policy := strictPolicy()
	policy.SNP, policy.SEV.Guest = nil, policy.SEV.Guest&^sev.ES
	chip, err := p.Chain.CEK.KeyDigest()
	must(t, err)
	policy.Platforms = Only([]string{chip.String()})
	keys, start, err := sev.NewSession(p.Chain.PDH, policy.SEV.Session(), rand.Reader)
	must(t, err)
	guest, err := p.LaunchStart(start.GODH[:], start.Session[:], policy.SEV.Session())
	must(t, err)
	m, err := guest.Measure(goodDigest, rand.Reader)
	must(t, err)
	return Standing{Image: "web", Record: testRecord(), Policy: policy, Passphrase: true, Released: 2, Revoked: RevocationsOf(nil)},
		Attempt{Time: time.Unix(1_800_000_000, 0), Address: "::ffff:192.0.2.7", Platform: "test/0123456789abcdef", Chip: chip.String(),
			SEV: &SEVEvidence{Session: keys, Measurement: m, API: testAPI}}
}

func revoked(kind RevocationKind, value string) Revocations {
	return RevocationsOf([]Revocation{{Kind: kind, Value: value, Reason: "lost"}})
}

// TestJudge starts from an attempt that is allowed and spoils one thing at a time.
func TestJudge(t *testing.T) {
	about, a := trial(t)
	if v := Judge(about, a); v.Err() != nil || !bytes.Equal(v.Digest, goodDigest[:]) {
		t.Fatalf("%+v", v)
	}
	for _, bad := range []struct {
		name  string
		want  error
		spoil func(*Standing, *Attempt)
	}{
		{"empty policy", ErrNoWay, func(s *Standing, _ *Attempt) { s.Policy = Policy{} }},
		{"platforms not said", ErrChip, func(s *Standing, _ *Attempt) { s.Policy.Platforms = Limit[[]string]{} }},
		{"networks not said", ErrNetwork, func(s *Standing, _ *Attempt) { s.Policy.Networks = Limit[[]netip.Prefix]{} }},
		{"beginning not said", ErrWindow, func(s *Standing, _ *Attempt) { s.Policy.NotBefore = Limit[time.Time]{} }},
		{"end not said", ErrWindow, func(s *Standing, _ *Attempt) { s.Policy.NotAfter = Limit[time.Time]{} }},
		{"releases not said", ErrReleases, func(s *Standing, _ *Attempt) { s.Policy.Releases = Limit[int64]{} }},
		{"minimum API not said", sev.ErrAPI, func(s *Standing, _ *Attempt) { s.Policy.SEV.MinAPI = Limit[sev.API]{} }},
		{"no evidence", errAny, func(_ *Standing, a *Attempt) { a.SEV = nil }},
		{"evidence of both kinds", errAny, func(_ *Standing, a *Attempt) { a.SNP = report{} }},
		{"evidence of SNP", ErrNoWay, func(_ *Standing, a *Attempt) { a.SEV, a.SNP = nil, report{} }},
		{"other chip", ErrChip, func(_ *Standing, a *Attempt) { a.Chip = strings.Repeat("00", 32) }},
		{"no chip", ErrChip, func(_ *Standing, a *Attempt) { a.Chip = "" }},
		{"other network", ErrNetwork, func(_ *Standing, a *Attempt) { a.Address = "192.0.3.7" }},
		{"other network of IPv6", ErrNetwork, func(_ *Standing, a *Attempt) { a.Address = "2001:db9::1" }},
		{"no address", ErrNetwork, func(_ *Standing, a *Attempt) { a.Address = "unknown" }},
		{"too early", ErrWindow, func(_ *Standing, a *Attempt) { a.Time = time.Unix(1_700_000_000-1, 0) }},
		{"too late", ErrWindow, func(_ *Standing, a *Attempt) { a.Time = time.Unix(1_900_000_000, 0) }},
		{"used up", ErrReleases, func(s *Standing, _ *Attempt) { s.Released = 3 }},
		{"no passphrase", ErrNoPassphrase, func(s *Standing, _ *Attempt) { s.Passphrase = false }},
		{"image revoked", ErrRevoked, func(s *Standing, _ *Attempt) { s.Revoked = revoked(RevokedImage, "web") }},
		{"digest revoked", ErrRevoked, func(s *Standing, _ *Attempt) { s.Revoked = revoked(RevokedDigest, fmt.Sprintf("%x", goodDigest)) }},
		{"chip revoked", ErrRevoked, func(s *Standing, a *Attempt) { s.Revoked = revoked(RevokedChip, a.Chip) }},
		{"platform revoked", ErrRevoked, func(s *Standing, a *Attempt) { s.Revoked = revoked(RevokedChip, a.Platform) }},
		{"policy claimed otherwise", ErrSessionPolicy, func(_ *Standing, a *Attempt) { a.SEV.Session.Policy |= sev.Domain }},
		{"debug guest", ErrSessionPolicy, func(_ *Standing, a *Attempt) { a.SEV.Session.Policy &^= sev.NoDebug }},
		{"other keys", sev.ErrMeasurement, func(_ *Standing, a *Attempt) { a.SEV.Session.TIK[0] ^= 1 }},
		{"other measurement", sev.ErrMeasurement, func(_ *Standing, a *Attempt) { a.SEV.Measurement.MAC[0] ^= 1 }},
		{"API claimed older", sev.ErrMeasurement, func(_ *Standing, a *Attempt) { a.SEV.API.Build-- }},
		{"API claimed newer", sev.ErrMeasurement, func(_ *Standing, a *Attempt) { a.SEV.API.Build++ }},
		{"API older", sev.ErrAPI, func(s *Standing, _ *Attempt) { s.Policy.SEV.MinAPI = Only(sev.API{Major: 1, Minor: 55, Build: 22}) }},
		{"digest of another record", sev.ErrMeasurement, func(s *Standing, _ *Attempt) { s.Record.Digests = s.Record.Digests[:1] }},
		{"no digest", sev.ErrMeasurement, func(s *Standing, _ *Attempt) { s.Record.Digests = nil }},
	} {
		t.Run(bad.name, func(t *testing.T) {
			about, a := trial(t)
			bad.spoil(&about, &a)
			err := Judge(about, a).Err()
			if err == nil || bad.want != errAny && !errors.Is(err, bad.want) {
				t.Errorf("got %v, want %v", err, bad.want)
			}
		})
	}
	// All complaints come at once.
	about, a = trial(t)
	about.Released, about.Revoked = 3, revoked(RevokedChip, a.Chip)
	a.Address, a.Time, a.SEV.API.Build = "", time.Unix(0, 0), 0
	err := Judge(about, a).Err()
	for _, want := range []error{ErrReleases, ErrRevoked, ErrNetwork, ErrWindow, sev.ErrMeasurement} {
		if !errors.Is(err, want) {
			t.Errorf("no complaint that %v: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than a line for the audit: %q", err)
	}
}

// report is an SNP report that was verified, as package snp's would be.
type report struct {
	launch     []byte
	complaints []error
}

func (r report) Launch() []byte                { return r.launch }
func (r report) Complaints(snp.Policy) []error { return r.complaints }

// TestJudgeReport judges reports beside a record with digests of all kinds.
func TestJudgeReport(t *testing.T) {
	about, a := trial(t)
	policy := snp.DefaultPolicy()
	about.Policy.SEV, about.Policy.SNP = nil, &policy
	digest, svsm := bytes.Repeat([]byte{1}, 48), bytes.Repeat([]byte{2}, 48)
	about.Record.Digests = append(about.Record.Digests,
		measure.LaunchDigest{Launch: measure.Launch{Mode: measure.SNP}, Digest: digest}, measure.LaunchDigest{Launch: measure.Launch{Mode: measure.SNPSVSM}, Digest: svsm})
	a.SEV = nil
	for _, good := range [][]byte{digest, svsm} {
		a.SNP = report{launch: good}
		if v := Judge(about, a); v.Err() != nil || !bytes.Equal(v.Digest, good) {
			t.Fatalf("%+v", v)
		}
	}
	for name, bad := range map[string]report{
		"no digest": {}, "other digest": {launch: bytes.Repeat([]byte{3}, 48)}, "digest of SEV": {launch: goodDigest[:]},
		"shorter": {launch: digest[:47]}, "complaint": {digest, []error{errAny}},
	} {
		a.SNP = bad
		if err := Judge(about, a).Err(); err == nil || name == "complaint" && !errors.Is(err, errAny) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a.SNP = report{launch: digest}
	about.Revoked = revoked(RevokedDigest, fmt.Sprintf("%x", digest))
	if err := Judge(about, a).Err(); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked digest: %v", err)
	}
}

// TestCircumstances starts from exchanges that get their secret and changes policy or revocations around them, before the session
// and between session and measurement. What a host sees is the same each time.
func TestCircumstances(t *testing.T) {
	chip, err := platforms()[0].Chain.CEK.KeyDigest()
	must(t, err)
	set := func(change func(*Policy)) func(*testing.T, *lab) {
		return func(t *testing.T, l *lab) {
			p := DefaultPolicy()
			change(&p)
			_, err := l.store.SetPolicy(t.Context(), "web", p, l.clock())
			must(t, err)
		}
	}
	revoke := func(kind RevocationKind, value string) func(*testing.T, *lab) {
		return func(t *testing.T, l *lab) {
			must(t, l.store.Revoke(t.Context(), Revocation{kind, value, "lost", l.clock()}))
		}
	}
	elsewhere := Only([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")})
	for _, c := range []struct {
		name, cause string
		change      func(*testing.T, *lab)
	}{
		{"nothing changes", "", func(*testing.T, *lab) {}},
		{"loopback allowed", "", set(func(p *Policy) { p.Networks = Only([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}) })},
		{"chip allowed", "", set(func(p *Policy) { p.Platforms = Only([]string{chip.String()}) })},
		{"another chip revoked", "", revoke(RevokedChip, strings.Repeat("00", 32))},
		{"another digest revoked", "", revoke(RevokedDigest, fmt.Sprintf("%x", otherDigest))},
		{"another network", ErrNetwork.Error(), set(func(p *Policy) { p.Networks = elsewhere })},
		{"another chip", ErrChip.Error(), set(func(p *Policy) { p.Platforms = Only([]string{strings.Repeat("00", 32)}) })},
		{"over", ErrWindow.Error(), set(func(p *Policy) { p.NotAfter = Only(time.Unix(1_700_000_000, 0)) })},
		{"not yet", ErrWindow.Error(), set(func(p *Policy) { p.NotBefore = Only(time.Unix(4_000_000_000, 0)) })},
		{"used up", ErrReleases.Error(), set(func(p *Policy) { p.Releases = Only(int64(1)) })}, // the good exchange was one
		{"chip revoked", "the chip is revoked: lost", revoke(RevokedChip, chip.String())},
		{"digest revoked", "the digest is revoked: lost", revoke(RevokedDigest, fmt.Sprintf("%x", goodDigest))},
		{"image revoked", "image is revoked: lost", revoke(RevokedImage, "web")},
		{"passphrase revoked", ErrNoPassphrase.Error(), revoke(RevokedSecret, secretName("web", sev.DiskPassphrase))},
		{"way in closed", ErrNoWay.Error(), set(func(p *Policy) {
			s := snp.DefaultPolicy()
			p.SEV, p.SNP = nil, &s
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.register("web", func(r *Registration) {
				r.Record.Digests = append(r.Record.Digests, measure.LaunchDigest{
					Launch: measure.Launch{Mode: measure.SNP, VCPUs: 1, VCPUType: "EPYC-v4", GuestFeatures: 1}, Digest: bytes.Repeat([]byte{1}, 48)})
			})
			l.good("web")
			during := newLaunch(platforms()[0], "web")
			must(t, during.begin(t.Context(), l.client))
			during.measure(t)
			c.change(t, l)
			after := newLaunch(platforms()[0], "web")
			must(t, after.begin(t.Context(), l.client))
			after.measure(t)
			nobody := newLaunch(platforms()[0], "nobody")
			must(t, nobody.begin(t.Context(), l.client))
			if after.policy != nobody.policy {
				t.Errorf("a session under policy %v, one of no image under %v", after.policy, nobody.policy)
			}
			for when, h := range map[string]*launch{"open session": during, "new session": after} {
				packet, err := h.finish(t.Context(), l.client)
				if c.cause == "" {
					must(t, err)
					h.unlocked(t, packet)
					continue
				}
				refusedAs(t, err, wire.Refused)
				// The cause stands in the release's entry, or in that of the doomed session.
				if !slices.ContainsFunc(l.rows(), func(r Row) bool { return r.Session == h.session.ID && strings.Contains(r.Cause, c.cause) }) {
					t.Errorf("%s: audit does not say %q: %q", when, c.cause, l.lastCause())
				}
			}
		})
	}
}

// TestSessionFromElsewhere makes a session from a network that is not allowed: that it goes on from one that is does not help.
func TestSessionFromElsewhere(t *testing.T) {
	l := newLab(t)
	l.register("web", func(r *Registration) {
		r.Policy.Networks = Only([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")})
		r.Policy.SEV.Guest |= sev.ES
	})
	for _, test := range []struct {
		session, release string
		released         bool
	}{{"127.0.0.1", "127.0.0.1", true}, {"127.0.0.2", "127.0.0.1", false}, {"127.0.0.1", "127.0.0.2", false}, {"127.0.0.2", "127.0.0.2", false}} {
		h := newLaunch(platforms()[0], "web")
		h.digest = esDigest
		var err error
		h.session, err = l.server.OpenSession(t.Context(), Source{"1", test.session}, h.request)
		must(t, err)
		h.policy = sev.Policy(h.session.Policy)
		if es := h.policy.Has(sev.ES); es != (test.session == "127.0.0.1") {
			t.Errorf("from %s the policy is %v", test.session, h.policy)
		}
		h.measure(t)
		_, err = l.server.Release(t.Context(), Source{"2", test.release}, h.session.ID, h.measured)
		refusal := (*Refusal)(nil)
		if test.released != (err == nil) || err != nil && (!errors.As(err, &refusal) || refusal.Class != wire.Refused) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// TestJudgedOnWhatIsNoLongerSo changes something between a judgement and its writing: it is not written.
func TestJudgedOnWhatIsNoLongerSo(t *testing.T) {
	for name, change := range map[string]func(*lab, *launch) error{
		"nothing": func(*lab, *launch) error { return nil },
		"policy": func(l *lab, _ *launch) error {
			_, err := l.store.SetPolicy(t.Context(), "web", DefaultPolicy(), l.clock())
			return err
		},
		"revocation": func(l *lab, _ *launch) error {
			return l.store.Revoke(t.Context(), Revocation{RevokedDigest, fmt.Sprintf("%x", goodDigest), "lost", l.clock()})
		},
		"secret": func(l *lab, _ *launch) error {
			_, err := l.store.RotateSecret(t.Context(), "web", sev.DiskPassphrase, []byte("new"), l.clock())
			return err
		},
		"time":    func(l *lab, _ *launch) error { l.wait(DefaultSessionTTL); return nil },
		"session": func(l *lab, h *launch) error { _, err := h.finish(t.Context(), l.client); return err },
		"last release": func(l *lab, _ *launch) error {
			_, err := newLaunch(platforms()[0], "web").run(t, l.client)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.register("web", func(r *Registration) { r.Policy.Releases = Only(int64(1)) })
			h := newLaunch(platforms()[0], "web")
			must(t, h.begin(t.Context(), l.client))
			h.measure(t)
			m, err := sev.ParseMeasurement(h.measured.Measurement)
			must(t, err)
			d, err := l.server.decide(t.Context(), Source{"1", "127.0.0.1"}, h.session.ID, m, h.api)
			must(t, err)
			if d.refusal != nil {
				t.Fatal(d.refusal)
			}
			must(t, change(l, h))
			err = l.store.write(t.Context(), func(tx *transaction) error { return l.server.settle(tx, d) })
			if stale := errors.Is(err, errStale); stale == (name == "nothing") || !stale && err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestTestPolicy tries policies on a measurement: the same verdict as a release's, and nothing is written.
func TestTestPolicy(t *testing.T) {
	l := newLab(t)
	l.register("web")
	about, a := trial(t)
	a.SEV.Session.Policy = DefaultPolicy().SEV.Session() // and with it the measurement is another guest's
	rows := len(l.rows())
	v, err := l.store.TestPolicy(t.Context(), "web", nil, a)
	must(t, err)
	if !errors.Is(v.Err(), sev.ErrMeasurement) || !strings.Contains(v.Reason, "none of the record's digests fits") {
		t.Errorf("%v", v.Err())
	}
	_, a = trial(t)
	v, err = l.store.TestPolicy(t.Context(), "web", &about.Policy, a)
	must(t, err)
	if v.Err() != nil || !bytes.Equal(v.Digest, goodDigest[:]) {
		t.Errorf("under a policy on trial: %v", v.Err())
	}
	if _, err := l.store.TestPolicy(t.Context(), "web", &Policy{}, a); !errors.Is(err, ErrNotSaid) {
		t.Errorf("an empty policy: %v", err)
	}
	if _, err := l.store.TestPolicy(t.Context(), "nobody", nil, a); !errors.Is(err, ErrNoImage) {
		t.Errorf("no image: %v", err)
	}
	if n := len(l.rows()); n != rows {
		t.Errorf("audit grew from %d to %d rows", rows, n)
	}
}
