package measure

import (
	"encoding/binary"
	"fmt"

	"github.com/sealboot/sealboot/ovmf"
)

const (
	vmsaSize     = 4096
	bspEIP       = 0xfffffff0 // x86 reset vector, where the first vCPU starts
	otherVMMsRDX = 0x600      // rdx at reset by the architecture; EC2 and GCE leave it, QEMU puts the CPU's signature
)

// Offsets in the VMSA (AMD64 APM volume 2, table B-4).
const (
	vmsaES, vmsaCS, vmsaSS, vmsaDS, vmsaFS, vmsaGS          = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50
	vmsaGDTR, vmsaLDTR, vmsaIDTR, vmsaTR                    = 0x60, 0x70, 0x80, 0x90
	vmsaEFER, vmsaCR4, vmsaCR0, vmsaDR7, vmsaDR6            = 0xd0, 0x148, 0x158, 0x160, 0x168
	vmsaRFLAGS, vmsaRIP, vmsaGPAT, vmsaRDX                  = 0x170, 0x178, 0x268, 0x310
	vmsaSEVFeatures, vmsaXCR0, vmsaMXCSR, vmsaX87FCW        = 0x3b0, 0x3e8, 0x408, 0x410
	patReset                                         uint64 = 0x0007040600070406 // PAT MSR at reset (AMD64 APM volume 2)
	patGCE                                           uint64 = 0x00070106
)

// vmsaSet is the state in which the vCPUs of one launch start.
type vmsaSet struct{ first, other []byte }

func (v *vmsaSet) of(vcpu int) []byte {
	if vcpu == 0 {
		return v.first
	}
	return v.other
}

func (s Spec) vmsaPages(img *ovmf.Image, features uint64) (*vmsaSet, error) {
	rdx, err := s.signature()
	if err != nil {
		return nil, err
	}
	set := &vmsaSet{first: s.vmsa(bspEIP, rdx, features)}
	if s.VCPUs > 1 {
		eip, ok := img.ResetEIP()
		if !ok || eip == 0 {
			return nil, fmt.Errorf("%w: %d vCPUs asked for", ErrNoResetVector, s.VCPUs)
		}
		set.other = s.vmsa(eip, rdx, features)
	}
	return set, nil
}

// vmsa is the save area of a vCPU at its start: the architecture's reset state, with what the
// hypervisor changes in it.
func (s Spec) vmsa(eip, rdx uint32, features uint64) []byte {
	p := make([]byte, vmsaSize)
	u16 := func(at int, v uint16) { binary.LittleEndian.PutUint16(p[at:], v) }
	u32 := func(at int, v uint32) { binary.LittleEndian.PutUint32(p[at:], v) }
	u64 := func(at int, v uint64) { binary.LittleEndian.PutUint64(p[at:], v) }
	segment := func(at int, selector, attributes uint16, base uint64) {
		u16(at, selector)
		u16(at+2, attributes)
		u32(at+4, 0xffff)
		u64(at+8, base)
	}

	csAttributes, ssAttributes, trAttributes := uint16(0x9b), uint16(0x93), uint16(0x8b)
	pat, mxcsr, fcw := patReset, uint32(0x1f80), uint16(0x37f)
	if s.OldHostKernel {
		mxcsr, fcw = 0, 0
	}
	switch s.vmm() {
	case EC2: // the descriptors' "accessed" bits are not set yet
		if eip == bspEIP {
			csAttributes = 0x9a
		}
		ssAttributes, trAttributes = 0x92, 0x83
		mxcsr, fcw = 0, 0
	case GCE:
		pat = patGCE
		mxcsr, fcw = 0, 0
	}

	segment(vmsaES, 0, 0x93, 0)
	segment(vmsaCS, 0xf000, csAttributes, uint64(eip&0xffff0000))
	segment(vmsaSS, 0, ssAttributes, 0)
	segment(vmsaDS, 0, 0x93, 0)
	segment(vmsaFS, 0, 0x93, 0)
	segment(vmsaGS, 0, 0x93, 0)
	segment(vmsaGDTR, 0, 0, 0)
	segment(vmsaLDTR, 0, 0x82, 0)
	segment(vmsaIDTR, 0, 0, 0)
	segment(vmsaTR, 0, trAttributes, 0)
	u64(vmsaEFER, 0x1000) // SVME, set by KVM
	u64(vmsaCR4, 0x40)    // MCE, set by KVM
	u64(vmsaCR0, 0x10)
	u64(vmsaDR7, 0x400)
	u64(vmsaDR6, 0xffff0ff0)
	u64(vmsaRFLAGS, 0x2)
	u64(vmsaRIP, uint64(eip&0xffff))
	u64(vmsaGPAT, pat)
	u64(vmsaRDX, uint64(rdx))
	u64(vmsaSEVFeatures, features)
	u64(vmsaXCR0, 0x1)
	u32(vmsaMXCSR, mxcsr)
	u16(vmsaX87FCW, fcw)
	return p
}

// VMSAs gives the page in which the launch's vCPU number i starts, for i from 0.
func VMSAs(s Spec) (func(vcpu int) []byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if !s.Mode.MeasuresVCPUs() {
		return nil, fmt.Errorf("%w: mode %s measures no vCPU", ErrSpec, s.Mode)
	}
	if s.Mode == SNPSVSM {
		v, err := s.newSVSM()
		if err != nil {
			return nil, err
		}
		rdx, err := s.signature()
		if err != nil {
			return nil, err
		}
		page := s.svsmVMSA(v.start, rdx)
		return func(int) []byte { return page }, nil
	}
	img, err := ovmf.Parse(s.Firmware)
	if err != nil {
		return nil, fmt.Errorf("read firmware: %w", err)
	}
	set, err := s.vmsaPages(img, s.GuestFeatures)
	if err != nil {
		return nil, err
	}
	return set.of, nil
}
