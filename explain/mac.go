package explain

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"

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

// vary is Vary for an answer, within the budget of a search.
func (a *Answer) vary(m *Measured, known []Known) *Variation {
	found, tried := m.Vary(known, len(known), maxVariations)
	a.Tried.Candidates += int64(tried)
	if len(known) > 0 {
		a.Tried.Variations = max(a.Tried.Variations, tried/len(known))
	}
	return found
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

// variations yields policies and versions: what is claimed first, then by how usual the difference is, policy or version alone before both.
func (m *Measured) variations() iter.Seq[variation] {
	near, others := m.policies()
	return func(yield func(variation) bool) {
		each := func(policies []sev.Policy, apis iter.Seq[sev.API]) bool {
			for api := range apis {
				for _, p := range policies {
					if !yield(variation{p, api}) {
						return false
					}
				}
			}
			return true
		}
		claimed := []sev.Policy{m.Policy}
		if m.API != nil {
			api := slices.Values([]sev.API{*m.API})
			if !each(claimed, api) || !each(near, api) || !each(claimed, newer(*m.API)) || !each(others, api) {
				return
			}
		}
		if m.API != nil && !each(near, newer(*m.API)) || !each(claimed, everyAPI) || m.API != nil && !each(others, newer(*m.API)) {
			return
		}
		each(near, everyAPI)
	}
}

// policies lists others than the claimed one: with one bit changed or no floor for the API, and the rest of those with the same floor or none.
func (m *Measured) policies() (near, others []sev.Policy) {
	seen := map[sev.Policy]bool{m.Policy: true}
	add := func(list *[]sev.Policy, p sev.Policy) {
		if !seen[p] {
			seen[p] = true
			*list = append(*list, p)
		}
	}
	for bit := range 6 {
		add(&near, m.Policy^(1<<bit))
	}
	add(&near, m.Policy&0xffff)
	for bits := range sev.Policy(64) {
		add(&others, m.Policy&^0x3f|bits)
		add(&others, bits)
	}
	return near, others
}

// newer yields the versions around one: its builds, the nearest first, and after 16 of them the minor versions around it.
func newer(api sev.API) iter.Seq[sev.API] {
	return func(yield func(sev.API) bool) {
		for d := 1; d < 256; d++ {
			for _, build := range []int{int(api.Build) - d, int(api.Build) + d} {
				if build >= 0 && build <= 255 && !yield(sev.API{Major: api.Major, Minor: api.Minor, Build: uint8(build)}) {
					return
				}
			}
			if d != 16 {
				continue
			}
			for _, step := range []int{-1, 1, -2, 2, -3, 3} {
				if minor := int(api.Minor) + step; minor >= 0 && minor <= 255 && !yield(sev.API{Major: api.Major, Minor: uint8(minor), Build: api.Build}) {
					return
				}
			}
		}
	}
}

// everyAPI yields the API versions of AMD's SEV firmware, with every build: 1.x, and 0.14 to 0.30 for Naples and Rome's first.
func everyAPI(yield func(sev.API) bool) {
	for v := range 80 + 17 {
		api := sev.API{Major: 1, Minor: uint8(v)}
		if v >= 80 {
			api = sev.API{Minor: uint8(14 + v - 80)}
		}
		for build := range 256 {
			api.Build = uint8(build)
			if !yield(api) {
				return
			}
		}
	}
}

// varyFirmware looks for a measurement among the likeliest launches of the firmware files, under other policies and API
// versions: those of SEV with the hashes table as given and without, and of SEV-ES as the record launches.
func (q Query) varyFirmware(a *Answer, x axes, list []setup) {
	counts := map[uint32]map[int]bool{} // of the record's vCPUs, by their signature
	for _, d := range q.Record.Digests {
		if sig := signatureOf(d.Launch); d.Mode == measure.SEVES && sig != 0 {
			if counts[sig] == nil {
				counts[sig] = map[int]bool{}
			}
			counts[sig][d.VCPUs] = true
		}
	}
	var known []Known
	var hits []hit
	for i, s := range list {
		if !s.hashes.plain || s.spec.Mode == measure.SEVES && counts[s.spec.VCPUSignature] == nil {
			continue
		}
		f, err := x.sources[s.source].series()
		if err != nil {
			continue
		}
		f.Each(s.spec, s.hashes.table, func(vcpus int, digest []byte) {
			if s.spec.Mode == measure.SEV || counts[s.spec.VCPUSignature][vcpus] {
				known = append(known, Known{Digest: sev.Digest(digest), Mode: s.spec.Mode})
				hits = append(hits, hit{i, vcpus, bytes.Clone(digest)})
			}
		})
	}
	found := a.vary(q.Measured, known)
	if found == nil {
		return
	}
	h := hits[found.Known]
	a.Explained, a.Fit = true, q.fit(x, list[h.setup], h)
	a.Differences, _ = q.nearest(a.Fit)
	a.varied(q.Measured, found, a.Fit.Mode)
}
