package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// tokenPrefix begins a token, so that people and secret scanners know one when they see it: sbt1_[A-Za-z0-9_-]{48}.
const tokenPrefix = "sbt1_"

const (
	tokenBytes = 32
	sumBytes   = 4 // CRC-32 (IEEE), big-endian: it tells a slip of the hand from a wrong token, and is no protection
)

// TokenSize is the length of a token's text in bytes: the prefix, then token and sum in base64url (RFC 4648, section 5),
// which 36 bytes fill without padding.
const TokenSize = len(tokenPrefix) + (tokenBytes+sumBytes)*4/3

// ErrToken says that a text is no token. The text is not repeated.
var ErrToken = errors.New("not a token: one is sbt1_ and 48 characters, without a slip")

// Digest is what is kept of a credential: the SHA-256 of a token's 32 bytes, or of a certificate's
// SubjectPublicKeyInfo.
type Digest [sha256.Size]byte

// Equal compares in constant time.
func (d Digest) Equal(other Digest) bool { return subtle.ConstantTimeCompare(d[:], other[:]) == 1 }

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads 64 lower-case hexadecimal digits.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if b, err := hex.DecodeString(s); err == nil && len(b) == len(d) {
		if copy(d[:], b); d.String() == s {
			return d, nil
		}
	}
	return Digest{}, errors.New("digest is not 64 lower-case hexadecimal digits")
}

// NewToken makes a token's text. It is shown once and kept nowhere: the caller wipes it.
func NewToken(random io.Reader) ([]byte, Digest, error) {
	raw := make([]byte, tokenBytes, tokenBytes+sumBytes)
	defer clear(raw[:cap(raw)])
	if _, err := io.ReadFull(random, raw); err != nil {
		return nil, Digest{}, fmt.Errorf("make token: %w", err)
	}
	text := append(make([]byte, 0, TokenSize), tokenPrefix...)
	return base64.RawURLEncoding.AppendEncode(text, binary.BigEndian.AppendUint32(raw, crc32.ChecksumIEEE(raw))), sha256.Sum256(raw), nil
}

// TokenDigest reads a token's text and gives its digest.
func TokenDigest(text string) (Digest, error) {
	if len(text) != TokenSize || text[:len(tokenPrefix)] != tokenPrefix {
		return Digest{}, ErrToken
	}
	raw := make([]byte, tokenBytes+sumBytes)
	defer clear(raw)
	n, err := base64.RawURLEncoding.Decode(raw, []byte(text[len(tokenPrefix):]))
	if err != nil || n != len(raw) || binary.BigEndian.Uint32(raw[tokenBytes:]) != crc32.ChecksumIEEE(raw[:tokenBytes]) {
		return Digest{}, ErrToken
	}
	return sha256.Sum256(raw[:tokenBytes]), nil
}

// CertificateDigest gives the digest of the certificate's public key, as
// openssl x509 -noout -pubkey | openssl pkey -pubin -outform der | sha256sum shows it.
func CertificateDigest(c *x509.Certificate) Digest { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }
