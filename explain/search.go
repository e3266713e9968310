package explain

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
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

// hit is a candidate that fits.
type hit struct {
	setup, vcpus int
	digest       []byte
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

// search tries every setup, on all cores.
func (q Query) search(ctx context.Context, a *Answer) error {
	x := q.axes()
	var list []setup
	for i := range x.sources {
		list = append(list, x.setups(i, q.MaxVCPUs)...)
	}
	x.tell(q, a)
	if q.Measured == nil || q.Measured.API != nil {
		if err := q.searchAll(ctx, a, x, list); err != nil {
			return err
		}
	}
	if q.Measured != nil && !a.Explained {
		q.varyFirmware(a, x, list)
	}
	x.tellUnread(q, a)
	return nil
}

// searchAll compares every candidate.
func (q Query) searchAll(ctx context.Context, a *Answer, x axes, list []setup) error {
	workers := q.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var next, tried atomic.Int64
	var mu sync.Mutex
	var hits []hit
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			count := int64(0)
			defer func() { tried.Add(count) }()
			fits, done := q.comparison()
			defer done()
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(list) {
					return
				}
				s := list[i]
				f, err := x.sources[s.source].series()
				if err != nil {
					continue // told by search
				}
				f.Each(s.spec, s.hashes.table, func(vcpus int, digest []byte) { // an error is a launch that this firmware cannot have
					count++
					if fits(digest) {
						mu.Lock()
						hits = append(hits, hit{i, vcpus, bytes.Clone(digest)})
						mu.Unlock()
					}
				})
			}
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("search: %w", err)
	}
	a.Tried.Candidates += tried.Load()
	q.choose(a, x, list, hits)
	return nil
}

// comparison gives a function that says whether a digest fits, and one that wipes its keys.
func (q Query) comparison() (fits func([]byte) bool, done func()) {
	m := q.Measured
	if m == nil {
		return func(digest []byte) bool { return bytes.Equal(digest, q.Digest) }, func() {}
	}
	keys := &sev.Session{Policy: m.Policy, TIK: m.TIK}
	return func(digest []byte) bool {
		return len(digest) == len(sev.Digest{}) && m.fits(keys, *m.API, sev.Digest(digest))
	}, keys.Wipe
}

// choose takes the fit that differs least, and of equals the first in the order of the search.
func (q Query) choose(a *Answer, x axes, list []setup, hits []hit) {
	slices.SortFunc(hits, func(a, b hit) int { return cmp.Or(cmp.Compare(a.setup, b.setup), cmp.Compare(a.vcpus, b.vcpus)) })
	best := -1
	for _, h := range hits {
		fit := q.fit(x, list[h.setup], h)
		differences, weight := q.nearest(fit)
		if best < 0 || weight < best {
			best, a.Explained, a.Fit, a.Differences = weight, true, fit, differences
		}
	}
}

func (q Query) fit(x axes, s setup, h hit) *Fit {
	from := x.sources[s.source]
	f := &Fit{
		Mode: s.spec.Mode, Firmware: q.Firmware[from.firmware].Name, FirmwareSHA256: sha256.Sum256(q.Firmware[from.firmware].Data), VCPUs: h.vcpus,
		VMM: s.spec.VMM, GuestFeatures: s.spec.GuestFeatures, OldHostKernel: s.spec.OldHostKernel, X87Unset: s.spec.X87Unset,
		KernelHashes: s.hashes.table != nil, HasInitrd: s.hashes.initrd, Digest: h.digest, hashes: s.hashes, signature: s.spec.VCPUSignature,
	}
	if from.svsm >= 0 {
		sum := sha256.Sum256(q.SVSM[from.svsm].Data)
		f.SVSM, f.SVSMSHA256, f.VarsSize = q.SVSM[from.svsm].Name, sum[:], from.varsSize
	}
	if f.VCPUType = x.names[s.spec.VCPUSignature]; f.VCPUType == "" {
		f.VCPUSignature = s.spec.VCPUSignature
	}
	f.Profile = f.profile()
	if f.KernelHashes {
		f.CommandLine = &s.hashes.cmdline
	}
	if m := q.Measured; m != nil && m.API != nil {
		f.Policy, f.API = m.Policy.String(), m.API.String()
	}
	return f
}

// nearest gives the differences from the record's launch that has the fewest.
func (q Query) nearest(f *Fit) (best []Difference, least int) {
	least = -1
	for _, d := range q.Record.Digests {
		list := f.differences(q.Record.Firmware.SHA256, d)
		weight := 0
		for _, one := range list {
			weight += one.weight
		}
		if least < 0 || weight < least {
			best, least = list, weight
		}
	}
	return best, least
}

func (f *Fit) differences(firmware measure.Hash, d measure.LaunchDigest) (list []Difference) {
	differ := func(weight int, what string, expected, found any) {
		if expected != found {
			list = append(list, Difference{what, fmt.Sprint(expected), fmt.Sprint(found), weight})
		}
	}
	if f.FirmwareSHA256 != firmware {
		list = append(list, Difference{"firmware", "SHA-256 " + firmware.String(), fmt.Sprintf("%q, SHA-256 %v", f.Firmware, f.FirmwareSHA256), 8})
	}
	differ(6, "mode", d.Mode, f.Mode)
	if f.Mode != measure.SEV && d.Mode != measure.SEV {
		differ(2, "vCPUs", d.VCPUs, f.VCPUs)
		differ(5, "hypervisor", cmp.Or(d.VMM, measure.QEMU), cmp.Or(f.VMM, measure.QEMU))
		differ(3, "host kernel", hostKernel(d.OldHostKernel), hostKernel(f.OldHostKernel))
		if want := signatureOf(d.Launch); want != f.signature && want != 0 && f.signature != 0 {
			differ(3, "vCPU type", cpuName(d.VCPUType, want), cpuName(f.VCPUType, f.signature))
		}
		if d.Mode == f.Mode && d.GuestFeatures != f.GuestFeatures {
			list = append(list, Difference{"guest features", featuresText(d.GuestFeatures), featuresText(f.GuestFeatures), 3})
		}
	}
	if f.Mode == measure.SNPSVSM && d.Mode == f.Mode {
		if !bytes.Equal(d.SVSM, f.SVSMSHA256) {
			list = append(list, Difference{"SVSM", "SHA-256 " + d.SVSM.String(), fmt.Sprintf("%q, SHA-256 %v", f.SVSM, f.SVSMSHA256), 8})
		}
		differ(4, "variable store", fmt.Sprintf("%d bytes", d.VarsSize), fmt.Sprintf("%d bytes", f.VarsSize))
	}
	if f.X87Unset {
		list = append(list, Difference{"floating-point control words", "both set or both zero",
			"mxcsr set and x87_fcw zero: so sev-snp-measure computes, and no host is known to launch", 5})
	}
	return append(list, f.hashes.differences(d.KernelHashes)...)
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

func cpuName(name string, sig uint32) string {
	for _, p := range processors {
		if name == "" && p.signature == sig {
			name = "-cpu host on " + p.name
		}
	}
	return strings.TrimSpace(fmt.Sprintf("%s (signature %#x)", name, sig))
}

func featuresText(f uint64) string {
	if f&debugSwap != 0 {
		return fmt.Sprintf("%#x (DebugSwap: Linux hosts of 6.6 to 6.8 set it unasked)", f)
	}
	return fmt.Sprintf("%#x", f)
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
