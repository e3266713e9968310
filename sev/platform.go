package sev

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
)

// Platform is a secure processor in software: its certificate chain, and the private half of
// its PDH. It has no room for anybody's guests but the caller's, and signs with a root of its own.
type Platform struct {
	API   API
	Chain Chain
	pdh   *ecdh.PrivateKey
}

// State is a guest's state, in the order of the API's (55766, "Guest state machine").
type State int

// States of a guest that is launched here.
const (
	StateUninit       State = iota
	StateLaunchUpdate       // memory is measured
	StateLaunchSecret       // measured; secrets may be injected
	StateRunning
)

// Guest is a guest under launch on a Platform. It is not for concurrent use.
type Guest struct {
	api         API
	policy      Policy
	tek         TEK
	tik         TIK
	state       State
	measurement Measurement
}

// LaunchStart does LAUNCH_START with the owner's certificate and session. A policy that is not
// the session's is StatusBadMeasurement, as is a session for another platform.
func (p *Platform) LaunchStart(godh, session []byte, policy Policy) (*Guest, error) {
	if !p.API.atLeast(policy.MinAPI()) {
		return nil, fmt.Errorf("LAUNCH_START: %w", StatusPolicyFailure)
	}
	cert, err := ParseCertificate(godh)
	if err != nil {
		return nil, fmt.Errorf("LAUNCH_START: %w: %w", StatusInvalidCertificate, err)
	}
	if cert.Usage != UsagePDH {
		return nil, fmt.Errorf("LAUNCH_START: %w", StatusInvalidCertificate)
	}
	owner, err := cert.diffieHellman()
	if err != nil {
		return nil, fmt.Errorf("LAUNCH_START: %w: %w", StatusInvalidCertificate, err)
	}
	if len(session) != SessionSize {
		return nil, fmt.Errorf("LAUNCH_START: %w: %w", StatusInvalidLength, lengthError("session", len(session), SessionSize))
	}
	z, err := p.pdh.ECDH(owner)
	if err != nil {
		return nil, fmt.Errorf("LAUNCH_START: %w: %w", StatusInvalidCertificate, err)
	}
	defer clear(z)
	tek, tik, err := openSession(session, z, policy)
	if err != nil {
		return nil, fmt.Errorf("LAUNCH_START: %w", err)
	}
	return &Guest{api: p.API, policy: policy, tek: tek, tik: tik, state: StateLaunchUpdate}, nil
}

// LaunchStartUnowned does LAUNCH_START without a session: the platform chooses the keys, so nobody
// can check a measurement or seal a secret.
func (p *Platform) LaunchStartUnowned(policy Policy, random io.Reader) (*Guest, error) {
	if !p.API.atLeast(policy.MinAPI()) {
		return nil, fmt.Errorf("LAUNCH_START: %w", StatusPolicyFailure)
	}
	g := &Guest{api: p.API, policy: policy, state: StateLaunchUpdate}
	for _, key := range [][]byte{g.tek[:], g.tik[:]} {
		if _, err := io.ReadFull(random, key); err != nil {
			return nil, fmt.Errorf("LAUNCH_START: read randomness: %w", err)
		}
	}
	return g, nil
}

// State gives the guest's state, Policy its policy.
func (g *Guest) State() State { return g.state }

// Policy gives the policy that the guest was started with.
func (g *Guest) Policy() Policy { return g.policy }

// Measure does LAUNCH_MEASURE for the digest of all that was measured. No memory is measured after it.
func (g *Guest) Measure(digest Digest, random io.Reader) (Measurement, error) {
	if g.state != StateLaunchUpdate {
		return Measurement{}, fmt.Errorf("LAUNCH_MEASURE: %w", StatusInvalidGuestState)
	}
	var nonce Nonce
	if _, err := io.ReadFull(random, nonce[:]); err != nil {
		return Measurement{}, fmt.Errorf("LAUNCH_MEASURE: read randomness: %w", err)
	}
	g.measurement = Measurement{MAC: measure(g.tik, g.api, g.policy, digest, nonce), Nonce: nonce}
	g.state = StateLaunchSecret
	return g.measurement, nil
}

// OpenSecret does LAUNCH_SECRET and gives what goes into the guest's memory. A packet that was
// not sealed for this measurement is StatusBadMeasurement.
func (g *Guest) OpenSecret(header, secret []byte) ([]byte, error) {
	if g.state != StateLaunchSecret {
		return nil, fmt.Errorf("LAUNCH_SECRET: %w", StatusInvalidGuestState)
	}
	if len(header) != PacketHeaderSize || len(secret) == 0 || len(secret)%16 != 0 || len(secret) > MaxSecret {
		return nil, fmt.Errorf("LAUNCH_SECRET: %w: header of %d bytes, secret of %d", StatusInvalidLength, len(header), len(secret))
	}
	plain, err := openPacket(g.tek, g.tik, Packet{Header: [PacketHeaderSize]byte(header), Secret: secret}, g.measurement)
	switch {
	case errors.Is(err, ErrSecret):
		return nil, fmt.Errorf("LAUNCH_SECRET: %w", StatusBadMeasurement)
	case err != nil:
		return nil, fmt.Errorf("LAUNCH_SECRET: %w: %w", StatusUnsupported, err)
	}
	return plain, nil
}

// Finish does LAUNCH_FINISH: the guest runs, and its keys are forgotten.
func (g *Guest) Finish() error {
	if g.state != StateLaunchSecret {
		return fmt.Errorf("LAUNCH_FINISH: %w", StatusInvalidGuestState)
	}
	g.state = StateRunning
	clear(g.tek[:])
	clear(g.tik[:])
	return nil
}
