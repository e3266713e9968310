// Package measure computes launch digests: what AMD's secure processor will have measured
// when a machine starts from a given firmware, and so what a key server compares with. It
// also defines the boot record, the file that carries those digests to the key server.
//
// A Spec says what is launched; Digest computes from it alone, with no I/O, 32 bytes
// (SHA-256) for SEV and SEV-ES and 48 bytes (SHA-384) for SEV-SNP. DigestSet computes what a key server
// should accept where the number of vCPUs and the host's Linux may vary: see Profile.
//
// # Where references disagree
//
// Everything below was tried against sev-snp-measure 0.0.13; testdata holds its digests.
//
//   - Mode snp:svsm. It sets mxcsr but leaves x87_fcw zero: it assigns to a field of another name, which its
//     structure lets pass. Linux writes both (6.10 and later) or neither. Its own version before that change (commit
//     ae95e59^) left both zero and gave the digest that its authors had from a machine. Right: both or neither.
//     Spec.X87Unset gives what it prints.
//   - Mode seves and snp:svsm. It does not look at --guest-features: 0 and 1 are measured. Linux 6.6 and 6.7 set DebugSwap in
//     SEV-ES too, on processors that have it. Right: the feature counts.
//   - Mode seves on hosts with Linux 6.10 and later. It takes mxcsr and x87_fcw to be set. That is so with KVM_SEV_INIT2
//     only; QEMU without legacy-vm-type=off keeps them zero. Both are right, for other hosts: see Profile.
//   - Its README calls 0x21 the default since Linux 6.6. That was so up to 6.6.23, 6.7.11 and what was made of 6.8 before its release; the
//     tool's own default, 0x1, is right after that.
//   - SEV metadata without a reset vector, sizes that are not whole pages, sections of no bytes under SEV-SNP (edk2's builds for
//     microvm), a second table entry of one GUID, an SVSM that starts behind its end: it computes something or ends with a
//     traceback. We refuse.
//   - A vCPU signature of zero: it computes (since 8f2b337). No processor has it, and it is what forgetting looks like: we refuse.
//
// Sources: AMD, Secure Encrypted Virtualization API (55766), LAUNCH_UPDATE_DATA and
// LAUNCH_UPDATE_VMSA; AMD, SEV Secure Nested Paging Firmware ABI (56860),
// SNP_LAUNCH_UPDATE (page info); QEMU docs/system/i386/amd-memory-encryption.rst and
// target/i386/sev.c (kernel hashes); AMD64 Architecture Programmer's Manual volume 2,
// table B-4 (VMSA). Recorded digests of an independent calculator are in testdata.
package measure

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/sealboot/sealboot/ovmf"
)

// Mode is a kind of memory encryption, each with a digest of its own.
type Mode string

// The names are those that users of sev-snp-measure type.
const (
	SEV         Mode = "sev"
	SEVES       Mode = "seves"
	SNP         Mode = "snp"
	SNPSVSM     Mode = "snp:svsm"      // SNP with Coconut-SVSM between the hypervisor and the firmware
	SNPOVMFHash Mode = "snp:ovmf-hash" // the SNP digest after the firmware's own pages, to be given as Spec.OVMFHash
)

// Modes lists the modes that Digest knows.
func Modes() []Mode { return []Mode{SEV, SEVES, SNP, SNPSVSM, SNPOVMFHash} }

// DigestSize is the length of the mode's digest in bytes, 0 for an unknown mode.
func (m Mode) DigestSize() int {
	switch m {
	case SEV, SEVES:
		return sha256.Size
	case SNP, SNPSVSM, SNPOVMFHash:
		return ldSize
	}
	return 0
}

// VMM is a hypervisor: each leaves the vCPUs in a slightly different state.
type VMM string

const (
	QEMU VMM = "QEMU" // QEMU and KVM
	EC2  VMM = "ec2"  // Amazon EC2
	GCE  VMM = "gce"  // Google Compute Engine
)

// VMMs lists the hypervisors that Digest knows.
func VMMs() []VMM { return []VMM{QEMU, EC2, GCE} }

// Errors that Validate and Digest wrap.
var (
	ErrSpec           = errors.New("launch cannot be measured as described")
	ErrNoKernelHashes = errors.New("kernel given, but the firmware has no place for the hashes of kernel, initrd and command line")
	ErrNoResetVector  = errors.New("firmware does not say where a second vCPU starts")
)

const maxVCPUs = 4096 // QEMU's q35 machine takes fewer; bounds the work

