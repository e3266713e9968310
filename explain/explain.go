// Package explain finds out why a launch digest is not the one that was expected: it searches for the launch that
// has it, among those that differ from the boot record's in what usually goes wrong.
//
// A Query holds the digest, or the SEV measurement that hides one, and what is at hand: the boot record always,
// firmware files, the hashes of kernel and initrd, the command line. Find searches on all cores; the same query has the same
// Answer whatever the number of cores: of several launches that fit, the one that differs least from the record.
//
// What is searched: every firmware at hand; SEV, SEV-ES and SEV-SNP as the digest's size allows; vCPU counts up to
// Query.MaxVCPUs; every CPU model of QEMU's and the record's, EPYC processors as such (-cpu host); QEMU, EC2 and GCE; hosts before and since Linux 6.10;
// guest features; kernel hashes on and off; command lines with and without NUL and usual additions; initrd or none; under
// SEV-SNP also every SVSM at hand, below variable stores of the usual sizes. For a measurement also the platform's API
// version and build, and the policy, both at once too.
//
// Where nothing fits, nothing can be said of how near anything came: a digest of one changed bit shares nothing with the
// other. The answer then names the record's launch of that kind of which most is at hand, what of it is not, and what was tried.
//
// Two cores of an EPYC compare 0.8 million candidates of SEV-ES in a second and 2.3 million of SEV-SNP (BenchmarkFind): a whole
// search of one firmware with a kernel, 270,000 and 470,000, takes 0.2 to 0.4 seconds.
//
// A fit is an explanation, not a permission: nothing here decides about a secret.
package explain

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
)

// Bounds of a query.
const (
	DefaultVCPUs   = 64
	MaxVCPUs       = 512
	MaxFirmwares   = 64
	MaxSVSMs       = 8
	MaxVarsSizes   = 8
	MaxSignatures  = 16
	MaxCommandLine = 64 << 10
)

// ErrQuery is wrapped by all complaints about a query.
var ErrQuery = errors.New("nothing to explain")

// Firmware is a firmware file at hand.
type Firmware struct {
	Name string // for the answer
	Data []byte
}

// Query says what is to be explained, and what is at hand for it.
type Query struct {
	Record   *measure.Record
	Digest   []byte    // 32 bytes (SEV, SEV-ES) or 48 (SEV-SNP); or
	Measured *Measured // a measurement of SEV or SEV-ES

	Firmware   []Firmware
	SVSM       []Firmware         // images of Coconut-SVSM; none: launches under one cannot be searched
	VarsSizes  []int64            // of the variable stores that may stand between firmware and SVSM, beside the record's and the usual ones
	Signatures []uint32           // of vCPUs (CPUID 1 EAX) to try, beside the record's, QEMU's models and the usual processors
	Kernel     *[sha256.Size]byte // SHA-256 of the kernel; nil: kernel hashes cannot be tried
	Initrd     *[sha256.Size]byte // of the initrd; nil: none
	Append     string             // command line, without NUL
	MaxVCPUs   int                // 0: DefaultVCPUs
	Workers    int                // 0: one for each core
}

