package sev

import (
	"errors"
	"fmt"
	"io"
)

// MeasurementSize is the size of what LAUNCH_MEASURE hands out: MAC 32 | nonce 16.
const MeasurementSize = 48

// Contexts that keep the two MACs under the TIK apart (55766, LAUNCH_MEASURE, LAUNCH_SECRET).
const (
	measureContext = 0x04
	secretContext  = 0x01
)

var (
	// ErrMeasurement: the machine is not the one that was expected (its memory, its policy, its
	// firmware's version), or the measurement is of another session.
	ErrMeasurement = errors.New("the launch measurement does not match")
	// ErrAPI: the platform's firmware is older than the policy allows.
	ErrAPI = errors.New("the platform's firmware is older than the policy allows")
	// ErrSecret: a secret packet's parts do not belong together, or to this session.
	ErrSecret = errors.New("the secret packet does not verify")
)

// Measurement is a platform's statement about a machine before it starts.
type Measurement struct {
	MAC   MAC
	Nonce Nonce
}

// ParseMeasurement reads the 48 bytes that QMP's query-sev-launch-measure gives in base64.
func ParseMeasurement(b []byte) (Measurement, error) {
	if len(b) != MeasurementSize {
		return Measurement{}, lengthError("measurement", len(b), MeasurementSize)
	}
	return Measurement{MAC: MAC(b[:32]), Nonce: Nonce(b[32:])}, nil
}

// Encode gives the 48 bytes.
func (m Measurement) Encode() []byte { return append(append([]byte(nil), m.MAC[:]...), m.Nonce[:]...) }

// measure computes LAUNCH_MEASURE.
func measure(tik TIK, api API, policy Policy, digest Digest, nonce Nonce) MAC {
	return hmacSHA256(tik[:], []byte{measureContext, api.Major, api.Minor, api.Build}, policy.le(), digest[:], nonce[:])
}

// Expect gives the measurement that the session's platform answers with for a digest. It is for trials: a real one comes with a
// nonce of the platform's own.
func (s *Session) Expect(api API, digest Digest, nonce Nonce) Measurement {
	return Measurement{MAC: measure(s.TIK, api, s.Policy, digest, nonce), Nonce: nonce}
}

// VerifyMeasurement says whether m is this session's machine with that digest, on firmware of
// that version. The version is the host's claim; m holds only if it is true.
func (s *Session) VerifyMeasurement(m Measurement, api API, digest Digest) error {
	if !measure(s.TIK, api, s.Policy, digest, m.Nonce).equal(m.MAC) {
		return ErrMeasurement
	}
	if !api.atLeast(s.Policy.MinAPI()) {
		return fmt.Errorf("%w: %v, policy %v", ErrAPI, api, s.Policy)
	}
	return nil
}

const (
	// PacketHeaderSize is the size of LAUNCH_SECRET's header: flags u32 | IV 16 | MAC 32.
	PacketHeaderSize = 52
	// MaxSecret is the largest secret that one LAUNCH_SECRET takes (55766: 16 KiB).
	MaxSecret = 16 << 10
)

// Packet is a sealed secret: packet-header and secret of QMP's sev-inject-launch-secret, each in base64.
type Packet struct {
	Header [PacketHeaderSize]byte
	Secret []byte
}

// SealSecret seals a table for the machine whose measurement m this session has verified: the
// packet opens in no other launch.
func (s *Session) SealSecret(table []byte, m Measurement, random io.Reader) (Packet, error) {
	if len(table) == 0 || len(table)%16 != 0 || len(table) > MaxSecret {
		return Packet{}, fmt.Errorf("seal secret: %d bytes: want a multiple of 16 up to %d", len(table), MaxSecret)
	}
	var iv [16]byte
	if _, err := io.ReadFull(random, iv[:]); err != nil {
		return Packet{}, fmt.Errorf("seal secret: read randomness: %w", err)
	}
	sealed, err := ctr(s.TEK, iv, table)
	if err != nil {
		return Packet{}, fmt.Errorf("seal secret: %w", err)
	}
	p := Packet{Secret: sealed}
	copy(p.Header[4:20], iv[:])
	mac := packetMAC(s.TIK, p, m)
	copy(p.Header[20:], mac[:])
	return p, nil
}

// OpenSecret opens a packet of this session's, as the platform would: the table in the clear.
func (s *Session) OpenSecret(p Packet, m Measurement) ([]byte, error) {
	table, err := openPacket(s.TEK, s.TIK, p, m)
	if err != nil {
		return nil, fmt.Errorf("open secret: %w", err)
	}
	return table, nil
}

func packetMAC(tik TIK, p Packet, m Measurement) MAC {
	size := le32Bytes(uint32(len(p.Secret)))
	return hmacSHA256(tik[:], []byte{secretContext}, p.Header[:20], size, size, p.Secret, m.MAC[:])
}

// openPacket is the platform's side of SealSecret. Flags other than 0 (compression) are not known here.
func openPacket(tek TEK, tik TIK, p Packet, m Measurement) ([]byte, error) {
	if !packetMAC(tik, p, m).equal(MAC(p.Header[20:])) {
		return nil, ErrSecret
	}
	if flags := le32(p.Header[:]); flags != 0 {
		return nil, &FormatError{Object: "secret packet", Problem: fmt.Sprintf("flags %#x are not known", flags)}
	}
	return ctr(tek, [16]byte(p.Header[4:20]), p.Secret)
}