// Spec says what is launched.
type Spec struct {
	Mode     Mode
	Firmware []byte

	// HashKernel is QEMU's kernel-hashes=on: the firmware is told the hashes of Kernel, Initrd and
	// Append, and checks them. Without a kernel all three must be unset.
	HashKernel bool
	Kernel     []byte
	HasInitrd  bool // an initrd is given; an empty one measures like none
	Initrd     []byte
	Append     string // without its trailing NUL, which is measured too

	VCPUs         int    // SEV-ES and SNP
	VCPUType      string // a CPU model of QEMU's (EPYC-v4), or "" to use VCPUSignature; QEMU only
	VCPUSignature uint32 // CPUID Fn0000_0001_EAX
	VMM           VMM    // "" is QEMU
	GuestFeatures uint64 // SEV_FEATURES of the VMSA: 0 for plain SEV-ES, 0x1 for plain SNP

	// OldHostKernel is a Linux host before 6.10, which leaves the floating-point control words of the VMSA zero.
	OldHostKernel bool

	// OVMFHash replaces the measuring of the firmware's pages with its recorded result (mode
	// SNPOVMFHash). Firmware is then read only for its tables. SNP only.
	OVMFHash []byte

	// FirmwareSHA256 is a SHA-256 that has taken the whole firmware, as a caller has it that hashes while it reads: modes SEV
	// and SEVES go on from there, and write to it. nil: Digest hashes Firmware.
	FirmwareSHA256 hash.Hash

	// SVSM is Coconut-SVSM's image, and VarsSize that of the firmware's variable store, above which the firmware
	// stands and below which the SVSM does (mode SNPSVSM, which takes no kernel and knows QEMU alone).
	SVSM     []byte
	VarsSize int64

	// X87Unset leaves x87_fcw zero while mxcsr is set, as sev-snp-measure computes mode SNPSVSM. No host is known to do so.
	X87Unset bool

	table []byte // Series: the hashes table, instead of what it is made from
}

// Validate reports all that is wrong with the description at once.
func (s Spec) Validate() error {
	var errs []error
	complain := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrSpec}, args...)...))
	}
	if s.Mode.DigestSize() == 0 {
		complain("unknown mode %q", s.Mode)
	}
	if len(s.Firmware) == 0 {
		complain("no firmware")
	}
	if s.HashKernel != (s.Kernel != nil) {
		complain("kernel hashes need a kernel, and a kernel is measured only by its hashes")
	}
	if s.Kernel == nil && (s.HasInitrd || len(s.Initrd) > 0 || s.Append != "") {
		complain("initrd or command line without a kernel")
	}
	if len(s.Initrd) > 0 && !s.HasInitrd {
		complain("initrd of %d bytes that is not said to be there", len(s.Initrd))
	}
	if strings.IndexByte(s.Append, 0) >= 0 {
		complain("NUL byte in the command line")
	}
	if s.VMM != "" && !slices.Contains(VMMs(), s.VMM) {
		complain("unknown hypervisor %q", s.VMM)
	}
	if s.Mode.MeasuresVCPUs() {
		if s.VCPUs < 1 || s.VCPUs > maxVCPUs {
			complain("%d vCPUs: from 1 to %d", s.VCPUs, maxVCPUs)
		}
		if _, err := s.signature(); err != nil {
			errs = append(errs, err)
		}
	}
	if s.Mode == SEVES && s.GuestFeatures&featureSNPActive != 0 {
		complain("guest features %#x: bit 0 is SEV-SNP itself, not of mode %s", s.GuestFeatures, SEVES)
	}
	if s.FirmwareSHA256 != nil && s.Mode != SEV && s.Mode != SEVES {
		complain("a SHA-256 of the firmware, of which mode %s makes none", s.Mode)
	}
	s.complainSVSM(complain)
	if s.OVMFHash != nil && (s.Mode != SNP || len(s.OVMFHash) != ldSize) {
		complain("a recorded firmware hash of %d bytes: only mode %s takes one, of %d bytes", len(s.OVMFHash), SNP, ldSize)
	}
	return errors.Join(errs...)
}

func (s Spec) complainSVSM(complain func(string, ...any)) {
	if s.Mode != SNPSVSM {
		if s.SVSM != nil || s.VarsSize != 0 || s.X87Unset {
			complain("an SVSM or the size of its variables in mode %q", s.Mode)
		}
		return
	}
	if len(s.SVSM) == 0 {
		complain("no SVSM")
	}
	if s.VarsSize <= 0 || s.VarsSize%pageSize != 0 || s.VarsSize > ovmf.MaxSize {
		complain("variable store of %d bytes: whole pages, up to %d", s.VarsSize, ovmf.MaxSize)
	}
	if s.Kernel != nil {
		complain("%w", ErrNoKernelHashes)
	}
	if s.vmm() != QEMU {
		complain("an SVSM under %s: only %s is known to run it", s.VMM, QEMU)
	}
}

// MeasuresVCPUs says whether the number and the state of the vCPUs count.
func (m Mode) MeasuresVCPUs() bool { return m == SEVES || m == SNP || m == SNPSVSM }

func (s Spec) vmm() VMM {
	if s.VMM == "" {
		return QEMU
	}
	return s.VMM
}

// Digest computes the launch digest.
func Digest(s Spec) ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Mode == SNPSVSM {
		return s.svsmDigest()
	}
	img, err := ovmf.Parse(s.Firmware)
	if err != nil {
		return nil, fmt.Errorf("read firmware: %w", err)
	}
	if s.Mode == SNP || s.Mode == SNPOVMFHash {
		return s.snpDigest(img)
	}
	h := s.FirmwareSHA256
	if h == nil {
		h = sha256.New()
		h.Write(s.Firmware)
	}
	if s.HashKernel {
		area, ok := img.HashesArea()
		if !ok {
			return nil, ErrNoKernelHashes
		}
		table := s.hashesTable()
		if int64(area.Size) < int64(len(table)) {
			return nil, fmt.Errorf("%w: its area has %d bytes, %d are needed", ErrNoKernelHashes, area.Size, len(table))
		}
		h.Write(table)
	}
	if s.Mode == SEVES {
		pages, err := s.vmsaPages(img, s.GuestFeatures)
		if err != nil {
			return nil, err
		}
		for i := range s.VCPUs {
			h.Write(pages.of(i))
		}
	}
	return h.Sum(nil), nil
}
