package sev

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
)

// caHeader is the size of a CA certificate's fixed part (55766, appendix B): version u32 | key
// id 16 | certifying id 16 | usage u32 | reserved 16 | exponent bits u32 | modulus bits u32; then
// exponent, modulus and signature.
const caHeader = 64

// CACertificate is AMD's root key (ARK) or signing key (ASK). Numbers are little-endian.
type CACertificate struct {
	KeyID, CertifyingID [16]byte
	Usage               Usage
	Exponent, Modulus   []byte
	Signature           []byte // as long as the modulus
}

// ParseCACertificate reads one certificate that fills b.
func ParseCACertificate(b []byte) (*CACertificate, error) {
	c, rest, err := nextCA(b)
	if err != nil {
		return nil, err
	}
	if len(rest) != 0 {
		return nil, &FormatError{Object: "CA certificate", Offset: len(b) - len(rest), Problem: fmt.Sprintf("%d bytes follow", len(rest))}
	}
	return c, nil
}

// nextCA reads the certificate that b begins with.
func nextCA(b []byte) (*CACertificate, []byte, error) {
	fail := func(offset int, format string, args ...any) (*CACertificate, []byte, error) {
		return nil, nil, &FormatError{Object: "CA certificate", Offset: offset, Problem: fmt.Sprintf(format, args...)}
	}
	if len(b) < caHeader {
		return fail(0, "%d bytes, want at least %d", len(b), caHeader)
	}
	if version := le32(b); version != 1 {
		return fail(0, "version %d, want 1", version)
	}
	usage := Usage(le32(b[36:]))
	if usage != UsageARK && usage != UsageASK {
		return fail(36, "usage %v", usage)
	}
	if !allZero(b[40:56]) {
		return fail(40, "reserved bytes are not zero")
	}
	exponentBits, modulusBits := le32(b[56:]), le32(b[60:])
	if modulusBits != 2048 && modulusBits != 4096 {
		return fail(60, "modulus of %d bits", modulusBits)
	}
	if exponentBits != 2048 && exponentBits != 4096 {
		return fail(56, "exponent of %d bits", exponentBits)
	}
	exponentSize, modulusSize := int(exponentBits/8), int(modulusBits/8)
	if size := caHeader + exponentSize + 2*modulusSize; size > len(b) {
		return fail(0, "%d bytes, want %d", len(b), size)
	}
	c := &CACertificate{KeyID: [16]byte(b[4:20]), CertifyingID: [16]byte(b[20:36]), Usage: usage}
	rest := b[caHeader:]
	for _, part := range []struct {
		to   *[]byte
		size int
	}{{&c.Exponent, exponentSize}, {&c.Modulus, modulusSize}, {&c.Signature, modulusSize}} {
		*part.to, rest = bytes.Clone(rest[:part.size]), rest[part.size:]
	}
	if _, err := c.publicKey(); err != nil {
		return nil, nil, err
	}
	return c, rest, nil
}

// Encode gives the stored form.
func (c *CACertificate) Encode() []byte { return append(c.signed(), c.Signature...) }

func (c *CACertificate) signed() []byte {
	out := append([]byte{1, 0, 0, 0}, c.KeyID[:]...)
	out = append(out, c.CertifyingID[:]...)
	out = binary.LittleEndian.AppendUint32(out, uint32(c.Usage))
	out = append(out, make([]byte, 16)...)
	out = binary.LittleEndian.AppendUint32(out, uint32(8*len(c.Exponent)))
	out = binary.LittleEndian.AppendUint32(out, uint32(8*len(c.Modulus)))
	out = append(out, c.Exponent...)
	return append(out, c.Modulus...)
}

func (c *CACertificate) publicKey() (*rsa.PublicKey, error) {
	return rsaKey("CA certificate", caHeader, c.Modulus, c.Exponent)
}

// signer: keys of 2048 bits (Naples) sign with SHA-256, keys of 4096 with SHA-384.
func (c *CACertificate) signer() (signer, error) {
	key, err := c.publicKey()
	if err != nil {
		return signer{}, err
	}
	algorithm := AlgorithmRSASHA384
	if len(c.Modulus) == 256 {
		algorithm = AlgorithmRSASHA256
	}
	return signer{c.Usage, algorithm, key}, nil
}

// KeyDigest is the SHA-256 of the public key as a DER SubjectPublicKeyInfo, by which roots are known.
func (c *CACertificate) KeyDigest() (RootDigest, error) {
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
