package explain

import (
	"fmt"
	"slices"
	"sync"

	"github.com/sealboot/sealboot/measure"
)

// source is what stands below 4 GiB when a machine starts: a firmware, and an SVSM below its variables or none.
type source struct {
	firmware, svsm int // svsm -1: none
	varsSize       int64
	series         func() (*measure.Series, error)
}

// setup is one series of candidates: they differ in the number of vCPUs alone.
type setup struct {
	source int
	hashes *hashesChoice
	spec   measure.Spec
}

// debugSwap is the guest feature that Linux hosts of 6.6 to 6.8 set unasked (see measure.Profile; AMD64 APM volume 2, SEV_FEATURES, bit 5).
const debugSwap = 0x20

// usualVars are the sizes of the variable stores of OVMF's builds of 4 and 2 MiB (edk2 OvmfPkg/Include/Fdf/OvmfPkgDefines.fdf.inc).
var usualVars = []int64{0x84000, 0x20000}

// axes are the values that are searched.
type axes struct {
	modes      []measure.Mode // without an SVSM
	sources    []source
	varsSizes  []int64
	signatures []uint32
	hosts      []uint32 // signatures of -cpu host
	names      map[uint32]string
	common     []uint64 // guest features
	all        []uint64
	es         []uint64 // guest features under SEV-ES
	hashes     []hashesChoice
}

func (q Query) axes() axes {
	x := axes{names: map[uint32]string{}, common: []uint64{1, 1 | debugSwap, 0}, es: []uint64{0, debugSwap}, hashes: q.hashesChoices()}
	if len(q.Digest) == measure.SNP.DigestSize() {
		x.modes = []measure.Mode{measure.SNP}
	} else {
		x.modes = []measure.Mode{measure.SEV, measure.SEVES}
	}
	name := func(sig uint32, name string) {
		have, known := x.names[sig]
		if !known {
			x.signatures = append(x.signatures, sig)
		}
		if !known || have == "" {
			x.names[sig] = name
		}
	}
	for _, d := range q.Record.Digests { // first, so that the record's names are used
		if sig := signatureOf(d.Launch); sig != 0 {
			name(sig, d.VCPUType)
		}
		switch d.Mode {
		case measure.SEVES:
			x.es = append(x.es, d.GuestFeatures, d.GuestFeatures^debugSwap)
		case measure.SNP, measure.SNPSVSM:
			x.common = append(x.common, d.GuestFeatures, d.GuestFeatures^debugSwap)
		}
		if d.VarsSize > 0 {
			x.varsSizes = append(x.varsSizes, d.VarsSize)
		}
	}
	for _, t := range measure.VCPUTypes() {
		sig, _ := measure.VCPUSignature(t)
		name(sig, t)
	}
	for _, sig := range q.Signatures {
		name(sig, "")
	}
	for _, p := range processors {
		if _, known := x.names[p.signature]; !known {
			x.hosts = append(x.hosts, p.signature)
		}
	}
	x.common, x.es = unique(x.common), unique(x.es)
	x.all = x.common
	for bit := range 20 { // SEV_FEATURES that are defined, and some to come
		x.all = append(x.all, 1|1<<bit)
	}
	x.all = unique(x.all)
	x.varsSizes = unique(slices.Concat(x.varsSizes, q.VarsSizes, usualVars))
	x.sources = q.sources(x.varsSizes)
	return x
}

// sources lists what the files at hand can be put together to, those without an SVSM first.
func (q Query) sources(varsSizes []int64) (list []source) {
	for i, f := range q.Firmware {
		list = append(list, source{firmware: i, svsm: -1,
			series: sync.OnceValues(func() (*measure.Series, error) { return measure.NewSeries(f.Data) })})
	}
	if len(q.Digest) != measure.SNPSVSM.DigestSize() {
		return list
	}
	for i := range q.Firmware {
		for j, svsm := range q.SVSM {
			for _, size := range varsSizes {
				list = append(list, source{i, j, size, sync.OnceValues(func() (*measure.Series, error) {
					f, err := list[i].series()
					if err != nil {
						return nil, err
					}
					return f.WithSVSM(svsm.Data, size)
				})})
			}
		}
	}
	return list
}

