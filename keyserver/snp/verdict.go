package snp

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-sev-guest/abi"
)

// Verdict is what a policy says of a report that was verified.
type Verdict struct {
	Facts      Facts
	Complaints []error // all of them, each a *Complaint; none: the guest is what the policy asks for
}

// Err joins the complaints.
func (v *Verdict) Err() error { return errors.Join(v.Complaints...) }

// Facts are what a verified report and its certificate say, in the form that the audit keeps. None of it is secret.
type Facts struct {
	Product       Product   `json:"product"`
	Processor     string    `json:"processor"` // what the product's line calls it, where it tells: "Siena or Bergamo"
	Chip          ChipID    `json:"chip"`      // zeros: masked, under a VLEK
	Signer        Signer    `json:"signer"`
	Cloud         string    `json:"cloud,omitempty"` // whose VLEK it is
	ReportVersion uint8     `json:"report_version"`
	Digest        string    `json:"digest"`
	VMPL          uint8     `json:"vmpl"`
	Policy        string    `json:"policy"` // guest policy, 0x and hexadecimal digits
	TCB           string    `json:"tcb"`    // the reported one
	Firmware      string    `json:"firmware"`
	GuestSVN      uint32    `json:"guest_svn"`
	IDKey         KeyDigest `json:"id_key"`
	AuthorKey     KeyDigest `json:"author_key"`
}

// Facts says what was attested.
func (a *Attested) Facts() Facts {
	r := a.report
	return Facts{
		Product: a.product, Processor: a.name, Chip: a.chip(), Signer: r.signer, Cloud: a.endorsement.csp, ReportVersion: r.version,
		Digest: fmt.Sprintf("%x", r.digest), VMPL: r.vmpl, Policy: fmt.Sprintf("%#x", r.policy), TCB: a.tcb.reported.String(),
		Firmware: r.firmware.String(), GuestSVN: r.guestSVN, IDKey: r.idKey, AuthorKey: r.author,
	}
}

// chip is the processor's id: of the VCEK, which AMD made for that chip alone, or what firmware under a VLEK says.
func (a *Attested) chip() ChipID {
	if a.endorsement.signer == VCEK {
		return a.endorsement.chip
	}
	return a.report.chip
}

// Launch gives the launch digest. Whether it is one of the image's is for the caller to say, who has them.
func (a *Attested) Launch() Digest { return a.report.digest }

// Data gives the report data, for a trial without a challenge.
func (a *Attested) Data() ReportData { return a.report.data }

// Judge holds a verified report against a policy and the report data of this guest's challenge, and gives every complaint. A policy that is
// not valid allows nothing. It does no I/O and takes the same steps whatever fits.
func (a *Attested) Judge(p Policy, data ReportData, now time.Time) *Verdict {
	v := &Verdict{Facts: a.Facts()}
	complain := func(reason error, format string, args ...any) {
		v.Complaints = append(v.Complaints, &Complaint{Reason: reason, Detail: fmt.Sprintf(format, args...)})
	}
	if err := p.Validate(); err != nil {
		complain(ErrPolicy, "%v", err)
	}
	r := a.report
	if subtle.ConstantTimeCompare(r.data[:], data[:]) != 1 {
		complain(ErrReportData, "it is of another challenge, key or image")
	}
	if !slices.Contains(p.VMPL, r.vmpl) {
		complain(ErrVMPL, "report is of VMPL %d, policy allows %v", r.vmpl, p.VMPL)
	}
	if !slices.Contains(p.Reports, r.version) {
		complain(ErrNotAllowed, "report of version %d", r.version)
	}
	if !slices.Contains(p.Signers, r.signer) {
		complain(ErrNotAllowed, "report signed by a %s", strings.ToUpper(string(r.signer)))
	}
	p.Guest.judge(r.guest, complain)
	p.Platform.judge(r, complain)
	a.judgeFirmware(p, complain)
	if r.guestSVN < p.MinGuestSVN {
		complain(ErrSVN, "%d, policy asks for %d", r.guestSVN, p.MinGuestSVN)
	}
	if !p.IDKeys.allows(r.idKey) {
		complain(ErrKey, "ID key %v", r.idKey)
	}
	if !p.AuthorKeys.allows(r.author) || !p.AuthorKeys.Any && !r.authorKey {
		complain(ErrKey, "author key %v", r.author)
	}
	if !p.Chips.allows(a.chip()) {
		complain(ErrChip, "%v", a.chip())
	}
	if !p.FamilyID.allows(r.familyID) {
		complain(ErrLaunchData, "family id %v", r.familyID)
	}
	if !p.ImageID.allows(r.imageID) {
		complain(ErrLaunchData, "image id %v", r.imageID)
	}
	if !p.HostData.allows(r.host) {
		complain(ErrLaunchData, "host data %v", r.host)
	}
	if err := p.Revocation.allows(a.revocations, now); err != nil {
		v.Complaints = append(v.Complaints, err)
	}
	return v
}

