package snp

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/go-sev-guest/abi"
)

// ReportSize is the length of a report in bytes (publication 56860, ATTESTATION_REPORT).
const ReportSize = abi.ReportSize

// Digest is a guest's launch digest.
type Digest [48]byte

// ReportData is what the guest had put into its report.
type ReportData [64]byte

// report is an attestation report, read and not yet believed.
type report struct {
	raw     []byte
	version uint8

	family, model, stepping uint8 // 0 in reports of version 2

	signer    Signer
	authorKey bool // AUTHOR_KEY_EN
	guest     abi.SnpPolicy
	policy    uint64
	platform  uint64
	vmpl      uint8
	guestSVN  uint32

	digest            Digest
	data              ReportData
	host              HostData
	familyID, imageID GuestID
	idKey, author     KeyDigest
	chip              ChipID

	reported, current, committed, launch uint64 // TCB_VERSION
	firmware, committedFirmware          Firmware
	launchMitigations, mitigations       uint64
}

// parseReport reads a report of exactly its size. What is reserved must be zero, and every byte must have been understood: the
// report must encode again to the same bytes.
func parseReport(raw []byte) (*report, error) {
	if len(raw) != ReportSize {
		return nil, &FormatError{"report", fmt.Sprintf("has %d bytes, not %d", len(raw), ReportSize)}
	}
	p, err := abi.ReportToProto(raw)
	if err != nil {
		return nil, &FormatError{"report", clip(err.Error())}
	}
	if p.Version > 255 || !slices.Contains(reportVersions, uint8(p.Version)) {
		return nil, &FormatError{"report", fmt.Sprintf("is of version %d, none of %v", p.Version, reportVersions)}
	}
	if p.Version < 5 && (p.LaunchMitVector != 0 || p.CurrentMitVector != 0) {
		return nil, &FormatError{"report", fmt.Sprintf("of version %d has mitigation vectors", p.Version)}
	}
	if p.SignatureAlgo != abi.SignEcdsaP384Sha384 {
		return nil, &FormatError{"report", fmt.Sprintf("is signed by algorithm %d, not ECDSA P-384 with SHA-384", p.SignatureAlgo)}
	}
	if p.Vmpl > 3 { // 0xffffffff: the host asked for the report
		return nil, &FormatError{"report", fmt.Sprintf("is of VMPL %#x: the guest did not ask for it", p.Vmpl)}
	}
	again, err := abi.ReportToAbiBytes(p)
	if err != nil {
		return nil, &FormatError{"report", clip(err.Error())}
	}
	if !bytes.Equal(again, raw) {
		return nil, &FormatError{"report", "has bits that are not known"}
	}
	info, err := abi.ParseSignerInfo(p.SignerInfo)
	if err != nil {
		return nil, &FormatError{"report", clip(err.Error())}
	}
	r := &report{
		raw: bytes.Clone(raw), version: uint8(p.Version), authorKey: info.AuthorKeyEn,
		policy: p.Policy, platform: p.PlatformInfo, vmpl: uint8(p.Vmpl), guestSVN: p.GuestSvn,
		reported: p.ReportedTcb, current: p.CurrentTcb, committed: p.CommittedTcb, launch: p.LaunchTcb,
		firmware:          Firmware{uint8(p.CurrentMajor), uint8(p.CurrentMinor), uint8(p.CurrentBuild)},
		committedFirmware: Firmware{uint8(p.CommittedMajor), uint8(p.CommittedMinor), uint8(p.CommittedBuild)},
		launchMitigations: p.LaunchMitVector, mitigations: p.CurrentMitVector,
	}
	if r.guest, err = abi.ParseSnpPolicy(p.Policy); err != nil {
		return nil, &FormatError{"report", clip(err.Error())}
	}
	switch info.SigningKey {
	case abi.VcekReportSigner:
		r.signer = VCEK
	case abi.VlekReportSigner:
		r.signer = VLEK
	default:
		return nil, ErrUnsigned
	}
	if r.version >= 3 {
		r.family, r.model, r.stepping = abi.FmsFromCpuid1Eax(p.Cpuid1EaxFms)
	}
	copy(r.digest[:], p.Measurement)
	copy(r.data[:], p.ReportData)
	copy(r.host[:], p.HostData)
	copy(r.familyID[:], p.FamilyId)
	copy(r.imageID[:], p.ImageId)
	copy(r.idKey[:], p.IdKeyDigest)
	copy(r.author[:], p.AuthorKeyDigest)
	copy(r.chip[:], p.ChipId)
	return r, nil
}