func unique[T comparable](list []T) []T {
	var out []T
	for _, v := range list {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

func signatureOf(l measure.Launch) uint32 {
	if l.VMM != "" && l.VMM != measure.QEMU {
		return 0
	}
	if sig, ok := measure.VCPUSignature(l.VCPUType); ok {
		return sig
	}
	return l.VCPUSignature
}

// setups lists what is to be searched of one source.
func (x axes) setups(source, vcpus int) (list []setup) {
	if x.sources[source].svsm >= 0 {
		return x.setupsSVSM(source, vcpus)
	}
	for _, mode := range x.modes {
		for i := range x.hashes {
			h := &x.hashes[i]
			add := func(s measure.Spec) {
				s.Mode, s.VCPUs = mode, vcpus
				list = append(list, setup{source, h, s})
			}
			if mode == measure.SEV {
				add(measure.Spec{})
				continue
			}
			features, signatures := x.common, x.signatures
			if h.plain {
				features, signatures = x.all, slices.Concat(x.signatures, x.hosts)
			}
			if mode == measure.SEVES {
				features = x.es
			}
			for _, f := range features {
				for _, old := range []bool{false, true} {
					for _, sig := range signatures {
						add(measure.Spec{VCPUSignature: sig, GuestFeatures: f, OldHostKernel: old})
					}
				}
				for _, vmm := range []measure.VMM{measure.EC2, measure.GCE} {
					add(measure.Spec{VMM: vmm, GuestFeatures: f})
				}
			}
		}
	}
	return list
}

// setupsSVSM: an SVSM runs under QEMU alone, and takes no kernel.
func (x axes) setupsSVSM(source, vcpus int) (list []setup) {
	for _, f := range x.all {
		for _, host := range []measure.Spec{{}, {OldHostKernel: true}, {X87Unset: true}} {
			for _, sig := range slices.Concat(x.signatures, x.hosts) {
				host.Mode, host.VCPUs, host.VCPUSignature, host.GuestFeatures = measure.SNPSVSM, vcpus, sig, f
				list = append(list, setup{source, &x.hashes[0], host})
			}
		}
	}
	return list
}

// processors are the EPYC steppings that have SEV and are no model of QEMU's: what -cpu host passes on (linux-firmware amd-ucode/README).
var processors = []struct {
	name      string
	signature uint32
}{
	{"Milan-X", measure.Signature(25, 1, 2)},
	{"Genoa", measure.Signature(25, 17, 1)},
	{"Genoa-X", measure.Signature(25, 17, 2)},
	{"Bergamo or Siena", measure.Signature(25, 160, 2)},
	{"Turin", measure.Signature(26, 2, 1)},
	{"Turin Dense", measure.Signature(26, 17, 0)},
}

// tell notes how far the search goes.
func (x axes) tell(q Query, a *Answer) {
	t := &a.Tried
	if t.Firmwares = len(q.Firmware); t.Firmwares == 0 {
		return
	}
	t.Modes = x.modes
	if len(x.sources) > len(q.Firmware) {
		t.Modes = append(slices.Clone(t.Modes), measure.SNPSVSM)
		t.SVSMs, t.VarsSizes = len(q.SVSM), len(x.varsSizes)
	}
	t.VCPUTypes, t.MaxVCPUs, t.VMMs, t.HostKernels = len(x.signatures)+len(x.hosts), q.MaxVCPUs, len(measure.VMMs()), 2
	t.Features, t.KernelHashes = len(x.all), len(x.hashes)
}

func hostKernel(old bool) string {
	if old {
		return "before Linux 6.10 (for SEV-ES also later, unless QEMU is told legacy-vm-type=off)"
	}
	return "Linux 6.10 or newer"
}

// tellUnread names what could not be searched, and why.
func (x axes) tellUnread(q Query, a *Answer) {
	const most = 16
	var list []string
	for _, s := range x.sources {
		_, err := s.series()
		if err == nil {
			continue
		}
		name := fmt.Sprintf("%q", q.Firmware[s.firmware].Name)
		if s.svsm < 0 {
			a.Tried.Firmwares--
		} else if _, err := x.sources[s.firmware].series(); err != nil {
			continue // told of the firmware
		} else {
			name += fmt.Sprintf(" with the SVSM %q below %d bytes of variables", q.SVSM[s.svsm].Name, s.varsSize)
		}
		list = append(list, fmt.Sprintf("%s: %v", name, err))
	}
	if more := len(list) - most; more > 0 {
		list = append(list[:most], fmt.Sprintf("and %d more that could not be searched", more))
	}
	a.Hints = append(a.Hints, list...)
}
