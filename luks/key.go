package luks

import (
	"crypto/pbkdf2"
	"crypto/subtle"
	"fmt"
	"io"
)

// VolumeKey is the key that the data is encrypted with. Wipe it when it is no longer needed.
type VolumeKey struct{ bytes []byte }

// Bytes gives the key itself, not a copy: Wipe clears it.
func (k *VolumeKey) Bytes() []byte { return k.bytes }

// Wipe overwrites the key. Copies inside a Cipher remain until it is collected.
func (k *VolumeKey) Wipe() { clear(k.bytes) }

// Format keeps the key out of logs, whatever the verb.
func (k *VolumeKey) Format(f fmt.State, _ rune) { io.WriteString(f, "volume key (not shown)") }

func newVolumeKey(size int, random io.Reader) (*VolumeKey, error) {
	key := &VolumeKey{make([]byte, size)}
	if _, err := io.ReadFull(random, key.bytes); err != nil {
		return nil, fmt.Errorf("make volume key: %w", err)
	}
	return key, nil
}

// digest tells the right volume key from others (LUKS2: a digest object of type pbkdf2;
// LUKS1: mk-digest).
type digest struct {
	hash       string
	iterations int
	salt       []byte
	value      []byte
}

const (
	digestIterations = 1000 // the least that cryptsetup accepts (LUKS_MKD_ITERATIONS_MIN); a 512-bit random key needs no stretching
	minDigest        = 20   // bytes: LUKS1's SHA-1; shorter ones could be met by chance or work
	maxDigest        = 64
)

func newDigest(key *VolumeKey, salt []byte) (digest, error) {
	d := digest{hash: "sha256", iterations: digestIterations, salt: salt}
	value, err := d.compute(key.bytes, 32)
	d.value = value
	return d, err
}

func (d digest) compute(key []byte, size int) ([]byte, error) {
	h, err := hashByName(d.hash)
	if err != nil {
		return nil, err
	}
	return pbkdf2.Key(h, string(key), d.salt, d.iterations, size)
}

// matches compares in constant time. An empty digest matches nothing.
func (d digest) matches(key []byte) (bool, error) {
	if len(d.value) < minDigest {
		return false, refuse(ErrDigest, "digest", "%d bytes, want at least %d", len(d.value), minDigest)
	}
	got, err := d.compute(key, len(d.value))
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, d.value) == 1, nil
}
