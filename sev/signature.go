package sev

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
)

var (
	// ErrSignature: a signature is not by the key that it names.
	ErrSignature = errors.New("bad signature")
	// ErrUnsigned: a certificate carries no signature by the key that should have made it. A CEK
	// is so until it has been fetched from AMD's key service.
	ErrUnsigned = errors.New("no signature")
)

// UsageError is a certificate in the place of another.
type UsageError struct {
	Certificate string // the place
	Want, Got   Usage
}

func (e *UsageError) Error() string {
	return fmt.Sprintf("%s: the key's usage is %v, want %v", e.Certificate, e.Got, e.Want)
}

// publicKey gives an *rsa.PublicKey or an *ecdsa.PublicKey, after the certificate's algorithm.
func (c *Certificate) publicKey() (crypto.PublicKey, error) {
	switch c.Algorithm {
	case AlgorithmRSASHA256, AlgorithmRSASHA384:
		bits := le32(c.Key[:])
		if bits != 2048 && bits != 4096 {
			return nil, &FormatError{Object: "certificate", Offset: keyOffset, Problem: fmt.Sprintf("RSA key of %d bits", bits)}
		}
		size := int(bits) / 8
		exponent, modulus := c.Key[4:516], c.Key[516:]
		if !allZero(exponent[size:]) || !allZero(modulus[size:]) {
			return nil, &FormatError{Object: "certificate", Offset: keyOffset + 4, Problem: "bytes after the key are not zero"}
		}
		return rsaKey("certificate", keyOffset+4, modulus[:size], exponent[:size])
	case AlgorithmECDSASHA256, AlgorithmECDSASHA384, AlgorithmECDHSHA256, AlgorithmECDHSHA384:
		point, err := c.point()
		if err != nil {
			return nil, err
		}
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P384(), point)
		if err != nil {
			return nil, &FormatError{Object: "certificate", Offset: keyOffset, Problem: "key is not a point on the curve"}
		}
		return key, nil
	}
	return nil, &FormatError{Object: "certificate", Offset: 12, Problem: fmt.Sprintf("algorithm %#x", uint32(c.Algorithm))}
}

// rsaKey reads little-endian numbers; the modulus fills its place.
func rsaKey(object string, offset int, modulus, exponent []byte) (*rsa.PublicKey, error) {
	e, n := littleInt(exponent), littleInt(modulus)
	if n.BitLen() != 8*len(modulus) || n.Bit(0) == 0 {
		return nil, &FormatError{Object: object, Offset: offset, Problem: fmt.Sprintf("modulus of %d bits in a place of %d", n.BitLen(), 8*len(modulus))}
	}
	if e.BitLen() < 2 || e.BitLen() > 31 || e.Bit(0) == 0 {
		return nil, &FormatError{Object: object, Offset: offset, Problem: fmt.Sprintf("exponent of %d bits, or even", e.BitLen())}
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// signer is a key that signs certificates, with the names under which it does.
type signer struct {
	usage     Usage
	algorithm Algorithm
	key       crypto.PublicKey
}

func (c *Certificate) signer() (signer, error) {
	key, err := c.publicKey()
	return signer{c.Usage, c.Algorithm, key}, err
}

// signedBy checks that one of the certificate's signatures names the signer and is by it. The
// two stand in either order; one that fails is not made good by the other.
func (c *Certificate) signedBy(by signer) error {
	for _, s := range c.Signatures {
		if s.Usage == by.usage {
			if s.Algorithm != by.algorithm {
				return fmt.Errorf("%w: algorithm %#x, the key's is %#x", ErrSignature, uint32(s.Algorithm), uint32(by.algorithm))
			}
			return by.verify(c.signed(), s.Data[:])
		}
	}
	return ErrUnsigned
}

func (s signer) verify(signed, signature []byte) error {
	hash := crypto.SHA256
	if s.algorithm == AlgorithmRSASHA384 || s.algorithm == AlgorithmECDSASHA384 {
		hash = crypto.SHA384
	}
	h := hash.New()
	h.Write(signed)
	digest := h.Sum(nil)
	switch key := s.key.(type) {
	case *rsa.PublicKey:
		if s.algorithm != AlgorithmRSASHA256 && s.algorithm != AlgorithmRSASHA384 {
			break
		}
		if size := key.Size(); size > len(signature) || !allZero(signature[size:]) {
			return fmt.Errorf("%w: longer than the key", ErrSignature)
		}
		err := rsa.VerifyPSS(key, hash, digest, reversed(signature[:key.Size()]), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		if err != nil {
			return ErrSignature
		}
		return nil
	case *ecdsa.PublicKey:
		if s.algorithm != AlgorithmECDSASHA256 && s.algorithm != AlgorithmECDSASHA384 {
			break
		}
		if !allZero(signature[2*coordinateSize:]) {
			return fmt.Errorf("%w: bytes after it are not zero", ErrSignature)
		}
		r, t := littleInt(signature[:coordinateSize]), littleInt(signature[coordinateSize:2*coordinateSize])
		if !ecdsa.Verify(key, digest, r, t) {
			return ErrSignature
		}
		return nil
	}
	return fmt.Errorf("%w: a key of algorithm %#x does not sign", ErrSignature, uint32(s.algorithm))
}
