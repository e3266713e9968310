// Package sev holds the objects of AMD's SEV API (document 55766, "Secure Encrypted
// Virtualization API") that pass between a guest's owner and a platform before launch, and
// what each side does with them.
//
// The owner's side: [ParseChain] and [Chain.Verify] judge a platform's certificates up to a
// trusted root; [NewSession] makes the two files that LAUNCH_START takes and keeps the guest's
// keys; [Session.VerifyMeasurement] compares a launch measurement with the digest that the
// owner expects; [Session.SealSecret] seals a [SecretTable] so that only that machine can open it.
//
// The platform's side ([Platform], [Guest]) does what the secure processor does with them. It
// exists for tests and for the software secure processor: no root of AMD's signs its chain.
//
// # Where other tools disagree
//
// sevctl 0.6.2 and sev-tool 1.7 were run beside it (testdata/tools.py): certificates, keys, measurements and secret packets agree.
//
//   - A policy with a floor for the firmware's API. sevctl session reads its 16 bits as two of 4, and sev-tool's generate_launch_blob cuts
//     the policy to 8 bits: QEMU, given the policy that was asked for, is then refused by the secure processor. [NewSession] binds all 32.
//   - What stands behind an elliptic-curve key in a certificate. sevctl leaves bytes of its stack there; the standard gives them no
//     meaning and secure processors take them: so do we.
//   - The root. sev-tool takes any ARK that carries the key ID of AMD's, since it was "transmitted over https"; sevctl takes any ARK, here
//     a file is given. [Chain.Verify] knows roots by their key.
//   - sev-tool's exit status is 0 also where it failed.
//
// Every input is taken as hostile: lengths are checked before use, an object that would not
// encode again to the same bytes is refused, and on an error all other results are zero. Keys
// and nonces are distinct types, compared in constant time; keys never print.
package sev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Policy is a guest's policy (55766, chapter 3, "Guest policy").
type Policy uint32

// Bits of a policy.
const (
	NoDebug      Policy = 1 << 0 // the host may not read the guest's memory through the firmware
	NoKeySharing Policy = 1 << 1 // no other guest gets this guest's key
	ES           Policy = 1 << 2 // registers are encrypted too
	NoSend       Policy = 1 << 3 // the guest may not be sent to another platform
	Domain       Policy = 1 << 4 // it may be sent within the owner's domain only
	SEV          Policy = 1 << 5 // it may be sent to SEV platforms only
)

var policyNames = []struct {
	bit  Policy
	name string
}{{NoDebug, "NODBG"}, {NoKeySharing, "NOKS"}, {ES, "ES"}, {NoSend, "NOSEND"}, {Domain, "DOMAIN"}, {SEV, "SEV"}}

// MinAPI gives the oldest firmware API that the policy allows; the build is not part of it.
func (p Policy) MinAPI() API { return API{Major: uint8(p >> 16), Minor: uint8(p >> 24)} }

// WithMinAPI sets the oldest firmware API that the policy allows.
func (p Policy) WithMinAPI(major, minor uint8) Policy {
	return p&0xffff | Policy(major)<<16 | Policy(minor)<<24
}

// Has says whether all the given bits are set.
func (p Policy) Has(bits Policy) bool { return p&bits == bits }

func (p Policy) String() string {
	var names []string
	for _, n := range policyNames {
		if p.Has(n.bit) {
			names = append(names, n.name)
		}
	}
	text := fmt.Sprintf("%#x", uint32(p))
	if len(names) > 0 {
		text += " (" + strings.Join(names, ", ") + ")"
	}
	return text
}

func (p Policy) le() []byte { return binary.LittleEndian.AppendUint32(nil, uint32(p)) }

// API is the version of a platform's firmware (PLATFORM_STATUS). All of it is in the measurement.
type API struct{ Major, Minor, Build uint8 }

func (a API) String() string { return fmt.Sprintf("%d.%d build %d", a.Major, a.Minor, a.Build) }

// atLeast compares major and minor.
func (a API) atLeast(oldest API) bool {
	return a.Major > oldest.Major || a.Major == oldest.Major && a.Minor >= oldest.Minor
}

// What passes between the two sides, and must not be mixed up.
type (
	TEK    [16]byte // transport encryption key: opens secrets
	TIK    [16]byte // transport integrity key: authenticates measurements and secrets
	Digest [32]byte // launch digest: what the platform measured
	MAC    [32]byte // an HMAC-SHA256
	Nonce  [16]byte // the platform's, in a measurement
)

// Format hides the key, whatever the verb.
func (TEK) Format(f fmt.State, _ rune) { io.WriteString(f, "(TEK)") }

// Format hides the key, whatever the verb.
func (TIK) Format(f fmt.State, _ rune) { io.WriteString(f, "(TIK)") }

var errHidden = errors.New("a transport key is not to be written out")

// MarshalText refuses: a key does not get into JSON or a log by accident.
func (TEK) MarshalText() ([]byte, error) { return nil, errHidden }

// MarshalText refuses: a key does not get into JSON or a log by accident.
func (TIK) MarshalText() ([]byte, error) { return nil, errHidden }

// FormatError is an object that does not have the form the API gives it.
type FormatError struct {
	Object  string // "certificate", "session", …
	Offset  int    // where, in bytes from the object's beginning
	Problem string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s: at byte %d: %s", e.Object, e.Offset, e.Problem)
}

func lengthError(object string, got, want int) error {
	return &FormatError{Object: object, Problem: fmt.Sprintf("%d bytes, want %d", got, want)}
}
