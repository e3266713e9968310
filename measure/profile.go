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
// Sources, read in Linux' and QEMU's own histories:
//
//   - DebugSwap (Linux arch/x86/kvm/svm/sev.c): d1f85fbe836e (6.6) sets it wherever the processor has it; 5abf6dceb066, the last pull before
//     6.8, and in 6.6.24 and 6.7.12, no longer does; from 4f5defae7089 and 4dd5ecacb9a4 (6.10) on KVM_SEV_INIT2 sets it if asked to. So no
//     release of 6.8 has it: "6.6 to 6.8" are hosts for SEV-SNP, which Linux itself could not run before 6.11, made from 6.8's beginnings.
//   - mxcsr and x87_fcw (sev_es_sync_vmsa): since eb4441864e03 and 26c44aa9e076 (6.10) the floating-point state is written to the
//     VMSA, but only where the machine's type is not KVM_X86_DEFAULT_VM: machines of KVM_SEV_ES_INIT keep the old digest.
//   - QEMU target/i386/sev.c, sev_kvm_type: SEV-SNP always takes KVM_SEV_INIT2. For SEV-ES there is legacy-vm-type since 9.1: "auto", the
//     default of new machine types (whatever its documentation says), takes KVM_SEV_ES_INIT as "on" does, unless another option needs the
//     new call; machine types up to 9.0 set "on" (hw/i386/pc.c, pc_compat_9_0). Only "off" has the new digest.
type Profile struct {
	Name        string `json:"name"`
	Description string `json:"description"`

	DebugSwap     bool `json:"debug_swap"`      // the host sets this feature for SEV-ES and SNP
	OldHostKernel bool `json:"old_host_kernel"` // mxcsr and x87_fcw are zero
}

var profiles = []Profile{
	{Name: "linux-6.10", Description: "Linux 6.10 and later with KVM_SEV_INIT2: SNP, and SEV-ES where QEMU (9.1 and later) is told legacy-vm-type=off"},
	{Name: "before-6.10", OldHostKernel: true,
		Description: "Linux before 6.10 without DebugSwap; later ones too, for SEV-ES unless QEMU is told legacy-vm-type=off: mxcsr and x87_fcw are zero"},
	{Name: "linux-6.6", OldHostKernel: true, DebugSwap: true,
		Description: "Linux 6.6 to 6.6.23 and 6.7 to 6.7.11, and hosts for SEV-SNP made from 6.8, on a processor with DebugSwap, which they turn on: features 0x20 (SEV-ES), 0x21 (SNP); mxcsr and x87_fcw are zero"},
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
