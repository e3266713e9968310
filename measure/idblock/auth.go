package idblock

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
)

// Places in the authentication block (SNP ABI, "Structure of the ID Authentication Information").
const (
	atIDAlgo, atAuthorAlgo         = 0x000, 0x004
	atBlockSignature, atIDKey      = 0x040, 0x240
	atIDKeySignature, atAuthorKey  = 0x680, 0x880
	signatureSize, keySize         = 512, 1028
	numberSize, coordinate         = 72, 48 // a number's field, and the bytes of it that P-384 fills
	algoP384SHA384, curveP384      = 1, 2
	reservedHead, reservedIDKeyEnd = 0x008, atIDKey + keySize
)

// Auth is an authentication block.
type Auth struct {
	IDKey     *ecdsa.PublicKey
	AuthorKey *ecdsa.PublicKey // nil: none
	raw       [AuthSize]byte
}

// Encode gives the block's bytes.
func (a *Auth) Encode() []byte { return bytes.Clone(a.raw[:]) }

// Sign makes the authentication block of b. The author's key may be nil.
func Sign(b Block, id, author *ecdsa.PrivateKey) (*Auth, error) {
	block, err := b.Encode()
	if err != nil {
		return nil, err
	}
	a := new(Auth)
	if err := a.put(atIDAlgo, atIDKey, id); err != nil {
		return nil, fmt.Errorf("ID key: %w", err)
	}
	a.IDKey = &id.PublicKey
	if err := a.sign(atBlockSignature, id, block); err != nil {
		return nil, fmt.Errorf("sign ID block: %w", err)
	}
	if author == nil {
		return a, nil
	}
	if err := a.put(atAuthorAlgo, atAuthorKey, author); err != nil {
		return nil, fmt.Errorf("author key: %w", err)
	}
	a.AuthorKey = &author.PublicKey
	if err := a.sign(atIDKeySignature, author, a.raw[atIDKey:atIDKey+keySize]); err != nil {
		return nil, fmt.Errorf("sign ID key: %w", err)
	}
	return a, nil
}

func (a *Auth) put(algo, at int, key *ecdsa.PrivateKey) error {
	if key == nil {
		return ErrKey
	}
	encoded, err := encodeKey(&key.PublicKey)
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(a.raw[algo:], algoP384SHA384)
	copy(a.raw[at:], encoded)
	return nil
}

func (a *Auth) sign(at int, key *ecdsa.PrivateKey, data []byte) error {
	sum := sha512.Sum384(data)
	der, err := key.Sign(nil, sum[:], crypto.SHA384) // no source of randomness: RFC 6979
	if err != nil {
		return err
	}
	var number struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &number); err != nil {
		return err
	}
	copy(a.raw[at:], little(number.R))
	copy(a.raw[at+numberSize:], little(number.S))
	return nil
}

// ParseAuth reads an authentication block. Verify says whether it is one of a given ID block.
func ParseAuth(raw []byte) (*Auth, error) {
	if len(raw) != AuthSize {
		return nil, fmt.Errorf("%w: authentication block of %d bytes, not %d", ErrFormat, len(raw), AuthSize)
	}
	a := new(Auth)
	copy(a.raw[:], raw)
	for _, r := range []struct{ from, to int }{
		{reservedHead, atBlockSignature},
		{atBlockSignature + 2*numberSize, atIDKey},
		{reservedIDKeyEnd, atIDKeySignature},
		{atIDKeySignature + 2*numberSize, atAuthorKey},
		{atAuthorKey + keySize, AuthSize},
	} {
		if !zero(raw[r.from:r.to]) {
			return nil, fmt.Errorf("%w: reserved bytes from %#x to %#x are not zero", ErrFormat, r.from, r.to)
		}
	}
	var err error
	if a.IDKey, err = a.key(atIDAlgo, atIDKey); err != nil {
		return nil, fmt.Errorf("ID key: %w", err)
	}
	if zero(raw[atAuthorKey:atAuthorKey+keySize]) && zero(raw[atIDKeySignature:atAuthorKey]) {
		if algo := binary.LittleEndian.Uint32(raw[atAuthorAlgo:]); algo > algoP384SHA384 {
			return nil, fmt.Errorf("author key: %w: algorithm %d", ErrFormat, algo)
		}
		return a, nil
	}
	if a.AuthorKey, err = a.key(atAuthorAlgo, atAuthorKey); err != nil {
		return nil, fmt.Errorf("author key: %w", err)
	}
	return a, nil
}

func (a *Auth) key(algo, at int) (*ecdsa.PublicKey, error) {
	if n := binary.LittleEndian.Uint32(a.raw[algo:]); n != algoP384SHA384 {
		return nil, fmt.Errorf("%w: algorithm %d, not ECDSA on P-384 with SHA-384", ErrFormat, n)
	}
	raw := a.raw[at : at+keySize]
	if curve := binary.LittleEndian.Uint32(raw); curve != curveP384 {
		return nil, fmt.Errorf("%w: curve %d, not P-384", ErrFormat, curve)
	}
	x, y := raw[4:4+numberSize], raw[4+numberSize:4+2*numberSize]
	if !zero(x[coordinate:]) || !zero(y[coordinate:]) || !zero(raw[4+2*numberSize:]) {
		return nil, fmt.Errorf("%w: bytes behind a coordinate are not zero", ErrFormat)
	}
	point := append([]byte{4}, big48(x)...)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P384(), append(point, big48(y)...))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return key, nil
}

// Verify checks that the ID key signed the block and, if there is an author, that it signed the ID key. Whose
// keys they are must be decided by their digests.
func (a *Auth) Verify(b Block) error {
	block, err := b.Encode()
	if err != nil {
		return err
	}
	if !a.signed(atBlockSignature, a.IDKey, block) {
		return fmt.Errorf("ID block: %w", ErrSignature)
	}
	if a.AuthorKey != nil && !a.signed(atIDKeySignature, a.AuthorKey, a.raw[atIDKey:atIDKey+keySize]) {
		return fmt.Errorf("ID key by the author: %w", ErrSignature)
	}
	return nil
}

func (a *Auth) signed(at int, key *ecdsa.PublicKey, data []byte) bool {
	r, s := a.raw[at:at+numberSize], a.raw[at+numberSize:at+2*numberSize]
	if key == nil || !zero(r[coordinate:]) || !zero(s[coordinate:]) {
		return false
	}
	sum := sha512.Sum384(data)
	return ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(big48(r)), new(big.Int).SetBytes(big48(s)))
}

// encodeKey gives a public key in the form in which it is signed and digested.
func encodeKey(key *ecdsa.PublicKey) ([]byte, error) {
	if key == nil || key.Curve != elliptic.P384() {
		return nil, ErrKey
	}
	point, err := key.Bytes() // 4 | x | y
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	out := make([]byte, keySize)
	binary.LittleEndian.PutUint32(out, curveP384)
	copy(out[4:], big48(point[1:]))
	copy(out[4+numberSize:], big48(point[1+coordinate:]))
	return out, nil
}

// KeyDigest is how reports name a key: ID_KEY_DIGEST and AUTHOR_KEY_DIGEST.
func KeyDigest(key *ecdsa.PublicKey) ([48]byte, error) {
	encoded, err := encodeKey(key)
	if err != nil {
		return [48]byte{}, err
	}
	return sha512.Sum384(encoded), nil
}

// big48 turns the 48 bytes of a number around.
func big48(b []byte) []byte {
	out := bytes.Clone(b[:coordinate])
	slices.Reverse(out)
	return out
}

func little(n *big.Int) []byte { return big48(n.FillBytes(make([]byte, coordinate))) }

func zero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }
