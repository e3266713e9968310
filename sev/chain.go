package sev

import (
	"errors"
	"fmt"
)

// Chain holds the certificates that speak for a platform: the PDH is signed by the PEK, the PEK
// by the OCA (the platform's owner) and by the CEK (the chip), the CEK by AMD's ASK, the ASK by
// AMD's ARK.
type Chain struct {
	PDH, PEK, OCA, CEK *Certificate
	ASK, ARK           *CACertificate
}

// ParseChain reads the PDH, the chain PEK|OCA|CEK (both as QMP's query-sev-capabilities gives
// them in base64, the CEK with AMD's signature) and AMD's ASK|ARK.
func ParseChain(pdh, certChain, ca []byte) (Chain, error) {
	var c Chain
	if len(certChain) != 3*CertificateSize {
		return Chain{}, fmt.Errorf("read PEK, OCA, CEK: %w", lengthError("chain", len(certChain), 3*CertificateSize))
	}
	for _, part := range []struct {
		name string
		to   **Certificate
		from []byte
	}{
		{"PDH", &c.PDH, pdh},
		{"PEK", &c.PEK, certChain[:CertificateSize]},
		{"OCA", &c.OCA, certChain[CertificateSize : 2*CertificateSize]},
		{"CEK", &c.CEK, certChain[2*CertificateSize:]},
	} {
		var err error
		if *part.to, err = ParseCertificate(part.from); err != nil {
			return Chain{}, fmt.Errorf("read %s: %w", part.name, err)
		}
	}
	ask, rest, err := nextCA(ca)
	if err != nil {
		return Chain{}, fmt.Errorf("read ASK: %w", err)
	}
	ark, err := ParseCACertificate(rest)
	if err != nil {
		return Chain{}, fmt.Errorf("read ARK: %w", err)
	}
	c.ASK, c.ARK = ask, ark
	return c, nil
}

// EncodePlatform gives PEK|OCA|CEK, EncodeCA gives ASK|ARK: the inputs of ParseChain.
func (c Chain) EncodePlatform() []byte {
	return append(append(c.PEK.Encode(), c.OCA.Encode()...), c.CEK.Encode()...)
}

// EncodeCA gives ASK|ARK.
func (c Chain) EncodeCA() []byte { return append(c.ASK.Encode(), c.ARK.Encode()...) }

// Verify follows the chain from a trusted root down to the PDH and names the root. Errors:
// ErrUntrustedRoot, ErrIssuer, ErrUnsigned, ErrSignature, *UsageError, *FormatError.
func (c Chain) Verify(roots RootSet) (product string, err error) {
	if c.PDH == nil || c.PEK == nil || c.OCA == nil || c.CEK == nil || c.ASK == nil || c.ARK == nil {
		return "", fmt.Errorf("verify chain: %w", errIncomplete)
	}
	for _, place := range []struct {
		name      string
		want, got Usage
	}{
		{"ARK", UsageARK, c.ARK.Usage}, {"ASK", UsageASK, c.ASK.Usage}, {"CEK", UsageCEK, c.CEK.Usage},
		{"OCA", UsageOCA, c.OCA.Usage}, {"PEK", UsagePEK, c.PEK.Usage}, {"PDH", UsagePDH, c.PDH.Usage},
	} {
		if place.got != place.want {
			return "", fmt.Errorf("verify chain: %w", &UsageError{Certificate: place.name, Want: place.want, Got: place.got})
		}
	}
	product, err = c.verifyCA(roots)
	if err != nil {
		return "", fmt.Errorf("verify chain: %w", err)
	}
	if err := c.verifyPlatform(); err != nil {
		return "", fmt.Errorf("verify chain: %w", err)
	}
	return product, nil
}

var (
	// ErrUntrustedRoot: the ARK's key is none of the roots.
	ErrUntrustedRoot = errors.New("the root key is not trusted")
	// ErrIssuer: a certificate names another issuer than the one above it.
	ErrIssuer = errors.New("issued by another key")

	errIncomplete = errors.New("a certificate is missing")
)

func (c Chain) verifyCA(roots RootSet) (product string, err error) {
	digest, err := c.ARK.KeyDigest()
	if err != nil {
		return "", fmt.Errorf("ARK: %w", err)
	}
	product, ok := roots[digest]
	if !ok {
		return "", fmt.Errorf("ARK with the key digest %v: %w", digest, ErrUntrustedRoot)
	}
	ark, err := c.ARK.signer()
	if err != nil {
		return "", fmt.Errorf("ARK: %w", err)
	}
	// The digest already speaks for the key. Naples' ARK was published without its own signature.
	if digest != naples {
		if c.ARK.CertifyingID != c.ARK.KeyID {
			return "", fmt.Errorf("ARK: %w", ErrIssuer)
		}
		if err := ark.verify(c.ARK.signed(), c.ARK.Signature); err != nil {
			return "", fmt.Errorf("ARK by itself: %w", err)
		}
	}
	if c.ASK.CertifyingID != c.ARK.KeyID {
		return "", fmt.Errorf("ASK: %w", ErrIssuer)
	}
	if err := ark.verify(c.ASK.signed(), c.ASK.Signature); err != nil {
		return "", fmt.Errorf("ASK by ARK: %w", err)
	}
	return product, nil
}

func (c Chain) verifyPlatform() error {
	ask, err := c.ASK.signer()
	if err != nil {
		return fmt.Errorf("ASK: %w", err)
	}
	var signers [3]signer
	for i, cert := range []*Certificate{c.CEK, c.OCA, c.PEK} {
		if signers[i], err = cert.signer(); err != nil {
			return fmt.Errorf("%v: %w", cert.Usage, err)
		}
	}
	cek, oca, pek := signers[0], signers[1], signers[2]
	for _, link := range []struct {
		child *Certificate
		by    signer
	}{{c.CEK, ask}, {c.OCA, oca}, {c.PEK, cek}, {c.PEK, oca}, {c.PDH, pek}} {
		if err := link.child.signedBy(link.by); err != nil {
			return fmt.Errorf("%v by %v: %w", link.child.Usage, link.by.usage, err)
		}
	}
	if _, err := c.PDH.diffieHellman(); err != nil {
		return fmt.Errorf("PDH: %w", err)
	}
	return nil
}
