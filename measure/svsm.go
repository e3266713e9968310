package measure

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"fmt"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/ovmf"
)

// svsmInfoGUID is the entry of the module's table that says where its vCPUs start: u32 offset from its beginning
// (coconut-svsm/qemu target/i386/sev.c, SEV_SNP_SVSM_INFO; virtee/sev-snp-measure, sevsnpmeasure/ovmf.py).
var svsmInfoGUID = guid.MustParse("a789a612-0597-4c4b-a49f-cbb1fe9d1ddd")

// svsmLaunch is an SNP launch with Coconut-SVSM as its QEMU of 2023 did it: firmware, variables and SVSM in flash. Since then QEMU starts
// it from an IGVM file (coconut-svsm/qemu pull request 15; QEMU 10.1), which says itself what is measured. Here is the
// digest before any vCPU, and the one state in which all of them start.
type svsmLaunch struct {
	image    []byte
	varsSize int64
	before   launch
	base     uint64
	start    uint32
}

func (s Spec) newSVSM() (*svsmLaunch, error) {
	f, err := NewSeries(s.Firmware)
	if err != nil {
		return nil, err
	}
	return f.newSVSM(s.SVSM, s.VarsSize)
}

// newSVSM measures all but the vCPUs: the firmware, which is not asked for memory to prepare, then the module
// right below the firmware's variables, then what the module asks for.
func (f *Series) newSVSM(image []byte, varsSize int64) (*svsmLaunch, error) {
	module, err := ovmf.ParseModule(image)
	if err != nil {
		return nil, fmt.Errorf("read SVSM: %w", err)
	}
	firmware := f.snp()
	if firmware == nil || len(image)%pageSize != 0 {
		return nil, fmt.Errorf("%w: firmware of %d bytes or SVSM of %d is not whole pages", ErrSpec, len(f.img.Bytes()), len(image))
	}
	below := int64(f.img.Base()) - varsSize - int64(len(image))
	if varsSize < 0 || below < 0 {
		return nil, fmt.Errorf("%w: no room for an SVSM of %d bytes and variables of %d below the firmware", ErrSpec, len(image), varsSize)
	}
	v := &svsmLaunch{image: image, varsSize: varsSize, before: *firmware, base: uint64(below)}
	var offset []byte
	for _, e := range module.Entries() {
		if e.GUID == svsmInfoGUID {
			offset = e.Data
		}
	}
	if len(offset) < 4 {
		return nil, fmt.Errorf("%w: the SVSM's table does not say where it starts", ErrNoResetVector)
	}
	at := binary.LittleEndian.Uint32(offset)
	if int64(at) >= int64(len(image)) {
		return nil, fmt.Errorf("%w: the SVSM starts at %#x, behind its end", ErrNoResetVector, at)
	}
	v.start = uint32(v.base) + at // below 4 GiB, where the firmware ends

	v.before.data(pageNormal, v.base, image)
	plain := Spec{Mode: SNP} // QEMU, no kernel
	if err := plain.snpMetadata(&v.before, module); err != nil {
		return nil, fmt.Errorf("SVSM: %w", err)
	}
	return v, nil
}

func (v *svsmLaunch) each(s Spec, each func(vcpus int, digest []byte)) error {
	rdx, err := s.signature()
	if err != nil {
		return err
	}
	l, contents := v.before, sha512.Sum384(s.svsmVMSA(v.start, rdx))
	for i := range s.VCPUs {
		l.update(pageVMSA, vmsaGPA, contents)
		each(i+1, l.ld[:])
	}
	return nil
}

func (s Spec) svsmDigest() ([]byte, error) {
	v, err := s.newSVSM()
	if err != nil {
		return nil, err
	}
	var last []byte
	err = v.each(s, func(_ int, digest []byte) { last = bytes.Clone(digest) })
	return last, err
}

func svsmSet(base Spec, vcpus []int, profiles []Profile) ([]LaunchDigest, error) {
	v, err := base.newSVSM()
	if err != nil {
		return nil, err
	}
	return base.eachProfile(vcpus, profiles, nil, v.each)
}

// svsmVMSA is the state in which QEMU starts every vCPU for an SVSM: flat 32-bit protected mode.
func (s Spec) svsmVMSA(eip, rdx uint32) []byte {
	p := s.vmsa(bspEIP, rdx, s.GuestFeatures)
	flat := func(at int, selector, attributes uint16) {
		binary.LittleEndian.PutUint16(p[at:], selector)
		binary.LittleEndian.PutUint16(p[at+2:], attributes)
		binary.LittleEndian.PutUint32(p[at+4:], 0xffffffff)
		binary.LittleEndian.PutUint64(p[at+8:], 0)
	}
	for _, at := range []int{vmsaES, vmsaSS, vmsaDS, vmsaFS} {
		flat(at, 16, 0xc93)
	}
	flat(vmsaCS, 8, 0xc9b)
	binary.LittleEndian.PutUint64(p[vmsaCR0:], 0x11) // protected mode
	binary.LittleEndian.PutUint64(p[vmsaRIP:], uint64(eip))
	if s.X87Unset {
		binary.LittleEndian.PutUint16(p[vmsaX87FCW:], 0)
	}
	return p
}
