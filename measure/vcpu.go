package measure

import (
	"fmt"
	"slices"
	"sync"
)

// Signature composes CPUID Fn0000_0001_EAX from family, model and stepping (AMD, CPUID Specification 25481).
func Signature(family, model, stepping uint8) uint32 {
	low, high := uint32(family), uint32(0)
	if family > 0xf {
		low, high = 0xf, uint32(family-0xf)
	}
	return high<<20 | uint32(model>>4)<<16 | low<<8 | uint32(model&0xf)<<4 | uint32(stepping&0xf)
}

// vcpuTypes are the AMD server models of QEMU's builtin_x86_defs (target/i386/cpu.c) with
// the number of their versions; EPYC-v2 and EPYC are the same processor to CPUID.
var vcpuTypes = []struct {
	name      string
	versions  int
	signature uint32
}{
	{"EPYC", 5, Signature(23, 1, 2)},
	{"EPYC-Rome", 5, Signature(23, 49, 0)},
	{"EPYC-Milan", 3, Signature(25, 1, 1)},
	{"EPYC-Genoa", 2, Signature(25, 17, 0)},
	{"EPYC-Turin", 1, Signature(26, 0, 0)},
}

var vcpuSignatures = sync.OnceValue(func() map[string]uint32 {
	m := map[string]uint32{"EPYC-IBPB": Signature(23, 1, 2)} // QEMU's old name for EPYC-v2
	for _, t := range vcpuTypes {
		m[t.name] = t.signature
		for v := range t.versions {
			m[fmt.Sprintf("%s-v%d", t.name, v+1)] = t.signature
		}
	}
	return m
})

// VCPUTypes lists the CPU models that Digest knows.
func VCPUTypes() []string {
	names := make([]string, 0, len(vcpuSignatures()))
	for name := range vcpuSignatures() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// VCPUSignature gives the signature of one of QEMU's CPU models.
func VCPUSignature(vcpuType string) (uint32, bool) {
	sig, ok := vcpuSignatures()[vcpuType]
	return sig, ok
}

// signature is what the vCPUs' rdx holds: under QEMU the CPU's own, elsewhere a constant.
func (s Spec) signature() (uint32, error) {
	if s.vmm() != QEMU {
		return otherVMMsRDX, nil
	}
	if s.VCPUType == "" {
		if s.VCPUSignature == 0 {
			return 0, fmt.Errorf("%w: mode %s needs the vCPU's type or signature", ErrSpec, s.Mode)
		}
		return s.VCPUSignature, nil
	}
	sig, ok := VCPUSignature(s.VCPUType)
	if !ok {
		return 0, fmt.Errorf("%w: unknown vCPU type %q", ErrSpec, s.VCPUType)
	}
	if s.VCPUSignature != 0 && s.VCPUSignature != sig {
		return 0, fmt.Errorf("%w: vCPU type %s has signature %#x, not %#x", ErrSpec, s.VCPUType, sig, s.VCPUSignature)
	}
	return sig, nil
}
