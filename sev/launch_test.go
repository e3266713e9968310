package sev

import (
	"crypto/rand"
	"testing"
)

func TestQuick(t *testing.T) {
	p, err := NewPlatform(rand.Reader, API{1, 55, 21})
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseChain(p.Chain.PDH.Encode(), p.Chain.EncodePlatform(), p.Chain.EncodeCA())
	if err != nil {
		t.Fatal(err)
	}
	d, _ := c.ARK.KeyDigest()
	t.Log(c.Verify(AMDRoots().With("own", d)))
	s, start, err := NewSession(c.PDH, NoDebug|NoSend|NoKeySharing, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	g, err := p.LaunchStart(start.GODH[:], start.Session[:], s.Policy)
	if err != nil {
		t.Fatal(err)
	}
	m, err := g.Measure(Digest{1}, rand.Reader)
	t.Log(err, s.VerifyMeasurement(m, p.API, Digest{1}), s.VerifyMeasurement(m, p.API, Digest{2}))
	table, err := SecretTable{{DiskPassphrase, []byte("hallo")}}.Encode(3072)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := s.SealSecret(table, m, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := g.OpenSecret(pk.Header[:], pk.Secret)
	t.Log(err)
	back, err := ParseSecretTable(plain)
	t.Log(back, err)
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePlatform(b); err != nil {
		t.Fatal(err)
	}
}
