package snp_test

import (
	"errors"
	"testing"

	"github.com/google/go-sev-guest/abi"
	pb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/validate"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
)

// library verifies and validates as google/go-sev-guest does.
func library(a *fake.AMD, raw []byte, p snp.Policy) error {
	r, err := abi.ReportToProto(raw)
	if err != nil {
		return err
	}
	root := trust.AMDRootCertsProduct(string(a.Product))
	root.ProductCerts = &trust.ProductCerts{Ark: a.ARK(), Ask: a.ASK(), Asvk: a.ASVK()}
	at := &pb.Attestation{Report: r, CertificateChain: &pb.CertificateChain{VcekCert: a.VCEK().Raw, VlekCert: a.VLEK().Raw,
		AskCert: a.ASK().Raw, ArkCert: a.ARK().Raw}}
	if err := verify.SnpAttestation(at, &verify.Options{DisableCertFetching: true, Now: now,
		TrustedRoots: map[string][]*trust.AMDRootCerts{string(a.Product): {root}}}); err != nil {
		return err
	}
	floor := p.Products[a.Product]
	vmpl := int(p.VMPL[0])
	opts := &validate.Options{GuestPolicy: abi.SnpPolicy{SMT: p.Guest.AllowSMT}, ReportData: goodData[:], Measurement: goodDigest[:], VMPL: &vmpl,
		MinimumVersion: uint16(floor.Firmware.Major)<<8 | uint16(floor.Firmware.Minor), MinimumBuild: floor.Firmware.Build,
		PermitProvisionalFirmware: true}
	opts.MinimumTCB.BlSpl, opts.MinimumTCB.TeeSpl = floor.TCB.Bootloader, floor.TCB.TEE
	opts.MinimumTCB.SnpSpl, opts.MinimumTCB.UcodeSpl = floor.TCB.SNP, floor.TCB.Microcode
	opts.MinimumLaunchTCB = opts.MinimumTCB
	return validate.SnpAttestation(at, opts)
}

// TestLibrary changes every byte of a report, signs it again, and holds the verdict against the library's: what the library refuses is
// refused here. What is refused here alone is counted, and named below.
func TestLibrary(t *testing.T) {
	taken, stricter := 0, map[int]bool{}
	for p, versions := range map[snp.Product][]uint32{snp.Milan: {2, 5}, snp.Genoa: {3}} {
		a := amds()[p]
		v := verifier(t, a.Roots(), nil)
		for _, version := range versions {
			raw := a.Sign(good(a, version))
			if err := library(a, raw, policy()); err != nil {
				t.Fatalf("%s, version %d: the library refuses the good case: %v", p, version, err)
			}
			for i := range 0x2a0 {
				spoiled := append([]byte{}, raw...)
				spoiled[i] ^= 1
				a.SignRaw(spoiled)
				at, ours := v.Verify(t.Context(), snp.Evidence{Report: spoiled, Certificates: a.Table()}, now)
				if ours == nil {
					ours = at.Judge(policy(), goodData, now).Err()
					if at.Launch() != goodDigest {
						ours = errors.New("another digest")
					}
				}
				theirs := library(a, spoiled, policy())
				switch {
				case ours == nil && theirs != nil && i == 0x189 && version > 2: // it knows one model of each product, not the range
				case ours == nil && theirs != nil:
					t.Errorf("%s, version %d, byte %#x: taken, but the library says: %v", p, version, i, theirs)
				case ours != nil && theirs == nil:
					stricter[i] = true
				case ours == nil:
					taken++
				}
			}
		}
	}
	if taken == 0 {
		t.Error("no changed report was taken, not even one with other host data")
	}
	// The version itself, its mitigation vectors in older reports, platform bits, the committed TCB and firmware under the floor.
	for i := range stricter {
		switch {
		case i < 4, i >= 0x40 && i < 0x48, i >= 0x188 && i < 0x18b, i >= 0x1e0 && i < 0x1f8, i >= 0x1f8 && i < 0x208, i >= 0x38 && i < 0x40:
		default:
			t.Errorf("byte %#x: refused, but the library takes it", i)
		}
	}
}
