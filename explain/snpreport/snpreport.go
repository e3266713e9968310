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

	"github.com/sealboot/sealboot/measure"
)

// ErrReport is wrapped by all complaints about a report.
var ErrReport = errors.New("SNP attestation report")

// maxReport bounds a file: a report with certificates behind it has some ten thousand bytes.
const maxReport = 1 << 20

// Size is a report's, in bytes.
const Size = 0x4a0

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
	if len(raw) >= responseHeader+Size && binary.LittleEndian.Uint32(raw) == 0 && binary.LittleEndian.Uint32(raw[4:]) == Size {
		raw = raw[responseHeader:]
	}
	if len(raw) < Size {
		return nil, fmt.Errorf("%w: %d bytes, not %d", ErrReport, len(raw), Size)
	}
	facts, err := parse(raw[:Size])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	return facts, nil
}