// Validate gives every complaint at once.
func (q Query) Validate() error {
	var errs []error
	complain := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrQuery}, args...)...))
	}
	if q.Record == nil {
		complain("no boot record")
	} else if err := q.Record.Validate(); err != nil {
		errs = append(errs, err)
	}
	if (q.Digest == nil) == (q.Measured == nil) {
		complain("a digest or a measurement is needed, not both")
	}
	if n := len(q.Digest); q.Digest != nil && n != measure.SEV.DigestSize() && n != measure.SNP.DigestSize() {
		complain("digest of %d bytes, not 32 (SEV, SEV-ES) or 48 (SEV-SNP)", n)
	}
	if len(q.Firmware) > MaxFirmwares {
		complain("%d firmware files, at most %d", len(q.Firmware), MaxFirmwares)
	}
	if len(q.SVSM) > MaxSVSMs || len(q.VarsSizes) > MaxVarsSizes {
		complain("%d SVSMs and %d sizes of variable stores, at most %d and %d", len(q.SVSM), len(q.VarsSizes), MaxSVSMs, MaxVarsSizes)
	}
	for _, f := range slices.Concat(q.Firmware, q.SVSM) {
		if len(f.Data) > ovmf.MaxSize {
			complain("firmware %s of %d bytes", f.Name, len(f.Data))
		}
	}
	if len(q.Signatures) > MaxSignatures || slices.Contains(q.Signatures, 0) {
		complain("%d signatures of vCPUs, at most %d, none of them 0", len(q.Signatures), MaxSignatures)
	}
	for _, size := range q.VarsSizes {
		if size <= 0 || size > ovmf.MaxSize {
			complain("variable store of %d bytes", size)
		}
	}
	if q.Kernel == nil && (q.Initrd != nil || q.Append != "") {
		complain("initrd or command line without a kernel")
	}
	if q.MaxVCPUs < 0 || q.MaxVCPUs > MaxVCPUs {
		complain("%d vCPUs: up to %d", q.MaxVCPUs, MaxVCPUs)
	}
	if len(q.Append) > MaxCommandLine {
		complain("command line of %d bytes", len(q.Append))
	}
	return errors.Join(errs...)
}

// Answer is what a search found. Its JSON is the interface of `sealboot explain --json`.
type Answer struct {
	Explained   bool         `json:"explained"`
	InRecord    bool         `json:"in_record"`             // the launch is one of the record's
	Fit         *Fit         `json:"fit,omitempty"`         // the launch that has the digest
	Differences []Difference `json:"differences,omitempty"` // from the record's launch that is nearest to it
	Nearest     *Nearest     `json:"nearest,omitempty"`     // where nothing fits
	Hints       []string     `json:"hints,omitempty"`       // what is known where nothing fits, and what to give next
	Tried       Tried        `json:"tried"`
}

// Fit is a launch that fits.
type Fit struct {
	Mode           measure.Mode  `json:"mode"`
	Firmware       string        `json:"firmware,omitempty"` // the file, if it came from one
	FirmwareSHA256 measure.Hash  `json:"firmware_sha256"`
	VCPUs          int           `json:"vcpus,omitempty"`
	VCPUType       string        `json:"vcpu_type,omitempty"`
	VCPUSignature  uint32        `json:"vcpu_signature,omitempty"`
	VMM            measure.VMM   `json:"vmm,omitempty"`
	GuestFeatures  uint64        `json:"guest_features,omitempty"`
	OldHostKernel  bool          `json:"old_host_kernel,omitempty"` // before Linux 6.10
	X87Unset       bool          `json:"x87_unset,omitempty"`       // as sev-snp-measure computes, see package measure
	SVSM           string        `json:"svsm,omitempty"`            // the file
	SVSMSHA256     measure.Hex   `json:"svsm_sha256,omitempty"`
	VarsSize       int64         `json:"vars_size,omitempty"`
	Profile        string        `json:"profile,omitempty"` // the host profile of package measure that is so
	KernelHashes   bool          `json:"kernel_hashes"`
	CommandLine    *string       `json:"command_line,omitempty"`
	HasInitrd      bool          `json:"has_initrd,omitempty"`
	Policy         string        `json:"policy,omitempty"` // of a measurement
	API            string        `json:"api,omitempty"`    // of a measurement
	Digest         measure.Hex   `json:"digest"`
	hashes         *hashesChoice // nil: a launch of the record
	signature      uint32
}