// judge holds a guest policy against what is allowed.
func (g GuestPolicy) judge(have abi.SnpPolicy, complain func(error, string, ...any)) {
	if have.Debug {
		complain(ErrDebug, "its policy lets the host read its memory")
	}
	if abi := (ABI{have.ABIMajor, have.ABIMinor}); abi.compare(g.MinABI) < 0 {
		complain(ErrGuestPolicy, "asks for ABI %v, not %v", abi, g.MinABI)
	}
	for _, bit := range []struct {
		bad  bool
		what string
	}{
		{have.SMT && !g.AllowSMT, "allows SMT"},
		{have.MigrateMA && !g.AllowMigrationAgent, "allows a migration agent"},
		{have.CXLAllowed && !g.AllowCXL, "allows CXL"},
		{!have.SingleSocket && g.RequireSingleSocket, "does not ask for a single socket"},
		{!have.MemAES256XTS && g.RequireAES256XTS, "does not ask for AES-256-XTS"},
		{!have.RAPLDis && g.RequireRAPLDisabled, "does not ask for RAPL to be off"},
		{!have.CipherTextHidingDRAM && g.RequireCipherTextHiding, "does not ask for ciphertext hiding"},
		{!have.PageSwapDisable && g.RequirePageSwapDisabled, "does not ask for page swapping to be off"},
	} {
		if bit.bad {
			complain(ErrGuestPolicy, "%s", bit.what)
		}
	}
}

// judge holds PLATFORM_INFO and the mitigation vectors against what is allowed.
func (h Platform) judge(r *report, complain func(error, string, ...any)) {
	have, err := abi.ParseSnpPlatformInfo(r.platform)
	if err != nil {
		complain(ErrPlatform, "%s", clip(err.Error()))
	}
	if h.RequireECC && !have.ECCEnabled {
		complain(ErrPlatform, "memory without ECC")
	}
	if h.RequireAliasCheck && !have.AliasCheckComplete {
		complain(ErrPlatform, "memory was not checked for aliases")
	}
	if !h.AllowTIO && have.TIOEnabled {
		complain(ErrPlatform, "SEV-TIO is on")
	}
	if r.launchMitigations&h.Mitigations != h.Mitigations || r.mitigations&h.Mitigations != h.Mitigations {
		complain(ErrPlatform, "mitigations %#x at launch, %#x now, policy asks for %#x", r.launchMitigations, r.mitigations, h.Mitigations)
	}
}

// judgeFirmware holds the product's floor against all that the report says of the platform's firmware: see Floor.
func (a *Attested) judgeFirmware(p Policy, complain func(error, string, ...any)) {
	floor, ok := p.Products[a.product]
	if !ok {
		complain(ErrNotAllowed, "product %s", a.product)
	}
	for _, t := range []struct {
		name string
		TCB
	}{{"reported", a.tcb.reported}, {"launch", a.tcb.launch}, {"committed", a.tcb.committed}, {"current", a.tcb.current}} {
		for _, part := range t.below(floor.TCB) {
			complain(ErrTCB, "%s TCB has %s", t.name, part)
		}
	}
	// Firmware keeps these in order itself; a report that says otherwise is of no firmware that is known.
	for _, t := range []struct {
		name string
		TCB
	}{{"reported", a.tcb.reported}, {"committed", a.tcb.committed}} {
		for _, part := range a.tcb.current.below(t.TCB) {
			complain(ErrTCB, "current TCB is behind the %s one: %s", t.name, part)
		}
	}
	r := a.report
	for _, f := range []struct {
		name string
		Firmware
	}{{"current", r.firmware}, {"committed", r.committedFirmware}} {
		if f.compare(floor.Firmware) < 0 {
			complain(ErrFirmware, "%s version %v, policy asks for %v", f.name, f.Firmware, floor.Firmware)
		}
	}
	if r.firmware.compare(r.committedFirmware) < 0 {
		complain(ErrFirmware, "current version %v is behind the committed %v", r.firmware, r.committedFirmware)
	}
}
