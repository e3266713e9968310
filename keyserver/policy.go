package keyserver

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// Policy is what an image asks of whoever may have its secrets. Every restriction must be said, even that there is none:
// the zero Policy says nothing and is refused, and so is one with a single Limit left out. EncodePolicy writes it down.
type Policy struct {
	SEV *SEVPolicy  // the way in for SEV and SEV-ES; nil: not open
	SNP *snp.Policy // the way in for SEV-SNP; nil: not open

	Platforms Limit[[]string]       // chips that may ask, see Chip
	NotBefore Limit[time.Time]      // by the server's clock, whole seconds
	NotAfter  Limit[time.Time]      // the first moment at which it is over
	Releases  Limit[int64]          // how many there may be, since the image's version was registered
	Networks  Limit[[]netip.Prefix] // that hosts ask from
}

// SEVPolicy is what is asked of a launch with SEV or SEV-ES.
type SEVPolicy struct {
	Guest  sev.Policy     // bits of the guest policy: made part of each session, so that the platform enforces them
	MinAPI Limit[sev.API] // the platform's firmware must be at least this; the build counts too
}

// Limit is a restriction that must be said: Any is none at all, Only is one. The zero Limit says nothing.
type Limit[T any] struct {
	said, only bool
	value      T
}

// Any says that there is no restriction.
func Any[T any]() Limit[T] { return Limit[T]{said: true} }

// Only says the restriction.
func Only[T any](v T) Limit[T] { return Limit[T]{said: true, only: true, value: v} }

// Value gives the restriction, if there is one.
func (l Limit[T]) Value() (v T, only bool) { return l.value, l.only }

// Errors of a policy.
var (
	// ErrPolicy says that a policy would let a secret out to somebody.
	ErrPolicy = errors.New("policy is too weak")
	// ErrNotSaid says that a policy leaves a restriction out. There is a word for none.
	ErrNotSaid = errors.New("policy does not say it")
)

// mandatory are the guest policy's bits without which a host has the secret, whatever was measured.
var mandatory = []struct {
	bit sev.Policy
	why string
}{
	{sev.NoDebug, "debugging must be forbidden: a host reads a debug guest's memory"},
	{sev.NoKeySharing, "key sharing must be forbidden: a second guest with the same key reads the first's memory"},
	{sev.NoSend, "sending must be forbidden: the guest would leave the platform that was verified"},
}

// maxListed bounds each list of a policy.
const maxListed = 4096

// DefaultPolicy is for SEV, forbids debugging, sharing the key with other guests, and sending the guest to another platform,
// and says that there is no other restriction.
func DefaultPolicy() Policy {
	return Policy{
		SEV:       &SEVPolicy{Guest: sev.NoDebug | sev.NoKeySharing | sev.NoSend, MinAPI: Any[sev.API]()},
		Platforms: Any[[]string](),
		NotBefore: Any[time.Time](),
		NotAfter:  Any[time.Time](),
		Releases:  Any[int64](),
		Networks:  Any[[]netip.Prefix](),
	}
}

// Validate gives every complaint at once.
func (p Policy) Validate() error {
	var complaints []error
	if p.SEV == nil && p.SNP == nil {
		complaints = append(complaints, fmt.Errorf("%w: it has neither sev nor snp, so nobody could ever ask", ErrNotSaid))
	}
	if p.SEV != nil {
		complaints = append(complaints, p.SEV.validate()...)
	}
	if p.SNP != nil {
		complaints = append(complaints, p.SNP.Validate())
	}
	for _, l := range []struct {
		name, none string
		said       bool
	}{
		{"platforms", anyWord, p.Platforms.said}, {"not_before", alwaysWord, p.NotBefore.said}, {"not_after", alwaysWord, p.NotAfter.said},
		{"releases", unlimitedWord, p.Releases.said}, {"networks", anyWord, p.Networks.said},
	} {
		if !l.said {
			complaints = append(complaints, fmt.Errorf("%w: %s is missing: %q stands for no restriction", ErrNotSaid, l.name, l.none))
		}
	}
	return errors.Join(append(complaints, p.validateLimits()...)...)
}

