// Package seal carries an image's secrets from the key server into one running SEV-SNP guest: both sides of it, so that a
// guest's agent needs nothing of the server's code.
//
// The guest makes a Key for one use, and asks its firmware for a report whose data is ReportData of the server's nonce, that key and the
// image's name. Whoever believes the report therefore knows that the key's private half is in the memory of that guest alone, and
// seals to it by HPKE (RFC 9180) in base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305. The cipher is the one that needs no
// instructions of the processor to be free of timing: a host decides which ones its guest is told of, and watches its caches. The
// challenge's id and the image's name are HPKE's info, so that a box opens only in the exchange that it was made for.
//
// A Key is for one exchange: Wipe it afterwards.
package seal

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
)

// Sizes in bytes.
const (
	NonceSize        = 32
	PublicKeySize    = 32
	EncapsulatedSize = 32
	Overhead         = 16 // of a box beside what is in it
	ReportDataSize   = sha512.Size
)

// label begins what is hashed or bound here and nowhere else; a byte of zero ends it.
const label = "sealboot snp 1\x00"

// ReportData is what the guest asks its firmware to put into the report: SHA-512 of label, nonce (32 bytes), public key (32 bytes) and the
// image's name, one behind the other. All but the last have a fixed length.
func ReportData(nonce, publicKey []byte, image string) (data [ReportDataSize]byte, err error) {
	if len(nonce) != NonceSize || len(publicKey) != PublicKeySize {
		return data, fmt.Errorf("report data: nonce of %d bytes and key of %d, not %d and %d", len(nonce), len(publicKey), NonceSize, PublicKeySize)
	}
	h := sha512.New()
	io.WriteString(h, label)
	h.Write(nonce)
	h.Write(publicKey)
	io.WriteString(h, image)
	return [ReportDataSize]byte(h.Sum(nil)), nil
}

// info binds a box to its exchange: label, the challenge's id (80 hexadecimal digits) and the image's name.
func info(challenge, image string) []byte { return []byte(label + challenge + image) }

// challengeSize is the length of a challenge's id.
const challengeSize = 80

// ErrOpen says that a box does not open: it is for another key, challenge or image, or was changed.
var ErrOpen = errors.New("sealed secret does not open")

func suite() (hpke.KEM, hpke.KDF, hpke.AEAD) {
	return hpke.DHKEM(ecdh.X25519()), hpke.HKDFSHA256(), hpke.ChaCha20Poly1305()
}

// Key is a guest's key for one exchange.
type Key struct {
	raw    []byte
	public []byte
}

// NewKey makes a key from 32 random bytes.
func NewKey(random io.Reader) (*Key, error) {
	k := &Key{raw: make([]byte, 32)}
	if _, err := io.ReadFull(random, k.raw); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	kem, _, _ := suite()
	private, err := kem.NewPrivateKey(k.raw)
	if err != nil {
		k.Wipe()
		return nil, fmt.Errorf("make key: %w", err)
	}
	k.public = private.PublicKey().Bytes()
	return k, nil
}

// Public gives the key that the report binds, PublicKeySize bytes.
func (k *Key) Public() []byte { return append([]byte{}, k.public...) }

// Wipe ends the key.
func (k *Key) Wipe() { clear(k.raw) }

// Open gives what the server sealed. The caller wipes it.
func (k *Key) Open(encapsulated, box []byte, challenge, image string) ([]byte, error) {
	if len(encapsulated) != EncapsulatedSize || len(challenge) != challengeSize {
		return nil, ErrOpen
	}
	kem, kdf, aead := suite()
	private, err := kem.NewPrivateKey(k.raw)
	if err != nil {
		return nil, ErrOpen
	}
	r, err := hpke.NewRecipient(encapsulated, private, kdf, aead, info(challenge, image))
	if err != nil {
		return nil, ErrOpen
	}
	secret, err := r.Open(nil, box)
	if err != nil {
		return nil, ErrOpen
	}
	return secret, nil
}

// Seal encrypts a secret for the holder of the public key. It is the server's side.
func Seal(publicKey []byte, challenge, image string, secret []byte) (encapsulated, box []byte, err error) {
	if len(challenge) != challengeSize {
		return nil, nil, fmt.Errorf("seal secret: challenge's id of %d characters, not %d", len(challenge), challengeSize)
	}
	kem, kdf, aead := suite()
	public, err := kem.NewPublicKey(publicKey)
	if err != nil {
		return nil, nil, fmt.Errorf("seal secret: %w", err)
	}
	encapsulated, s, err := hpke.NewSender(public, kdf, aead, info(challenge, image))
	if err != nil {
		return nil, nil, fmt.Errorf("seal secret: %w", err)
	}
	if box, err = s.Seal(nil, secret); err != nil {
		return nil, nil, fmt.Errorf("seal secret: %w", err)
	}
	return encapsulated, box, nil
}
