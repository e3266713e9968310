// Package snpreport reads what an SEV-SNP attestation report says of a guest's launch.
//
// A report is only read here, its signature is not checked: what it says explains a launch, it proves none.
// (AMD, SEV Secure Nested Paging Firmware ABI 56860, ATTESTATION_REPORT.)
package snpreport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-sev-guest/abi"

	"github.com/sealboot/sealboot/measure"
)

// ErrReport is wrapped by all complaints about a report.
var ErrReport = errors.New("SNP attestation report")

// maxReport bounds a file: a report with certificates behind it has some ten thousand bytes.
const maxReport = 1 << 20

// responseHeader is what SNP_GUEST_REQUEST puts before a report (MSG_REPORT_RSP): u32 status, u32 size, 24 reserved.
const responseHeader = 32

// Facts is what a report says, unverified. Its JSON is part of `sealboot explain --json`.
type Facts struct {
	Version      uint32      `json:"version"`
	Measurement  measure.Hex `json:"measurement"`
	Policy       uint64      `json:"policy"`
	ABI          string      `json:"minimum_abi"` // of the policy
	Debug        bool        `json:"debug"`       // the host may read the guest's memory
	Migration    bool        `json:"migration"`   // a migration agent may move it
	SMT          bool        `json:"smt"`
	SingleSocket bool        `json:"single_socket"`
	VMPL         uint32      `json:"vmpl"`
	GuestSVN     uint32      `json:"guest_svn"`
	FamilyID     measure.Hex `json:"family_id"`
	ImageID      measure.Hex `json:"image_id"`
	HostData     measure.Hex `json:"host_data"`
	ReportData   measure.Hex `json:"report_data"`
	IDKeyDigest  measure.Hex `json:"id_key_digest"`
	ReportedTCB  string      `json:"reported_tcb"`
	LaunchTCB    string      `json:"launch_tcb"`
	Firmware     string      `json:"platform_firmware"`
	ChipID       measure.Hex `json:"chip_id"`
	CPU          uint32      `json:"cpuid_1_eax,omitempty"` // version 3 and later: family, model, stepping of the host's processor
}

// Read takes a report of 1184 bytes, also with its certificates behind it, or inside the response of SNP_GUEST_REQUEST.
func Read(in io.Reader) (*Facts, error) {
	raw, err := io.ReadAll(io.LimitReader(in, maxReport+1))
	if err != nil {
		return nil, fmt.Errorf("read %w: %w", ErrReport, err)
	}
	if len(raw) > maxReport {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrReport, maxReport)
	}
	if len(raw) >= responseHeader+abi.ReportSize && binary.LittleEndian.Uint32(raw) == 0 && binary.LittleEndian.Uint32(raw[4:]) == abi.ReportSize {
		raw = raw[responseHeader:]
	}
	if len(raw) < abi.ReportSize {
		return nil, fmt.Errorf("%w: %d bytes, not %d", ErrReport, len(raw), abi.ReportSize)
	}
	raw = raw[:abi.ReportSize]
	r, err := abi.ReportToProto(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	if r.Version < 2 || r.Version > 16 { // 1 was never shipped; a file of something else has any number here
		return nil, fmt.Errorf("%w: version %d", ErrReport, r.Version)
	}
	p, err := abi.ParseSnpPolicy(r.Policy)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	return &Facts{
		Version: r.Version, Measurement: r.Measurement, Policy: r.Policy, ABI: fmt.Sprintf("%d.%d", p.ABIMajor, p.ABIMinor),
		Debug: p.Debug, Migration: p.MigrateMA, SMT: p.SMT, SingleSocket: p.SingleSocket, VMPL: r.Vmpl, GuestSVN: r.GuestSvn,
		FamilyID: r.FamilyId, ImageID: r.ImageId, HostData: r.HostData, ReportData: r.ReportData, IDKeyDigest: r.IdKeyDigest,
		ReportedTCB: fmt.Sprintf("%#016x", r.ReportedTcb), LaunchTCB: fmt.Sprintf("%#016x", r.LaunchTcb),
		Firmware: fmt.Sprintf("%d.%d build %d", r.CurrentMajor, r.CurrentMinor, r.CurrentBuild), ChipID: r.ChipId, CPU: r.Cpuid1EaxFms,
	}, nil
}
