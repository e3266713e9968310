package keyserver

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// Policy is what an image asks of the machine that may have its secrets. The zero Policy asks for nothing
// and is therefore refused; DefaultPolicy is the least that is taken.
type Policy struct {
	Guest  sev.Policy // made part of each session, so that the platform itself enforces it
	MinAPI sev.API    // the platform's firmware must be at least this; the build counts too
}

// DefaultPolicy forbids debugging, sharing the key with other guests, and sending the guest to another platform.
func DefaultPolicy() Policy {
	return Policy{Guest: sev.NoDebug | sev.NoKeySharing | sev.NoSend}
}

// ErrPolicy says that a policy would let a secret out to somebody.
var ErrPolicy = errors.New("policy is too weak")

// Validate gives every complaint at once.
func (p Policy) Validate() error {
	var complaints []error
	for _, need := range []struct {
		bit sev.Policy
		why string
	}{
		{sev.NoDebug, "debugging must be forbidden: a host reads a debug guest's memory"},
		{sev.NoKeySharing, "key sharing must be forbidden: a second guest with the same key reads the first's memory"},
		{sev.NoSend, "sending must be forbidden: the guest would leave the platform that was verified"},
	} {
		if p.Guest&need.bit == 0 {
			complaints = append(complaints, fmt.Errorf("%w: %s", ErrPolicy, need.why))
		}
	}
	if known := sev.NoDebug | sev.NoKeySharing | sev.ES | sev.NoSend | sev.Domain | sev.SEV; p.Guest&0xffff&^known != 0 {
		complaints = append(complaints, fmt.Errorf("%w: it has unknown bits", ErrPolicy))
	}
	if want := p.withFloor(); p.Guest != want {
		complaints = append(complaints, fmt.Errorf("%w: its minimum API is not the guest policy's", ErrPolicy))
	}
	return errors.Join(complaints...)
}

// WithMinAPI gives the policy with a floor for the platform's firmware.
func (p Policy) WithMinAPI(api sev.API) Policy {
	p.MinAPI = api
	p.Guest = p.withFloor()
	return p
}

// withFloor is the guest policy with the minimum API in its upper half (AMD SEV API 55766, guest policy structure).
func (p Policy) withFloor() sev.Policy {
	return p.Guest&0xffff | sev.Policy(p.MinAPI.Major)<<16 | sev.Policy(p.MinAPI.Minor)<<24
}

// Mode is the kind of digest that a guest under this policy has.
func (p Policy) Mode() measure.Mode {
	if p.Guest&sev.ES != 0 {
		return measure.SEVES
	}
	return measure.SEV
}

// allows says whether a platform's firmware is new enough.
func (p Policy) allows(api sev.API) bool {
	have := int(api.Major)<<16 | int(api.Minor)<<8 | int(api.Build)
	want := int(p.MinAPI.Major)<<16 | int(p.MinAPI.Minor)<<8 | int(p.MinAPI.Build)
	return have >= want
}

// policyJSON is the stored form.
type policyJSON struct {
	Guest    uint32 `json:"guest_policy"`
	MinMajor uint8  `json:"min_api_major"`
	MinMinor uint8  `json:"min_api_minor"`
	MinBuild uint8  `json:"min_build"`
}

func (p Policy) encode() ([]byte, error) {
	return json.Marshal(policyJSON{uint32(p.Guest), p.MinAPI.Major, p.MinAPI.Minor, p.MinAPI.Build})
}

func decodePolicy(b []byte) (Policy, error) {
	var j policyJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return Policy{}, fmt.Errorf("read policy: %w", err)
	}
	p := Policy{Guest: sev.Policy(j.Guest), MinAPI: sev.API{Major: j.MinMajor, Minor: j.MinMinor, Build: j.MinBuild}}
	if err := p.Validate(); err != nil {
		return Policy{}, err
	}
	return p, nil
}
