package snpreport

import (
	"encoding/binary"
	"fmt"

	"github.com/sealboot/sealboot/measure"
)

// reserved are the bytes of a report that must be zero (AMD SNP ABI 56860, table ATTESTATION_REPORT).
var reserved = []struct{ from, to int }{
	{0x4c, 0x50}, {0x18b, 0x1a0}, {0x1eb, 0x1ec}, {0x1ef, 0x1f0}, {0x208, signatureAt},
}

const (
	signatureAt   = 0x2a0
	signatureSize = 2 * 72 // R and S of ECDSA P-384; zeros follow
	ecdsaP384     = 1      // SIGNATURE_ALGO
)

// Bits of the guest's policy (the same, table GUEST_POLICY).
const (
	policySMT          = 1 << 16
	policyReserved     = 1 << 17 // must be one
	policyMigration    = 1 << 18
	policyDebug        = 1 << 19
	policySingleSocket = 1 << 20
	policyEnd          = 26 // bits from here on must be zero
)

// parse reads a report of Size bytes and refuses one with anything in a reserved field.
func parse(raw []byte) (*Facts, error) {
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(raw[at:]) }
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(raw[at:]) }
	version, policy := u32(0), u64(0x08)
	if version < 2 || version > 16 { // 1 was never shipped; a file of something else has any number here
		return nil, fmt.Errorf("version %d", version)
	}
	if policy&policyReserved == 0 || policy>>policyEnd != 0 {
		return nil, fmt.Errorf("policy %#x: reserved bits are not as they must be", policy)
	}
	// AUTHOR_KEY_EN, MASK_CHIP_KEY, and SIGNING_KEY: VCEK 0, VLEK 1, none 7.
	if signer := u32(0x48); signer>>5 != 0 || signer>>2 > 1 && signer>>2 != 7 {
		return nil, fmt.Errorf("signing key %#x: no such kind", signer)
	}
	zeros := reserved
	if u32(0x34) == ecdsaP384 {
		zeros = append(zeros[:len(zeros):len(zeros)], struct{ from, to int }{signatureAt + signatureSize, Size})
	}
	var cpu uint32
	if version >= 3 {
		cpu = measure.Signature(raw[0x188], raw[0x189], raw[0x18a])
	} else {
		zeros = append(zeros[:len(zeros):len(zeros)], struct{ from, to int }{0x188, 0x18b})
	}
	for _, z := range zeros {
		for at := z.from; at < z.to; at++ {
			if raw[at] != 0 {
				return nil, fmt.Errorf("byte %#x is %#x: it is reserved and must be zero", at, raw[at])
			}
		}
	}
	bytes := func(from, to int) measure.Hex { return append(measure.Hex(nil), raw[from:to]...) }
	return &Facts{
		Version: version, GuestSVN: u32(0x04), VMPL: u32(0x30), CPU: cpu,
		Policy: policy, ABI: fmt.Sprintf("%d.%d", uint8(policy>>8), uint8(policy)),
		Debug: policy&policyDebug != 0, Migration: policy&policyMigration != 0,
		SMT: policy&policySMT != 0, SingleSocket: policy&policySingleSocket != 0,
		FamilyID: bytes(0x10, 0x20), ImageID: bytes(0x20, 0x30), ReportData: bytes(0x50, 0x90),
		Measurement: bytes(0x90, 0xc0), HostData: bytes(0xc0, 0xe0), IDKeyDigest: bytes(0xe0, 0x110),
		ReportedTCB: fmt.Sprintf("%#016x", u64(0x180)), ChipID: bytes(0x1a0, 0x1e0),
		Firmware:  fmt.Sprintf("%d.%d build %d", raw[0x1ea], raw[0x1e9], raw[0x1e8]),
		LaunchTCB: fmt.Sprintf("%#016x", u64(0x1f0)),
	}, nil
}
