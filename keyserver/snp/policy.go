package snp

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Policy is what an image asks of an SEV-SNP guest, its platform and the report that speaks for both. Its zero value allows nothing and
// is refused; so is a JSON form that leaves a field out. "any" is always written down.
type Policy struct {
	Guest       GuestPolicy
	Platform    Platform
	VMPL        []uint8           // privilege levels that the report may come from
	Products    map[Product]Floor // that the guest may run on, each with the oldest firmware that it may have
	Reports     []uint8           // report versions
	Signers     []Signer          // kinds of keys that may have signed
	Revocation  Revocation
	MinGuestSVN uint32 // GUEST_SVN of the ID block, at least

	IDKeys     Allowed[KeyDigest] // who signed the guest's ID block
	AuthorKeys Allowed[KeyDigest] // who signed that ID key
	Chips      Allowed[ChipID]
	FamilyID   Allowed[GuestID]
	ImageID    Allowed[GuestID]
	HostData   Allowed[HostData]
}

// GuestPolicy judges the guest policy that the guest was launched under (publication 56860, "Guest policy"), which the platform's
// firmware enforces. There is no way to allow debugging: a host reads a debug guest's memory. Bits that are not known are refused.
type GuestPolicy struct {
	MinABI ABI // the guest policy must ask for at least this

	AllowSMT            bool // a second thread of the core may watch the guest's caches
	AllowMigrationAgent bool // another guest may be given this one's state
	AllowCXL            bool // memory behind CXL

	RequireSingleSocket     bool
	RequireAES256XTS        bool // memory encryption by AES-256-XTS, not AES-128-XEX
	RequireRAPLDisabled     bool // no power readings, from which keys were guessed
	RequireCipherTextHiding bool // the host cannot read ciphertext
	RequirePageSwapDisabled bool // the host cannot move the guest's pages
}

// Platform judges PLATFORM_INFO, where the guest policy has no bit for it.
type Platform struct {
	RequireECC        bool
	RequireAliasCheck bool   // memory modules were checked for aliases (AMD-SB-3015, "BadRAM")
	AllowTIO          bool   // trusted devices (SEV-TIO)
	Mitigations       uint64 // bits that the mitigation vectors must have, at launch and now; not 0: reports of version 5 only
}

// Floor is the oldest firmware of a product that is taken. Every TCB of the report is held against it, part by part: the reported one,
// for the VCEK is derived from it, so that older firmware cannot forge it; the launch's, for older firmware may have let a
// wrong digest in; the committed one, for a host can go back to it under the running guest; and the current one. The version is held
// against the current and the committed firmware alike.
type Floor struct {
	TCB      TCB // parts that the product does not have must be 0
	Firmware Firmware
}

// Signer is a kind of key that signs reports.
type Signer string

// The signers.
const (
	VCEK Signer = "vcek" // the chip's own key, for one TCB
	VLEK Signer = "vlek" // a cloud's key, loaded into its chips
)

// Revocation says whether AMD's list of revoked certificates is needed, and how old it may be.
type Revocation struct {
	Required bool
	MaxAge   time.Duration // since the list was made; a list whose next one is due is never taken
}

// ErrPolicy says that a policy would let a secret out to somebody, or says something that cannot be.
var ErrPolicy = errors.New("policy is too weak")

// reportVersions that are known: 2 (ABI 1.51), 3 (1.56: family, model, stepping), 5 (1.58: mitigation vectors).
var reportVersions = []uint8{2, 3, 5}

// maxAge is the most that a list of revocations may be allowed to be old.
const maxAge = 365 * 24 * time.Hour

// DefaultPolicy takes guests at VMPL 0 that cannot be debugged or migrated, on any chip of any product, by a VCEK, with AMD's
// revocations known: until the next list is due, and a year at most, for AMD alone decides how often it makes one. Its floors are 0:
// AMD raises them with its security bulletins, the owner follows.
func DefaultPolicy() Policy {
	return Policy{
		Guest:      GuestPolicy{AllowSMT: true},
		VMPL:       []uint8{0},
		Products:   map[Product]Floor{Milan: {}, Genoa: {}, Turin: {}},
		Reports:    slices.Clone(reportVersions),
		Signers:    []Signer{VCEK},
		Revocation: Revocation{Required: true, MaxAge: maxAge},
		IDKeys:     AnyOf[KeyDigest](),
		AuthorKeys: AnyOf[KeyDigest](),
		Chips:      AnyOf[ChipID](),
		FamilyID:   AnyOf[GuestID](),
		ImageID:    AnyOf[GuestID](),
		HostData:   AnyOf[HostData](),
	}
}

// Validate gives every complaint at once.
func (p Policy) Validate() error {
	var complaints []error
	complain := func(format string, args ...any) {
		complaints = append(complaints, fmt.Errorf("%w: "+format, append([]any{ErrPolicy}, args...)...))
	}
	if len(p.VMPL) == 0 {
		complain("vmpl: none is allowed")
	}
	for i, v := range p.VMPL {
		if v > 3 || slices.Contains(p.VMPL[:i], v) {
			complain("vmpl: %d is none of 0 to 3, or is there twice", v)
		}
	}
	if len(p.Products) == 0 {
		complain("products: none is allowed")
	}
	for _, name := range sortedKeys(p.Products) {
		if _, ok := name.layout(); !ok {
			complain("products: %q is not known, it is %v", clip(string(name)), products)
		} else if name != Turin && p.Products[name].TCB.FMC != 0 {
			complain("products: %s has no FMC level", name)
		}
	}
	if len(p.Reports) == 0 {
		complain("reports: no version is allowed")
	}
	for i, v := range p.Reports {
		if !slices.Contains(reportVersions, v) || slices.Contains(p.Reports[:i], v) {
			complain("reports: version %d is none of %v, or is there twice", v, reportVersions)
		}
	}
	if p.Platform.Mitigations != 0 && (len(p.Reports) != 1 || p.Reports[0] != 5) {
		complain("platform: mitigations are in reports of version 5 alone, so allow no other")
	}
	if len(p.Signers) == 0 {
		complain("signers: none is allowed")
	}
	for i, s := range p.Signers {
		if s != VCEK && s != VLEK || slices.Contains(p.Signers[:i], s) {
			complain("signers: %q is neither %q nor %q, or is there twice", clip(string(s)), VCEK, VLEK)
		}
	}
	switch r := p.Revocation; {
	case r.Required && (r.MaxAge < time.Hour || r.MaxAge > maxAge || r.MaxAge%time.Second != 0):
		complain("revocation: a list's age of up to %v: want whole seconds, from 1h to %v", r.MaxAge, maxAge)
	case !r.Required && r.MaxAge != 0:
		complain("revocation: an age for a list that is not needed")
	}
	for _, err := range []error{
		p.IDKeys.validate("id_keys"), p.AuthorKeys.validate("author_keys"), p.Chips.validate("chips"),
		p.FamilyID.validate("family_id"), p.ImageID.validate("image_id"), p.HostData.validate("host_data"),
	} {
		if err != nil {
			complaints = append(complaints, err)
		}
	}
	return errors.Join(complaints...)
}

func sortedKeys(m map[Product]Floor) []Product {
	keys := make([]Product, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
