package measure

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
)

// DigestSet computes the digests of one launch with each of the numbers of vCPUs on each of the host profiles: all that
// a key server should accept where the host may choose among them. The firmware is hashed once. No profiles
// leaves the vCPUs as base says. Where a profile makes no difference (mode SEV, EC2, GCE), profiles are refused for EC2 and GCE
// and SEV has its one digest. The set is in the order of the profiles, then of vCPUs, and names the profile of each.
func DigestSet(base Spec, vcpus []int, profiles []Profile) ([]LaunchDigest, error) {
	if base.Mode == SEV {
		digest, err := Digest(base)
		if err != nil {
			return nil, err
		}
		return []LaunchDigest{{Launch: base.Launch(), Digest: digest}}, nil
	}
	switch {
	case base.Mode == SNPOVMFHash || base.OVMFHash != nil:
		return nil, fmt.Errorf("%w: a set is of whole launches", ErrSpec)
	case len(vcpus) == 0:
		return nil, fmt.Errorf("%w: no number of vCPUs", ErrSpec)
	case len(profiles) > 0 && base.vmm() != QEMU:
		return nil, fmt.Errorf("%w: host profiles are of Linux with QEMU, not of %s", ErrSpec, base.vmm())
	}
	base.VCPUs = slices.Max(vcpus)
	for _, n := range vcpus {
		if n < 1 {
			return nil, fmt.Errorf("%w: %d vCPUs", ErrSpec, n)
		}
	}
	if err := base.Validate(); err != nil {
		return nil, err
	}
	if base.Mode == SNPSVSM {
		return svsmSet(base, vcpus, profiles)
	}
	series, err := NewSeries(base.Firmware)
	if err != nil {
		return nil, err
	}
	if eip, ok := series.img.ResetEIP(); base.VCPUs > 1 && (!ok || eip == 0) {
		return nil, fmt.Errorf("%w: %d vCPUs asked for", ErrNoResetVector, base.VCPUs)
	}
	var table []byte
	if base.HashKernel {
		table = base.hashesTable()
	}
	return base.eachProfile(vcpus, profiles, table, func(s Spec, each func(int, []byte)) error {
		return series.Each(s, table, each)
	})
}

// eachProfile collects what compute gives for each profile.
func (s Spec) eachProfile(vcpus []int, profiles []Profile, table []byte, compute func(Spec, func(int, []byte)) error) ([]LaunchDigest, error) {
	var sum Hex
	if table != nil {
		hash := sha256.Sum256(table)
		sum = hash[:]
	}
	if len(profiles) == 0 {
		profiles = []Profile{{}}
	}
	wanted := make([]bool, s.VCPUs+1)
	for _, n := range vcpus {
		wanted[n] = true
	}
	var set []LaunchDigest
	for _, p := range profiles {
		one := s
		if p.Name != "" {
			one = p.Apply(s)
		}
		facts := one
		facts.HashKernel = false // its sum is known
		err := compute(one, func(n int, digest []byte) {
			if !wanted[n] {
				return
			}
			facts.VCPUs = n
			l := facts.Launch()
			l.KernelHashes = sum
			set = append(set, LaunchDigest{Launch: l, Profile: p.Name, Digest: bytes.Clone(digest)})
		})
		if err != nil {
			return nil, err
		}
	}
	return set, nil
}

// AddSet adds the digests of a set, as DigestSet made them of the firmware, which must be the record's. A digest for the
// same way to launch is replaced.
func (r *Record) AddSet(firmware []byte, set []LaunchDigest) error {
	if err := r.isFor(firmware); err != nil {
		return err
	}
	at := map[string]int{}
	for i, d := range r.Digests {
		at[d.key()] = i
	}
	for _, d := range set {
		if err := d.validate(); err != nil {
			return fmt.Errorf("%w: digest of mode %s: %w", ErrRecord, d.Mode, err)
		}
		i, known := at[d.key()]
		if !known {
			at[d.key()] = len(r.Digests)
			r.Digests = append(r.Digests, d)
			continue
		}
		r.Digests[i] = d
	}
	return nil
}
