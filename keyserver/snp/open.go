package snp

import (
	"fmt"
	"net/http"
	"time"

	"github.com/sealboot/sealboot/sev"
)

// Sources says where a verifier's certificates and lists come from, beside those that a guest brings. The zero Sources is no other place.
type Sources struct {
	Bundle string       // file or folder; empty: none
	KDS    string       // URL of AMD's key service or of a copy of it; empty: nothing is fetched
	Cache  string       // folder for what was fetched; empty: memory alone
	HTTP   *http.Client // for the key service
	Now    func() time.Time
	Told   func(o Outcome, alone time.Duration) // of each question to the key service, see KDSConfig; may be nil
}

// Open makes a verifier with its sources. close ends what is being fetched.
func Open(roots sev.RootSet, s Sources) (v *Verifier, close func(), err error) {
	var bundles []*Bundle
	if s.Bundle != "" {
		b, err := OpenBundle(s.Bundle)
		if err != nil {
			return nil, nil, err
		}
		bundles = append(bundles, b)
	}
	if s.KDS == "" {
		if s.Cache != "" {
			return nil, nil, fmt.Errorf("folder %s for fetched certificates, and no key service to fetch from", s.Cache)
		}
		v, err := NewVerifier(roots, nil, bundles...)
		return v, func() {}, err
	}
	c := KDSConfig{URL: s.KDS, HTTP: s.HTTP, Now: s.Now, Told: s.Told}
	if s.Cache != "" {
		if c.Keep, err = NewFolder(s.Cache, DefaultKnown); err != nil {
			return nil, nil, err
		}
	}
	kds, err := NewKDS(c)
	if err != nil {
		return nil, nil, err
	}
	if v, err = NewVerifier(roots, kds, bundles...); err != nil {
		kds.Close()
		return nil, nil, err
	}
	return v, kds.Close, nil
}
