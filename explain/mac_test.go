package explain

import (
	"crypto/rand"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/sev"
)

// TestMeasured measures a guest on the software platform, and claims otherwise.
func TestMeasured(t *testing.T) {
	l := newLab(t)
	api := sev.API{Major: 1, Minor: 55, Build: 21}
	p, err := sev.NewPlatform(rand.Reader, api)
	if err != nil {
		t.Fatal(err)
	}
	policy := sev.NoDebug | sev.NoKeySharing
	session, start, err := sev.NewSession(p.Chain.PDH, policy, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := p.LaunchStart(start.GODH[:], start.Session[:], policy)
	if err != nil {
		t.Fatal(err)
	}
	m, err := guest.Measure(sev.Digest(mustDigest(t, l.sev)), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	find := func(claimed Measured) *Answer {
		t.Helper()
		claimed.Measurement, claimed.TIK = m, session.TIK
		l.query.Measured = &claimed
		a, err := Find(t.Context(), l.query)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := find(Measured{Policy: policy, API: &api}); !a.InRecord || len(a.Differences) != 0 || a.Fit.API != api.String() {
		t.Fatalf("as claimed: %+v", a)
	}
	for name, test := range map[string]struct {
		policy sev.Policy
		api    *sev.API
		want   []string
	}{
		"debugging allowed":     {policy &^ sev.NoDebug, &api, []string{"policy"}},
		"policy with API floor": {policy.WithMinAPI(1, 55), &api, []string{"policy"}},
		"older build":           {policy, &sev.API{Major: 1, Minor: 55, Build: 3}, []string{"firmware API"}},
		"older version":         {policy, &sev.API{Major: 0, Minor: 24, Build: 3}, []string{"firmware API"}},
		"no version":            {policy, nil, nil},
		"ES policy":             {policy | sev.ES, &api, []string{"policy", "mode"}},
		"policy and build":      {policy &^ sev.NoDebug, &sev.API{Major: 1, Minor: 55, Build: 3}, []string{"policy", "firmware API"}},
		"two bits and minor":    {policy ^ sev.NoDebug ^ sev.NoSend, &sev.API{Major: 1, Minor: 53, Build: 21}, []string{"policy", "firmware API"}},
		"policy and version":    {policy | sev.ES, &sev.API{Major: 0, Minor: 17, Build: 48}, []string{"policy", "firmware API", "mode"}},
		"policy, no version":    {policy | sev.NoSend, nil, []string{"policy"}},
	} {
		a := find(Measured{Policy: test.policy, API: test.api})
		var got []string
		for _, d := range a.Differences {
			got = append(got, d.What)
		}
		if !a.InRecord || !slices.Equal(got, test.want) {
			t.Errorf("%s: %+v", name, a)
		}
	}

	s := l.es
	s.VCPUs = 7
	if guest, err = p.LaunchStart(start.GODH[:], start.Session[:], policy); err != nil {
		t.Fatal(err)
	}
	if m, err = guest.Measure(sev.Digest(mustDigest(t, s)), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if a := find(Measured{Policy: policy, API: &api}); !a.Explained || a.InRecord || a.Fit.VCPUs != 7 {
		t.Errorf("seven vCPUs: %+v", a)
	}

	// Firmware that is not the record's, under another policy and a version that is not known.
	s = l.es
	s.Firmware = slices.Clone(s.Firmware)
	s.Firmware[0] ^= 1
	l.query.Firmware = append(l.query.Firmware, Firmware{"other.fd", s.Firmware})
	if guest, err = p.LaunchStart(start.GODH[:], start.Session[:], policy); err != nil {
		t.Fatal(err)
	}
	if m, err = guest.Measure(sev.Digest(mustDigest(t, s)), rand.Reader); err != nil {
		t.Fatal(err)
	}
	for name, claimed := range map[string]Measured{
		"no version":           {Policy: policy},
		"other build":          {Policy: policy | sev.ES, API: &sev.API{Major: 1, Minor: 55, Build: 20}},
		"other policy":         {Policy: policy ^ sev.NoDebug, API: &api},
		"other policy, build":  {Policy: policy ^ sev.NoDebug, API: &sev.API{Major: 1, Minor: 55, Build: 20}},
		"as the platform says": {Policy: policy, API: &api},
	} {
		if a := find(claimed); !a.Explained || a.InRecord || a.Fit.Firmware != "other.fd" || a.Fit.API != api.String() || a.Fit.Policy != policy.String() {
			t.Errorf("%s: %+v, %+v", name, a.Fit, a)
		}
	}
}

// TestVaryKeepsItsBudget counts, and finds what other images have.
func TestVaryKeepsItsBudget(t *testing.T) {
	m := &Measured{API: &sev.API{Major: 1, Minor: 55, Build: 21}}
	known := make([]Known, 100)
	for budget := range 300 {
		if found, tried := m.Vary(known, 3, budget); found != nil || tried != budget {
			t.Fatalf("budget %d: %+v after %d", budget, found, tried)
		}
	}
	if found, tried := m.Vary(nil, 3, 100); found != nil || tried != 0 {
		t.Errorf("nothing known: %v, %d", found, tried)
	}
}

// BenchmarkVary is what the key server spends on a refusal.
func BenchmarkVary(b *testing.B) {
	m := &Measured{API: &sev.API{Major: 1, Minor: 55, Build: 21}}
	known := make([]Known, 3)
	for b.Loop() {
		m.Vary(known, 3, 512)
	}
}
