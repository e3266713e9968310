package measure

import (
	"fmt"
	"strings"
)

// Bits of SEV_FEATURES in the VMSA (AMD64 APM volume 2, table B-4; Linux arch/x86/include/asm/svm.h, SVM_SEV_FEAT_*).
const (
	featureSNPActive uint64 = 1 << 0
	featureDebugSwap uint64 = 1 << 5
)

// Profile is a kind of Linux host under QEMU, as far as the digest can tell it: in what state it hands the vCPUs
// over. It has no meaning for mode SEV, which measures no vCPU, nor for EC2 and GCE.
//
// Sources: Linux arch/x86/kvm/svm/sev.c, sev_es_sync_vmsa. Commit d1f85fbe836e (6.6) sets DebugSwap wherever the processor has
// it; 5abf6dceb066 (6.9) no longer does by itself. Since 6.10 the floating-point state is written to the VMSA, but only for
// machines made by KVM_SEV_INIT2: those of KVM_SEV_ES_INIT keep the old digest. QEMU uses KVM_SEV_INIT2 for SNP always,
// for SEV-ES since 9.1 as its sev-guest property legacy-vm-type says (machine types up to 9.0 set it to on).
type Profile struct {
	Name        string `json:"name"`
	Description string `json:"description"`

	DebugSwap     bool `json:"debug_swap"`      // the host sets this feature for SEV-ES and SNP
	OldHostKernel bool `json:"old_host_kernel"` // mxcsr and x87_fcw are zero
}

var profiles = []Profile{
	{Name: "linux-6.10", Description: "Linux 6.10 and later with KVM_SEV_INIT2: SNP, and SEV-ES from QEMU 9.1 with legacy-vm-type=off"},
	{Name: "before-6.10", OldHostKernel: true,
		Description: "Linux before 6.10 without DebugSwap; later ones too, for SEV-ES with QEMU before 9.1 or legacy-vm-type=on: mxcsr and x87_fcw are zero"},
	{Name: "linux-6.6", OldHostKernel: true, DebugSwap: true,
		Description: "Linux 6.6 to 6.8 on a processor with DebugSwap, which they turn on: features 0x20 (SEV-ES), 0x21 (SNP); mxcsr and x87_fcw are zero"},
	{Name: "debug-swap", DebugSwap: true,
		Description: "Linux 6.10 and later where the hypervisor asks for DebugSwap: features 0x20 (SEV-ES), 0x21 (SNP)"},
}

// Profiles lists the host profiles that are known, the present one first.
func Profiles() []Profile { return append([]Profile(nil), profiles...) }

// FindProfiles gives the profiles of the comma-separated names, in Profiles' order; "all" is all of them.
func FindProfiles(names string) ([]Profile, error) {
	if names == "all" {
		return Profiles(), nil
	}
	wanted := map[string]bool{}
	for name := range strings.SplitSeq(names, ",") {
		if wanted[name] {
			return nil, fmt.Errorf("%w: profile %q is named twice", ErrSpec, name)
		}
		wanted[name] = true
	}
	var found []Profile
	for _, p := range profiles {
		if wanted[p.Name] {
			found = append(found, p)
			delete(wanted, p.Name)
		}
	}
	for name := range strings.SplitSeq(names, ",") {
		if wanted[name] {
			return nil, fmt.Errorf("%w: unknown host profile %q", ErrSpec, name)
		}
	}
	return found, nil
}

// profileNamed finds one profile.
func profileNamed(name string) (Profile, bool) {
	for _, p := range profiles {
		if p.Name == name {
			return p, true
		}
	}
	return Profile{}, false
}

// Apply describes the launch on such a host. Features that s asks for beside DebugSwap stay.
func (p Profile) Apply(s Spec) Spec {
	if s.Mode == SEV || s.vmm() != QEMU {
		return s
	}
	s.OldHostKernel = p.OldHostKernel
	s.GuestFeatures &^= featureDebugSwap
	if p.DebugSwap {
		s.GuestFeatures |= featureDebugSwap
	}
	switch s.Mode {
	case SEVES:
		s.GuestFeatures &^= featureSNPActive
	case SNP, SNPSVSM:
		s.GuestFeatures |= featureSNPActive
	}
	return s
}
