package keyserver

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/sealboot/sealboot/keyserver/auditlog"
)

// keySize is the length of a store key in bytes. Package storekey gets them from where they are kept.
const keySize = 32

// ErrSealed says that a sealed value does not open: it is another row's, was changed, or belongs to another key.
var ErrSealed = errors.New("sealed value does not open")

// Key seals what the store must not show, and signs the audit. It comes from outside the store.
//
// Each use has a key of its own, derived by HKDF-SHA256 (RFC 5869). Values are sealed by XChaCha20-Poly1305 with
// a random nonce of 24 bytes in front; what the value is for is authenticated with it, so that no row can
// stand in for another.
type Key struct {
	sealing   cipher.AEAD
	state     []byte           // MACs of rows that are no secret
	receipts  []byte           // makes the keys of release receipts
	head      []byte           // authenticates the audit's end
	signer    *auditlog.Signer // of the audit's checkpoints
	rows1     []byte           // chained the audit's rows before they had plain hashes
	backup    []byte           // of backup files
	challenge []byte           // makes the keys of challenges
}

// NewKey takes the 32 random bytes of a store key. The caller may wipe them afterwards.
func NewKey(raw []byte) (*Key, error) {
	if len(raw) != keySize {
		return nil, fmt.Errorf("store key of %d bytes, not %d", len(raw), keySize)
	}
	var keys [8][]byte
	for i, use := range []string{"sealing", "audit", "audit head", "audit signature", "state", "receipt", "backup", "challenge"} {
		key, err := hkdf.Key(sha256.New, raw, nil, "sealboot key server store 1: "+use, keySize)
		if err != nil {
			return nil, err
		}
		keys[i] = key
	}
	defer clear(keys[0])
	defer clear(keys[3])
	sealing, err := chacha20poly1305.NewX(keys[0])
	if err != nil {
		return nil, err
	}
	signer, err := auditlog.NewSigner(keys[3])
	if err != nil {
		return nil, err
	}
	return &Key{sealing: sealing, rows1: keys[1], head: keys[2], signer: signer, state: keys[4], receipts: keys[5], backup: keys[6], challenge: keys[7]}, nil
}

// mac authenticates the parts of a row that anybody may read.
func (k *Key) mac(parts ...[]byte) []byte {
	h := hmac.New(sha256.New, k.state)
	h.Write(joined(parts))
	return h.Sum(nil)
}

// seal encrypts value for the one place that purpose names.
func (k *Key) seal(random io.Reader, value []byte, purpose ...[]byte) ([]byte, error) {
	sealed := make([]byte, chacha20poly1305.NonceSizeX, chacha20poly1305.NonceSizeX+len(value)+chacha20poly1305.Overhead)
	if _, err := io.ReadFull(random, sealed); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	return k.sealing.Seal(sealed, sealed, value, joined(purpose)), nil
}

// open gives back what seal was given for the same purpose. The caller wipes it.
func (k *Key) open(sealed []byte, purpose ...[]byte) ([]byte, error) {
	if len(sealed) < chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead {
		return nil, ErrSealed
	}
	nonce, box := sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:]
	value, err := k.sealing.Open(nil, nonce, box, joined(purpose))
	if err != nil {
		return nil, ErrSealed
	}
	return value, nil
}

// joined puts a length before each part, so that no two lists of parts give the same bytes.
func joined(parts [][]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

// number is a part for joined.
func number(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
