package sev

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
)

// identityBits is the size of a software platform's ARK and ASK. AMD's were of 2048 bits on
// Naples and are of 4096 since; these are made on first use, where 4096 bits take seconds.
const identityBits = 2048

// NewPlatform makes a platform with a whole chain of its own, ARK to PDH. The Diffie-Hellman key
// comes from random; the signing keys, which are forgotten at once, from the system.
func NewPlatform(random io.Reader, api API) (*Platform, error) {
	list, err := NewPlatforms(random, api, 1)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// NewPlatforms makes a number of platforms, as NewPlatform does, under one ARK and ASK.
func NewPlatforms(random io.Reader, api API, count int) ([]*Platform, error) {
	ark, ask, err := issueCA()
	if err != nil {
		return nil, fmt.Errorf("make platform: %w", err)
	}
	list := make([]*Platform, count)
	for i := range list {
		p := &Platform{API: api}
		if p.pdh, err = newDiffieHellman(random); err != nil {
			return nil, fmt.Errorf("make platform: %w", err)
		}
		p.Chain = Chain{ARK: ark.certificate, ASK: ask.certificate}
		if err := p.Chain.issue(ask.issuer, p.pdh.PublicKey(), api); err != nil {
			return nil, fmt.Errorf("make platform: %w", err)
		}
		list[i] = p
	}
	return list, nil
}

// issuer is a private key and the name under which it signs.
type issuer struct {
	signer
	private crypto.Signer
}

func issueCA() (ark, ask newCAKey, err error) {
	if ark, err = newCA(UsageARK); err != nil {
		return newCAKey{}, newCAKey{}, err
	}
	if ask, err = newCA(UsageASK); err != nil {
		return newCAKey{}, newCAKey{}, err
	}
	for _, child := range []*CACertificate{ark.certificate, ask.certificate} {
		child.CertifyingID = ark.certificate.KeyID
		if child.Signature, err = ark.sign(child.signed()); err != nil {
			return newCAKey{}, newCAKey{}, err
		}
	}
	return ark, ask, nil
}

// issue makes what stands below the ASK, down to the PDH.
func (c *Chain) issue(ask issuer, pdh *ecdh.PublicKey, api API) (err error) {
	var oca, cek, pek issuer
	for _, part := range []struct {
		usage Usage
		to    **Certificate
		by    *issuer
	}{{UsageOCA, &c.OCA, &oca}, {UsageCEK, &c.CEK, &cek}, {UsagePEK, &c.PEK, &pek}} {
		if *part.to, *part.by, err = newSigning(part.usage); err != nil {
			return err
		}
	}
	c.PEK.APIMajor, c.PEK.APIMinor = api.Major, api.Minor
	c.PDH = ownerCertificate(pdh)
	for _, link := range []struct {
		child *Certificate
		by    []issuer
	}{
		{c.OCA, []issuer{oca}},
		{c.CEK, []issuer{ask}},
		{c.PEK, []issuer{oca, cek}},
		{c.PDH, []issuer{pek}},
	} {
		if err := link.child.sign(link.by...); err != nil {
			return err
		}
	}
	return nil
}

type newCAKey struct {
	issuer
	certificate *CACertificate
}

func newCA(usage Usage) (newCAKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, identityBits)
	if err != nil {
		return newCAKey{}, fmt.Errorf("make %v: %w", usage, err)
	}
	c := &CACertificate{Usage: usage, Modulus: littleBytes(key.N, identityBits/8), Exponent: littleBytes(big.NewInt(int64(key.E)), identityBits/8)}
	digest := sha256.Sum256(c.Modulus)
	c.KeyID = [16]byte(digest[:])
	s, err := c.signer()
	return newCAKey{issuer{s, key}, c}, err
}

