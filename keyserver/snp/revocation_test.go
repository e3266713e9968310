package snp_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	amdtest "github.com/google/go-sev-guest/testing"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
)

func listPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// TestRevocations: a policy that needs AMD's list gets a fresh one, of the right root, or refuses; and what any list takes back is gone
// whatever the policy says.
func TestRevocations(t *testing.T) {
	a := amds()[snp.Milan]
	needed := policy()
	needed.Revocation = snp.Revocation{Required: true, MaxAge: 30 * 24 * time.Hour}
	day, year := 24*time.Hour, 365*24*time.Hour
	fresh := a.List(now.Add(-day), now.Add(year))
	other := amds()[snp.Genoa]
	stranger := fake.New(snp.Milan)
	stranger.Certify(func(b *amdtest.AmdSignerBuilder) {
		b.Keys = amdtest.DefaultAmdKeys()
		b.Keys.Ark = amdtest.DefaultAsk()
	})
	byASK, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-day), NextUpdate: now.Add(year),
		SignatureAlgorithm: x509.SHA384WithRSAPSS}, forCRL(a.ASK()), amdtest.DefaultAsk())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		lists    [][]byte
		signer   uint32
		judged   error // what a policy that needs a list says
		verified error // what Verify says, whatever the policy
	}{
		"fresh":                    {lists: [][]byte{fresh}},
		"fresh, for a VLEK":        {lists: [][]byte{fresh}, signer: fake.VLEK},
		"fresh beside stale":       {lists: [][]byte{a.List(now.Add(-year), now.Add(-day)), fresh}},
		"others taken back":        {lists: [][]byte{a.List(now.Add(-day), now.Add(year), big.NewInt(77), big.NewInt(0))}},
		"none":                     {judged: snp.ErrRevocationAge},
		"successor due":            {lists: [][]byte{a.List(now.Add(-day), now.Add(-time.Second))}, judged: snp.ErrRevocationAge},
		"too old":                  {lists: [][]byte{a.List(now.Add(-31*day), now.Add(year))}, judged: snp.ErrRevocationAge},
		"of tomorrow":              {lists: [][]byte{a.List(now.Add(day), now.Add(year))}, judged: snp.ErrRevocationAge},
		"of Genoa":                 {lists: [][]byte{other.List(now.Add(-day), now.Add(year))}, judged: snp.ErrRevocationAge},
		"by another root":          {lists: [][]byte{stranger.List(now.Add(-day), now.Add(year))}, judged: snp.ErrRevocationAge},
		"by the ASK":               {lists: [][]byte{byASK}, judged: snp.ErrRevocationAge},
		"ASK taken back":           {lists: [][]byte{a.List(now.Add(-day), now.Add(year), fake.ASKSerial)}, verified: snp.ErrRevoked},
		"ASK taken back long ago":  {lists: [][]byte{fresh, a.List(now.Add(-year), now.Add(-day), fake.ASKSerial)}, verified: snp.ErrRevoked},
		"ASVK taken back":          {lists: [][]byte{a.List(now.Add(-day), now.Add(year), fake.ASVKSerial)}, signer: fake.VLEK, verified: snp.ErrRevoked},
		"VLEK taken back":          {lists: [][]byte{a.List(now.Add(-day), now.Add(year), fake.VLEKSerial)}, signer: fake.VLEK, verified: snp.ErrRevoked},
		"ASVK, but a VCEK's":       {lists: [][]byte{a.List(now.Add(-day), now.Add(year), fake.ASVKSerial, fake.VLEKSerial)}},
		"ASK by a stranger's list": {lists: [][]byte{fresh, stranger.List(now.Add(-day), now.Add(year), fake.ASKSerial)}},
	} {
		var bundles []*snp.Bundle
		for _, l := range c.lists {
			bundles = append(bundles, bundle(t, l), bundle(t, listPEM(l))) // DER and PEM
		}
		r := good(a, 3)
		r.SignerInfo = c.signer
		at, err := verifier(t, a.Roots(), nil, bundles...).Verify(t.Context(), snp.Evidence{Report: a.Sign(r), Certificates: a.Table()}, now)
		if !errors.Is(err, c.verified) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if err := at.Judge(needed, goodData, now).Err(); !errors.Is(err, c.judged) {
			t.Errorf("%s: %v", name, err)
		}
		if err := at.Judge(policy(), goodData, now).Err(); err != nil {
			t.Errorf("%s, no list needed: %v", name, err)
		}
	}
}

// forCRL gives an issuer what Go wants of one that makes a list.
func forCRL(c *x509.Certificate) *x509.Certificate {
	d := *c
	d.SubjectKeyId, d.KeyUsage = []byte{1}, c.KeyUsage|x509.KeyUsageCRLSign
	return &d
}