// Difference is one thing in which the launch differs from what was expected.
type Difference struct {
	What     string `json:"what"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
	weight   int
}

// Tried says how far the search went.
type Tried struct {
	Candidates   int64          `json:"candidates"` // digests compared, or MACs computed
	Recorded     int            `json:"recorded"`   // the record's own digests
	Variations   int            `json:"variations"` // of a measurement: pairs of policy and API version
	Firmwares    int            `json:"firmwares"`
	Modes        []measure.Mode `json:"modes,omitempty"` // this and all that follows: of the firmware files
	SVSMs        int            `json:"svsms"`
	VarsSizes    int            `json:"vars_sizes"`
	VCPUTypes    int            `json:"vcpu_types"`
	MaxVCPUs     int            `json:"max_vcpus"`
	VMMs         int            `json:"vmms"`
	HostKernels  int            `json:"host_kernels"` // before and since Linux 6.10
	Features     int            `json:"guest_features"`
	KernelHashes int            `json:"kernel_hashes"` // ways to hash kernel, initrd and command line, and not to
}

// Find searches. An Answer that explains nothing is no error.
func Find(ctx context.Context, q Query) (*Answer, error) {
	if err := q.Validate(); err != nil {
		return nil, err
	}
	if q.MaxVCPUs == 0 {
		q.MaxVCPUs = DefaultVCPUs
	}
	a := &Answer{Tried: Tried{Recorded: len(q.Record.Digests)}}
	if q.recorded(a) {
		return a, nil
	}
	if err := q.search(ctx, a); err != nil {
		return nil, err
	}
	if !a.Explained {
		a.Nearest = q.nearestKnown()
		a.Hints = append(q.hints(a.Nearest), a.Hints...)
	}
	return a, nil
}

// recorded looks among the record's own launches; a measurement's policy and API are varied there too.
func (q Query) recorded(a *Answer) bool {
	if q.Digest != nil {
		for _, d := range q.Record.Digests {
			a.Tried.Candidates++
			if string(d.Digest) == string(q.Digest) {
				a.Explained, a.InRecord, a.Fit = true, true, q.fitOf(d)
				return true
			}
		}
		return false
	}
	var known []Known
	var launches []measure.LaunchDigest
	for _, d := range q.Record.Digests {
		if k, ok := KnownOf(d); ok {
			known, launches = append(known, k), append(launches, d)
		}
	}
	found := a.vary(q.Measured, known)
	if found == nil {
		return false
	}
	a.Explained, a.InRecord, a.Fit = true, true, q.fitOf(launches[found.Known])
	a.varied(q.Measured, found, known[found.Known].Mode)
	return true
}

// varied notes under which policy and API version a measurement fits.
func (a *Answer) varied(m *Measured, found *Variation, mode measure.Mode) {
	a.Fit.Policy, a.Fit.API = found.Policy.String(), found.API.String()
	a.Differences = append(a.Differences, found.Differences(m)...)
	if claimed := m.mode(); mode != claimed {
		a.Differences = append(a.Differences, Difference{"mode", string(claimed) + " by the policy", string(mode), 0})
	}
}

func (q Query) fitOf(d measure.LaunchDigest) *Fit {
	f := &Fit{
		Mode: d.Mode, FirmwareSHA256: q.Record.Firmware.SHA256, VCPUs: d.VCPUs, VCPUType: d.VCPUType, VCPUSignature: d.VCPUSignature,
		VMM: d.VMM, GuestFeatures: d.GuestFeatures, OldHostKernel: d.OldHostKernel, KernelHashes: len(d.KernelHashes) > 0, Digest: d.Digest,
		SVSMSHA256: d.SVSM, VarsSize: d.VarsSize,
	}
	f.Profile = f.profile()
	return f
}

// profile names the kind of host that hands the vCPUs over in this state, if it is a known one.
func (f *Fit) profile() string {
	if !f.Mode.MeasuresVCPUs() || f.X87Unset || f.VMM != "" && f.VMM != measure.QEMU {
		return ""
	}
	s := measure.Spec{Mode: f.Mode, GuestFeatures: f.GuestFeatures, OldHostKernel: f.OldHostKernel}
	for _, p := range measure.Profiles() {
		if host := p.Apply(s); host.GuestFeatures == s.GuestFeatures && host.OldHostKernel == s.OldHostKernel {
			return p.Name
		}
	}
	return ""
}