func (p Policy) validateLimits() (complaints []error) {
	complain := func(format string, args ...any) {
		complaints = append(complaints, fmt.Errorf("%w: "+format, append([]any{ErrPolicy}, args...)...))
	}
	if list, only := p.Platforms.Value(); only {
		if len(list) == 0 || len(list) > maxListed {
			complain("platforms: %d of them, want 1 to %d or %q", len(list), maxListed, anyWord)
		}
		for i, chip := range list {
			if !validChip(chip) || slices.Contains(list[:i], chip) {
				complain("platforms: %q is no chip (64 or 128 lower-case hexadecimal digits, as the audit has it), or is there twice", clean(chip))
			}
		}
	}
	from, hasFrom := p.NotBefore.Value()
	until, hasUntil := p.NotAfter.Value()
	for _, t := range []time.Time{from, until} {
		if !t.Equal(t.Truncate(time.Second)) || t.UTC().Year() > 9999 {
			complain("time window: %v is no time in whole seconds", t)
		}
	}
	if hasFrom && hasUntil && !from.Before(until) {
		complain("time window: it is over before it begins")
	}
	if n, only := p.Releases.Value(); only && n < 1 {
		complain("releases: %d allows none: revoke the image instead", n)
	}
	if list, only := p.Networks.Value(); only {
		if len(list) == 0 || len(list) > maxListed {
			complain("networks: %d of them, want 1 to %d or %q", len(list), maxListed, anyWord)
		}
		for i, n := range list {
			if !n.IsValid() || n != n.Masked() || n.Addr().Is4In6() || slices.Contains(list[:i], n) {
				complain("networks: %v is no network of the form 192.0.2.0/24 or 2001:db8::/32, or is there twice", n)
			}
		}
	}
	return complaints
}

func (p SEVPolicy) validate() (complaints []error) {
	for _, need := range mandatory {
		if p.Guest&need.bit == 0 {
			complaints = append(complaints, fmt.Errorf("%w: %s", ErrPolicy, need.why))
		}
	}
	if known := sev.NoDebug | sev.NoKeySharing | sev.ES | sev.NoSend | sev.Domain | sev.SEV; p.Guest&^known != 0 {
		complaints = append(complaints, fmt.Errorf("%w: it has unknown bits", ErrPolicy))
	}
	if !p.MinAPI.said {
		complaints = append(complaints, fmt.Errorf("%w: min_api is missing: %q stands for no restriction", ErrNotSaid, anyWord))
	}
	return complaints
}

// Session is the guest policy of the image's sessions: with the minimum API in its upper half (AMD SEV API 55766, guest
// policy structure).
func (p SEVPolicy) Session() sev.Policy {
	api, _ := p.MinAPI.Value()
	return p.Guest.WithMinAPI(api.Major, api.Minor)
}

// Mode is the kind of digest that a guest under this policy has.
func (p SEVPolicy) Mode() measure.Mode { return modeOf(p.Guest) }

func modeOf(guest sev.Policy) measure.Mode {
	if guest.Has(sev.ES) {
		return measure.SEVES
	}
	return measure.SEV
}

// allows says whether a platform's firmware is new enough.
func (p SEVPolicy) allows(api sev.API) bool {
	oldest, only := p.MinAPI.Value()
	number := func(a sev.API) int { return int(a.Major)<<16 | int(a.Minor)<<8 | int(a.Build) }
	return p.MinAPI.said && (!only || number(api) >= number(oldest))
}

// Modes are the kinds of digests that the record must have: at least one digest for each way in.
func (p Policy) Modes() [][]measure.Mode {
	var ways [][]measure.Mode
	if p.SEV != nil {
		ways = append(ways, []measure.Mode{p.SEV.Mode()})
	}
	if p.SNP != nil {
		ways = append(ways, []measure.Mode{measure.SNP, measure.SNPSVSM})
	}
	return ways
}

// validChip says whether s can name a chip.
func validChip(s string) bool {
	if len(s) != 2*32 && len(s) != 2*64 {
		return false
	}
	b, err := hex.DecodeString(s)
	return err == nil && hex.EncodeToString(b) == s
}
