package sev

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// kdf is SP 800-108 in counter mode with HMAC-SHA256, the counter and the length little-endian
// (55766, "Key derivation").
func kdf(key []byte, label string, context []byte, size int) []byte {
	var out []byte
	for i := uint32(1); len(out) < size; i++ {
		h := hmac.New(sha256.New, key)
		h.Write(binary.LittleEndian.AppendUint32(nil, i))
		h.Write([]byte(label))
		h.Write([]byte{0})
		h.Write(context)
		h.Write(binary.LittleEndian.AppendUint32(nil, uint32(size)*8))
		out = h.Sum(out)
	}
	clear(out[size:])
	return out[:size:size]
}

// wrapKeys derives the two keys that wrap TEK and TIK on their way, from the shared secret Z.
func wrapKeys(z, nonce []byte) (encryption, integrity []byte) {
	master := kdf(z, "sev-master-secret", nonce, 16)
	defer clear(master)
	return kdf(master, "sev-kek", nil, 16), kdf(master, "sev-kik", nil, 16)
}

func hmacSHA256(key []byte, parts ...[]byte) MAC {
	h := hmac.New(sha256.New, key)
	for _, part := range parts {
		h.Write(part)
	}
	return MAC(h.Sum(nil))
}

// equal compares in constant time.
func (m MAC) equal(other MAC) bool { return hmac.Equal(m[:], other[:]) }

// ctr encrypts or decrypts with AES-128 in counter mode.
func ctr(key, iv [16]byte, data []byte) ([]byte, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(data))
	cipher.NewCTR(block, iv[:]).XORKeyStream(out, data)
	return out, nil
}
