package idblock

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// ParseKey reads a private P-384 key from PEM: "PRIVATE KEY" (PKCS #8) or "EC PRIVATE KEY" (SEC 1), as OpenSSL writes them.
// Curve parameters before it are passed over; anything else is refused, without the contents in the error.
func ParseKey(text []byte) (*ecdsa.PrivateKey, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("%w: no private key in PEM", ErrKey)
		}
		text = rest
		var key any
		var err error
		switch block.Type {
		case "EC PARAMETERS":
			continue
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		default:
			return nil, fmt.Errorf("%w: PEM block %q", ErrKey, block.Type)
		}
		clear(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: cannot be read", ErrKey)
		}
		if ec, ok := key.(*ecdsa.PrivateKey); ok && ec.Curve == elliptic.P384() {
			return ec, nil
		}
		return nil, ErrKey
	}
}
