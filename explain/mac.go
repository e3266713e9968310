package explain

import (
	"errors"
	"fmt"

	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// Measured is a SEV launch measurement with what its MAC covers beside the digest, as far as that is known.
type Measured struct {
	Measurement sev.Measurement
	TIK         sev.TIK
	Policy      sev.Policy // as the session has it
	API         *sev.API   // as the host claims it; nil: not known
}

// Known is a digest that a machine may have had.
type Known struct {
	Digest sev.Digest
	Mode   measure.Mode
	About  string
}

// KnownOf takes a digest out of a record, if it is one that a measurement can hide.
func KnownOf(d measure.LaunchDigest) (Known, bool) {
	if len(d.Digest) != len(sev.Digest{}) {
		return Known{}, false
	}
	return Known{Digest: sev.Digest(d.Digest), Mode: d.Mode, About: About(d.Launch)}, true
}

// About says a launch in one phrase.
func About(l measure.Launch) string {
	text := "mode " + string(l.Mode)
	if l.VCPUs > 0 {
		text += fmt.Sprintf(", %d vCPUs", l.VCPUs)
	}
	switch {
	case l.VCPUType != "":
		text += " of type " + l.VCPUType
	case l.VCPUSignature != 0:
		text += fmt.Sprintf(" of signature %#x", l.VCPUSignature)
	case l.VMM != "":
		text += " on " + string(l.VMM)
	}
	if l.GuestFeatures != 0 || l.Mode == measure.SNP {
		text += ", guest features " + featuresText(l.GuestFeatures)
	}
	if l.OldHostKernel {
		text += ", host " + hostKernel(true)
	}
	if len(l.KernelHashes) > 0 {
		text += ", with kernel hashes"
	}
	return text
}

// Variation is what a measurement turned out to cover.
type Variation struct {
	Known  int // index
	Policy sev.Policy
	API    sev.API
}

// Differences says in what it is not as it was claimed.
func (v *Variation) Differences(m *Measured) (list []Difference) {
	if v.Policy != m.Policy {
		list = append(list, Difference{What: "policy", Expected: m.Policy.String(), Found: v.Policy.String()})
	}
	if m.API != nil && *m.API != v.API {
		list = append(list, Difference{What: "firmware API", Expected: m.API.String(), Found: v.API.String()})
	}
	return list
}

const maxVariations = 1 << 20 // MACs: about a second

// Vary looks for the digest, policy and API version that a measurement's MAC fits, in the order of what differs: every digest
// as claimed, then the first own ones under other policies and versions. It computes at most budget MACs, and tells how many.
func (m *Measured) Vary(known []Known, own, budget int) (*Variation, int) {
	tried := 0
	keys := &sev.Session{TIK: m.TIK}
	defer keys.Wipe()
	try := func(n int, v variation) *Variation {
		keys.Policy = v.policy
		for i, k := range known[:n] {
			if tried >= budget {
				return nil
			}
			tried++
			if m.fits(keys, v.api, k.Digest) {
				return &Variation{Known: i, Policy: v.policy, API: v.api}
			}
		}
		return nil
	}
	n := len(known)
	for v := range m.variations() {
		if found := try(n, v); found != nil || tried >= budget {
			return found, tried
		}
		n = min(own, len(known))
	}
	return nil, tried
}

// fits says whether the measurement is of that digest. Whether the policy allows the version is not asked here.
func (m *Measured) fits(keys *sev.Session, api sev.API, digest sev.Digest) bool {
	err := keys.VerifyMeasurement(m.Measurement, api, digest)
	return err == nil || errors.Is(err, sev.ErrAPI)
}

func (m *Measured) mode() measure.Mode {
	if m.Policy.Has(sev.ES) {
		return measure.SEVES
	}
	return measure.SEV
}

type variation struct {
	policy sev.Policy
	api    sev.API
}

// variations yields policies and versions, what is claimed first, then by how usual the difference is.
func (m *Measured) variations() func(func(variation) bool) {
	var claims []sev.API
	if m.API != nil {
		claims = []sev.API{*m.API}
	}
	low := m.Policy & 0xffff
	policies := []sev.Policy{}
	for bit := range 6 {
		policies = append(policies, m.Policy^(1<<bit))
	}
	policies = append(policies, low)
	for other := range sev.Policy(64) {
		policies = append(policies, m.Policy&^0x3f|other, other)
	}
	return func(yield func(variation) bool) {
		for _, api := range claims {
			if !yield(variation{m.Policy, api}) {
				return
			}
			for _, p := range policies[:7] {
				if !yield(variation{p, api}) {
					return
				}
			}
			for d := 1; d < 256; d++ { // the next builds are the likeliest
				for _, build := range []int{int(api.Build) - d, int(api.Build) + d} {
					if build >= 0 && build <= 255 && !yield(variation{m.Policy, sev.API{Major: api.Major, Minor: api.Minor, Build: uint8(build)}}) {
						return
					}
				}
				if d == 16 {
					for _, step := range []int{-1, 1, -2, 2, -3, 3} {
						if minor := int(api.Minor) + step; minor >= 0 && minor <= 255 && !yield(variation{m.Policy, sev.API{Major: api.Major, Minor: uint8(minor), Build: api.Build}}) {
							return
						}
					}
				}
			}
			for _, p := range policies[7:] {
				if !yield(variation{p, api}) {
					return
				}
			}
		}
		for _, v := range versions { // and every other version that there is, with the policy as it is
			for build := range 256 {
				if !yield(variation{m.Policy, sev.API{Major: v[0], Minor: v[1], Build: uint8(build)}}) {
					return
				}
			}
		}
	}
}

// versions are the API versions of AMD's SEV firmware: 0.14 to 0.24 on Naples and Rome's first, 1.x since.
var versions = func() (list [][2]uint8) {
	for minor := range uint8(80) {
		list = append(list, [2]uint8{1, minor})
	}
	for minor := uint8(14); minor <= 30; minor++ {
		list = append(list, [2]uint8{0, minor})
	}
	return list
}()
