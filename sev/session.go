package sev

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"slices"
)

// SessionSize is the size of the launch session blob (55766, LAUNCH_START):
// nonce16 | wrapped TEK and TIK 32 | IV 16 | MAC of the wrapped keys 32 | MAC of the policy 32.
const SessionSize = 128

// A Session is what a guest's owner keeps of a launch: the policy and the keys that only the
// owner and that one machine know. It must be used for one measurement and one release.
type Session struct {
	Policy Policy
	TEK    TEK
	TIK    TIK
}

// LaunchStart is what the platform gets: QEMU takes each part as a file, in base64.
type LaunchStart struct {
	GODH    [CertificateSize]byte // the owner's Diffie-Hellman certificate: dh-cert-file
	Session [SessionSize]byte     // session-file
}

// NewSession makes a session for the platform that owns the PDH key. The caller must have
// verified the PDH's chain; the Diffie-Hellman key is forgotten before NewSession returns.
func NewSession(pdh *Certificate, policy Policy, random io.Reader) (*Session, LaunchStart, error) {
	if pdh == nil || pdh.Usage != UsagePDH {
		return nil, LaunchStart{}, fmt.Errorf("make session: %w", &UsageError{Certificate: "PDH", Want: UsagePDH, Got: usageOf(pdh)})
	}
	platform, err := pdh.diffieHellman()
	if err != nil {
		return nil, LaunchStart{}, fmt.Errorf("make session: %w", err)
	}
	own, err := newDiffieHellman(random)
	if err != nil {
		return nil, LaunchStart{}, fmt.Errorf("make session: %w", err)
	}
	var start LaunchStart
	godh := ownerCertificate(own.PublicKey())
	copy(start.GODH[:], godh.Encode())

	z, err := own.ECDH(platform)
	if err != nil {
		return nil, LaunchStart{}, fmt.Errorf("make session: %w", err)
	}
	defer clear(z)
	s := &Session{Policy: policy}
	if start.Session, err = s.seal(z, random); err != nil {
		s.Wipe()
		return nil, LaunchStart{}, fmt.Errorf("make session: %w", err)
	}
	return s, start, nil
}

// seal chooses TEK and TIK and wraps them under the shared secret.
func (s *Session) seal(z []byte, random io.Reader) (blob [SessionSize]byte, err error) {
	var nonce, iv [16]byte
	var keys [32]byte
	defer clear(keys[:])
	for _, part := range [][]byte{nonce[:], keys[:], iv[:]} {
		if _, err := io.ReadFull(random, part); err != nil {
			return [SessionSize]byte{}, fmt.Errorf("read randomness: %w", err)
		}
	}
	s.TEK, s.TIK = TEK(keys[:16]), TIK(keys[16:])
	kek, kik := wrapKeys(z, nonce[:])
	defer clear(kek)
	defer clear(kik)
	wrapped, err := ctr([16]byte(kek), iv, keys[:])
	if err != nil {
		return [SessionSize]byte{}, err
	}
	wrapMAC := hmacSHA256(kik, wrapped)
	policyMAC := hmacSHA256(s.TIK[:], s.Policy.le())
	copy(blob[:], slices.Concat(nonce[:], wrapped, iv[:], wrapMAC[:], policyMAC[:]))
	return blob, nil
}

// openSession is the platform's side of seal. The results are StatusBadMeasurement for either MAC.
func openSession(blob, z []byte, policy Policy) (TEK, TIK, error) {
	if len(blob) != SessionSize {
		return TEK{}, TIK{}, lengthError("session", len(blob), SessionSize)
	}
	nonce, wrapped, iv := blob[:16], blob[16:48], [16]byte(blob[48:64])
	wrapMAC, policyMAC := MAC(blob[64:96]), MAC(blob[96:128])
	kek, kik := wrapKeys(z, nonce)
	defer clear(kek)
	defer clear(kik)
	if !hmacSHA256(kik, wrapped).equal(wrapMAC) {
		return TEK{}, TIK{}, StatusBadMeasurement
	}
	keys, err := ctr([16]byte(kek), iv, wrapped)
	if err != nil {
		return TEK{}, TIK{}, err
	}
	defer clear(keys)
	tek, tik := TEK(keys[:16]), TIK(keys[16:])
	if !hmacSHA256(tik[:], policy.le()).equal(policyMAC) {
		return TEK{}, TIK{}, StatusBadMeasurement
	}
	return tek, tik, nil
}

// Wipe forgets the keys.
func (s *Session) Wipe() {
	clear(s.TEK[:])
	clear(s.TIK[:])
}

// storedSession is the version of the stored form: "SEVS", 1, 0, 0, 0.
const storedSession = "SEVS\x01\x00\x00\x00"

// Encode gives the session's stored form. It holds both keys in the clear: the store must
// encrypt it, and the caller wipes it.
func (s *Session) Encode() []byte {
	out := append(make([]byte, 0, 44), storedSession...)
	out = append(out, s.Policy.le()...)
	out = append(out, s.TEK[:]...)
	return append(out, s.TIK[:]...)
}

// ParseSession reads the stored form.
func ParseSession(b []byte) (*Session, error) {
	const size = len(storedSession) + 4 + 16 + 16
	if len(b) != size {
		return nil, lengthError("stored session", len(b), size)
	}
	if string(b[:8]) != storedSession {
		return nil, &FormatError{Object: "stored session", Problem: "not the known version"}
	}
	return &Session{Policy: Policy(le32(b[8:])), TEK: TEK(b[12:28]), TIK: TIK(b[28:44])}, nil
}

// newDiffieHellman takes the scalar from random itself, which crypto/ecdh no longer does.
func newDiffieHellman(random io.Reader) (*ecdh.PrivateKey, error) {
	var scalar [48]byte
	defer clear(scalar[:])
	for range 16 { // a scalar out of range has a chance of 2^-190
		if _, err := io.ReadFull(random, scalar[:]); err != nil {
			return nil, fmt.Errorf("read randomness: %w", err)
		}
		if key, err := ecdh.P384().NewPrivateKey(scalar[:]); err == nil {
			return key, nil
		}
	}
	return nil, errors.New("the source of randomness gives no usable key")
}