func newSigning(usage Usage) (*Certificate, issuer, error) {
	dh, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		return nil, issuer{}, fmt.Errorf("make %v: %w", usage, err)
	}
	c := &Certificate{Usage: usage, Algorithm: AlgorithmECDSASHA256}
	c.setPoint(dh.PublicKey().Bytes())
	public, err := c.publicKey()
	if err != nil {
		return nil, issuer{}, fmt.Errorf("make %v: %w", usage, err)
	}
	private := &ecdsa.PrivateKey{PublicKey: *public.(*ecdsa.PublicKey), D: new(big.Int).SetBytes(dh.Bytes())}
	return c, issuer{signer{usage, c.Algorithm, public}, private}, nil
}

// sign puts the signers' signatures into the certificate's places and marks the rest unused.
func (c *Certificate) sign(by ...issuer) error {
	for i := range c.Signatures {
		c.Signatures[i] = Signature{Usage: UsageNone}
		if i >= len(by) {
			continue
		}
		data, err := by[i].sign(c.signed())
		if err != nil {
			return err
		}
		c.Signatures[i] = Signature{Usage: by[i].usage, Algorithm: by[i].algorithm}
		copy(c.Signatures[i].Data[:], data)
	}
	return nil
}

// sign gives a signature in the stored form.
func (i issuer) sign(data []byte) ([]byte, error) {
	hash := crypto.SHA256
	if i.algorithm == AlgorithmRSASHA384 {
		hash = crypto.SHA384
	}
	h := hash.New()
	h.Write(data)
	switch key := i.private.(type) {
	case *rsa.PrivateKey:
		signature, err := rsa.SignPSS(rand.Reader, key, hash, h.Sum(nil), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		if err != nil {
			return nil, fmt.Errorf("sign as %v: %w", i.usage, err)
		}
		return reversed(signature), nil
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, h.Sum(nil))
		if err != nil {
			return nil, fmt.Errorf("sign as %v: %w", i.usage, err)
		}
		return append(littleBytes(r, coordinateSize), littleBytes(s, coordinateSize)...), nil
	}
	return nil, fmt.Errorf("sign as %v: no such key", i.usage)
}

func littleBytes(v *big.Int, size int) []byte {
	return reversed(v.FillBytes(make([]byte, size)))
}

// storedPlatform is a platform's stored form, version 1.
type storedPlatform struct {
	Version int    `json:"version"`
	API     API    `json:"api"`
	PDHKey  []byte `json:"pdh_key"` // the private scalar
	PDH     []byte `json:"pdh"`
	Chain   []byte `json:"cert_chain"`
	CA      []byte `json:"ca"`
}

// Encode gives the platform's stored form, its private key included.
func (p *Platform) Encode() ([]byte, error) {
	return json.MarshalIndent(storedPlatform{
		Version: 1, API: p.API, PDHKey: p.pdh.Bytes(),
		PDH: p.Chain.PDH.Encode(), Chain: p.Chain.EncodePlatform(), CA: p.Chain.EncodeCA(),
	}, "", "\t")
}

// ParsePlatform reads the stored form; its chain must hold together and end in its own key.
func ParsePlatform(b []byte) (*Platform, error) {
	var s storedPlatform
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read platform: %w", err)
	}
	if s.Version != 1 {
		return nil, fmt.Errorf("read platform: version %d, want 1", s.Version)
	}
	chain, err := ParseChain(s.PDH, s.Chain, s.CA)
	if err != nil {
		return nil, fmt.Errorf("read platform: %w", err)
	}
	root, err := chain.ARK.KeyDigest()
	if err != nil {
		return nil, fmt.Errorf("read platform: %w", err)
	}
	if _, err := chain.Verify(RootSet{}.With("own", root)); err != nil {
		return nil, fmt.Errorf("read platform: %w", err)
	}
	private, err := ecdh.P384().NewPrivateKey(s.PDHKey)
	if err != nil {
		return nil, fmt.Errorf("read platform: its PDH key is not one")
	}
	if public, err := chain.PDH.diffieHellman(); err != nil || !public.Equal(private.PublicKey()) {
		return nil, fmt.Errorf("read platform: its PDH is another key's")
	}
	return &Platform{API: s.API, Chain: chain, pdh: private}, nil
}
