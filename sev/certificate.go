package sev

import (
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
)

// Sizes and places in a SEV certificate (55766, appendix C).
const (
	CertificateSize = 2084
	signedSize      = 1044 // everything before the signatures
	keyOffset       = 16
	keySize         = 1028
	signatureSize   = 4 + 4 + 512
	coordinateSize  = 72 // of an elliptic-curve number; P-384 fills 48
	curveP384       = 2
)

// Usage says what a key is for.
type Usage uint32

// Usages (55766, appendix C.1; ARK and ASK: appendix B).
const (
	UsageARK  Usage = 0x0
	UsageASK  Usage = 0x13
	UsageNone Usage = 0x1000
	UsageOCA  Usage = 0x1001
	UsagePEK  Usage = 0x1002
	UsagePDH  Usage = 0x1003
	UsageCEK  Usage = 0x1004
)

func (u Usage) String() string {
	switch u {
	case UsageARK:
		return "ARK"
	case UsageASK:
		return "ASK"
	case UsageNone:
		return "none"
	case UsageOCA:
		return "OCA"
	case UsagePEK:
		return "PEK"
	case UsagePDH:
		return "PDH"
	case UsageCEK:
		return "CEK"
	}
	return fmt.Sprintf("%#x", uint32(u))
}

func usageOf(c *Certificate) Usage {
	if c == nil {
		return UsageNone
	}
	return c.Usage
}

// Algorithm names a key's or a signature's algorithm.
type Algorithm uint32

// Algorithms (55766, appendix C.1).
const (
	AlgorithmNone        Algorithm = 0x0
	AlgorithmRSASHA256   Algorithm = 0x1
	AlgorithmECDSASHA256 Algorithm = 0x2
	AlgorithmECDHSHA256  Algorithm = 0x3
	AlgorithmRSASHA384   Algorithm = 0x101
	AlgorithmECDSASHA384 Algorithm = 0x102
	AlgorithmECDHSHA384  Algorithm = 0x103
)

func (a Algorithm) String() string {
	switch a {
	case AlgorithmNone:
		return "none"
	case AlgorithmRSASHA256:
		return "RSA-SHA256"
	case AlgorithmECDSASHA256:
		return "ECDSA-SHA256"
	case AlgorithmECDHSHA256:
		return "ECDH-SHA256"
	case AlgorithmRSASHA384:
		return "RSA-SHA384"
	case AlgorithmECDSASHA384:
		return "ECDSA-SHA384"
	case AlgorithmECDHSHA384:
		return "ECDH-SHA384"
	}
	return fmt.Sprintf("%#x", uint32(a))
}

// Certificate is a SEV certificate: OCA, PEK, PDH or CEK. Parsing says nothing of its signatures.
type Certificate struct {
	APIMajor, APIMinor uint8
	Usage              Usage
	Algorithm          Algorithm
	Key                [keySize]byte // as stored; see ParseCertificate for what it may be
	Signatures         [2]Signature
}

// Signature is one of a certificate's two; the usage names the key that made it.
type Signature struct {
	Usage     Usage
	Algorithm Algorithm
	Data      [512]byte
}

// ParseCertificate reads one certificate of exactly 2084 bytes. Its key is a point on P-384 or
// an RSA key of 2048 or 4096 bits, as its algorithm says.
func ParseCertificate(b []byte) (*Certificate, error) {
	if len(b) != CertificateSize {
		return nil, lengthError("certificate", len(b), CertificateSize)
	}
	if version := le32(b); version != 1 {
		return nil, &FormatError{Object: "certificate", Problem: fmt.Sprintf("version %d, want 1", version)}
	}
	if b[6] != 0 || b[7] != 0 {
		return nil, &FormatError{Object: "certificate", Offset: 6, Problem: "reserved bytes are not zero"}
	}
	c := &Certificate{APIMajor: b[4], APIMinor: b[5], Usage: Usage(le32(b[8:])), Algorithm: Algorithm(le32(b[12:]))}
	copy(c.Key[:], b[keyOffset:signedSize])
	for i := range c.Signatures {
		at := b[signedSize+i*signatureSize:][:signatureSize]
		c.Signatures[i] = Signature{Usage: Usage(le32(at)), Algorithm: Algorithm(le32(at[4:])), Data: [512]byte(at[8:])}
	}
	switch c.Usage {
	case UsageOCA, UsagePEK, UsagePDH, UsageCEK:
	default:
		return nil, &FormatError{Object: "certificate", Offset: 8, Problem: fmt.Sprintf("usage %v", c.Usage)}
	}
	if _, err := c.publicKey(); err != nil {
		return nil, err
	}
	return c, nil
}

// Encode gives the certificate's 2084 bytes.
func (c *Certificate) Encode() []byte {
	out := c.signed()
	for _, s := range c.Signatures {
		out = binary.LittleEndian.AppendUint32(out, uint32(s.Usage))
		out = binary.LittleEndian.AppendUint32(out, uint32(s.Algorithm))
		out = append(out, s.Data[:]...)
	}
	return out
}

// signed gives the part that signatures cover.
func (c *Certificate) signed() []byte {
	out := append(make([]byte, 0, CertificateSize), 1, 0, 0, 0, c.APIMajor, c.APIMinor, 0, 0)
	out = binary.LittleEndian.AppendUint32(out, uint32(c.Usage))
	out = binary.LittleEndian.AppendUint32(out, uint32(c.Algorithm))
	return append(out, c.Key[:]...)
}

// point reads an elliptic-curve key, in the uncompressed form of SEC 1: 4 | x | y. What stands behind it is signed but means nothing, and
// need not be zero: sevctl 0.6.2 leaves there what its stack held, in the certificates of owners and of guest owners.
func (c *Certificate) point() ([]byte, error) {
	if curve := le32(c.Key[:]); curve != curveP384 {
		return nil, &FormatError{Object: "certificate", Offset: keyOffset, Problem: fmt.Sprintf("curve %d, want 2 (P-384)", curve)}
	}
	point := []byte{4}
	for i := range 2 {
		stored := c.Key[4+i*coordinateSize:][:coordinateSize]
		if !allZero(stored[48:]) {
			return nil, &FormatError{Object: "certificate", Offset: keyOffset + 4 + i*coordinateSize + 48, Problem: "coordinate longer than the curve's"}
		}
		point = append(point, reversed(stored[:48])...)
	}
	return point, nil
}

// diffieHellman gives the key for ECDH; the point is checked to be on the curve.
func (c *Certificate) diffieHellman() (*ecdh.PublicKey, error) {
	if c.Algorithm != AlgorithmECDHSHA256 && c.Algorithm != AlgorithmECDHSHA384 {
		return nil, &FormatError{Object: "certificate", Offset: 12, Problem: fmt.Sprintf("algorithm %#x is not ECDH", uint32(c.Algorithm))}
	}
	point, err := c.point()
	if err != nil {
		return nil, err
	}
	key, err := ecdh.P384().NewPublicKey(point)
	if err != nil {
		return nil, &FormatError{Object: "certificate", Offset: keyOffset, Problem: "key is not a point on the curve"}
	}
	return key, nil
}

// setPoint stores an elliptic-curve key, given in SEC 1's uncompressed form.
func (c *Certificate) setPoint(point []byte) {
	clear(c.Key[:])
	binary.LittleEndian.PutUint32(c.Key[:], curveP384)
	copy(c.Key[4:], reversed(point[1:49]))
	copy(c.Key[4+coordinateSize:], reversed(point[49:97]))
}

// ownerCertificate is the guest owner's Diffie-Hellman certificate. Nobody signs it: the
// session's MACs speak for it.
func ownerCertificate(key *ecdh.PublicKey) *Certificate {
	c := &Certificate{Usage: UsagePDH, Algorithm: AlgorithmECDHSHA256}
	c.setPoint(key.Bytes())
	for i := range c.Signatures {
		c.Signatures[i].Usage = UsageNone
	}
	return c
}

// KeyDigest is the SHA-256 of the public key as a DER SubjectPublicKeyInfo, by which people tell
// keys apart.
func (c *Certificate) KeyDigest() (RootDigest, error) {
	key, err := c.publicKey()
	if err != nil {
		return RootDigest{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return RootDigest{}, err
	}
	return sha256.Sum256(der), nil
}

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

func le32Bytes(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

func reversed(b []byte) []byte {
	out := slices.Clone(b)
	slices.Reverse(out)
	return out
}

func littleInt(b []byte) *big.Int { return new(big.Int).SetBytes(reversed(b)) }

func allZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}
