package snp_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	pb "github.com/google/go-sev-guest/proto/sevsnp"
	amdtest "github.com/google/go-sev-guest/testing"
	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/google/go-sev-guest/verify/trust"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
	"github.com/sealboot/sealboot/sev"
)

var (
	now        = fake.Made.Add(100 * 24 * time.Hour)
	goodDigest = snp.Digest{1, 2, 3}
	goodData   = snp.ReportData{4, 5, 6}
)

// amds makes one AMD of each product.
var amds = sync.OnceValue(func() map[snp.Product]*fake.AMD {
	return map[snp.Product]*fake.AMD{snp.Milan: fake.New(snp.Milan), snp.Genoa: fake.New(snp.Genoa), snp.Turin: fake.New(snp.Turin)}
})

// policy asks for what the fakes have, without revocations.
func policy() snp.Policy {
	p := snp.DefaultPolicy()
	p.Revocation = snp.Revocation{}
	p.Products = map[snp.Product]snp.Floor{}
	for name, a := range amds() {
		p.Products[name] = snp.Floor{TCB: a.TCB, Firmware: snp.Firmware{Major: 1, Minor: 55, Build: 39}}
	}
	p.Signers = []snp.Signer{snp.VCEK, snp.VLEK}
	return p
}

func verifier(t testing.TB, roots sev.RootSet, source snp.Source, bundles ...*snp.Bundle) *snp.Verifier {
	t.Helper()
	v, err := snp.NewVerifier(roots, source, bundles...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// good is a report that holds.
func good(a *fake.AMD, version uint32) *pb.Report { return a.Report(version, goodDigest, goodData) }

func judge(t testing.TB, v *snp.Verifier, e snp.Evidence) {
	t.Helper()
	a, err := v.Verify(t.Context(), e, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Judge(policy(), goodData, now).Err(); err != nil {
		t.Fatal(err)
	}
}

// TestGood takes reports of every version, product and signer, with certificates in every form.
func TestGood(t *testing.T) {
	taken := 0
	for name, a := range amds() {
		v := verifier(t, a.Roots(), nil)
		for _, version := range []uint32{2, 3, 5} {
			for _, signer := range []uint32{0, fake.VLEK} {
				r := good(a, version)
				r.SignerInfo = signer
				raw := a.Sign(r)
				key, issuer := a.VCEK(), a.ASK()
				if signer == fake.VLEK {
					key, issuer = a.VLEK(), a.ASVK()
				}
				for form, certificates := range map[string][]byte{
					"table":   a.Table(),
					"PEM":     fake.PEM(key, issuer, a.ARK()),
					"DER":     append(append(append([]byte{}, a.ARK().Raw...), key.Raw...), issuer.Raw...),
					"bundled": nil,
				} {
					v := v
					if form == "bundled" {
						v = verifier(t, a.Roots(), nil, bundle(t, fake.PEM(a.ARK(), issuer, key)))
					}
					at, err := v.Verify(t.Context(), snp.Evidence{Report: raw, Certificates: certificates}, now)
					if err != nil {
						t.Errorf("%s, version %d, signer %d, %s: %v", name, version, signer, form, err)
						continue
					}
					verdict := at.Judge(policy(), goodData, now)
					if err := verdict.Err(); err != nil {
						t.Errorf("%s, version %d, signer %d, %s: %v", name, version, signer, form, err)
					}
					if f := verdict.Facts; at.Launch() != goodDigest || f.Product != name || f.Chip != a.Chip || f.TCB != a.TCB.String() || f.Firmware != "1.55.39" ||
						f.ReportVersion != uint8(version) || (f.Signer == snp.VLEK) != (signer != 0) || (f.Cloud != "") != (signer != 0) {
						t.Errorf("facts: %+v", f)
					}
					taken++
				}
			}
		}
	}
	if taken != 3*3*2*4 {
		t.Errorf("%d reports were taken", taken)
	}
}

// TestReal takes a report and a VCEK of a real Milan machine, up to AMD's own root, with nothing but them.
func TestReal(t *testing.T) {
	v := verifier(t, sev.AMDRoots(), nil)
	then := time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC)
	at, err := v.Verify(t.Context(), snp.Evidence{Report: testdata.AttestationBytes, Certificates: testdata.VcekBytes}, then)
	if err != nil {
		t.Fatal(err)
	}
	f := at.Facts()
	if f.Product != snp.Milan || f.ReportVersion != 2 || f.Policy != "0xb0000" || f.Firmware != "1.49.3" ||
		f.TCB != "fmc 0, bootloader 2, tee 0, snp 5, microcode 68" {
		t.Errorf("facts: %+v", f)
	}
	verdict := at.Judge(snp.DefaultPolicy(), snp.ReportData{1, 2, 3, 4, 5}, then)
	for _, reason := range []error{snp.ErrDebug, snp.ErrRevocationAge} {
		if !errors.Is(verdict.Err(), reason) {
			t.Errorf("no complaint that %v: %v", reason, verdict.Err())
		}
	}
	for i := range testdata.AttestationBytes {
		spoiled := append([]byte{}, testdata.AttestationBytes...)
		spoiled[i] ^= 1
		if _, err := v.Verify(t.Context(), snp.Evidence{Report: spoiled, Certificates: testdata.VcekBytes}, then); err == nil {
			t.Fatalf("taken with byte %#x changed", i)
		}
	}
	if _, err := v.Verify(t.Context(), snp.Evidence{Report: testdata.AttestationBytes, Certificates: testdata.VcekBytes}, then.AddDate(10, 0, 0)); err == nil {
		t.Error("taken after the certificate's time")
	}
}

// TestAMD holds AMD's certificates that the library carries against the digests of AMD's root keys: six issuers, each of its product.
func TestAMD(t *testing.T) {
	a := amds()[snp.Milan]
	for line, text := range map[string][]byte{"Milan": trust.AskArkMilanVcekBytes, "Genoa": trust.AskArkGenoaVlekBytes, "Turin": trust.AskArkTurinVcekBytes} {
		v := verifier(t, sev.AMDRoots(), nil)
		// The issuer is known and trusted, so it is the certificate's signature that does not hold.
		der, _, err := kds.ParseProductCertChain(text)
		if err != nil {
			t.Fatal(err)
		}
		issuer, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		lookalike := *a.ASK()
		lookalike.RawSubject = issuer.RawSubject
		template := &x509.Certificate{SerialNumber: a.VCEK().SerialNumber, NotBefore: a.VCEK().NotBefore, NotAfter: a.VCEK().NotAfter,
			SignatureAlgorithm: x509.SHA384WithRSAPSS, Subject: pkix.Name{CommonName: "SEV-VCEK"}, ExtraExtensions: a.Extensions(snp.VCEK)}
		raw := a.Sign(good(a, 3))
		if issuer.Subject.CommonName == "SEV-VLEK-Genoa" {
			template.Subject.CommonName, template.ExtraExtensions = "SEV-VLEK", a.Extensions(snp.VLEK)
			r := good(a, 3)
			r.SignerInfo = fake.VLEK
			raw = a.Sign(r)
		}
		forged, err := x509.CreateCertificate(rand.Reader, template, &lookalike, a.VCEK().PublicKey, amdtest.DefaultAsk())
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Verify(t.Context(), snp.Evidence{Report: raw, Certificates: forged}, now)
		link := (*snp.LinkError)(nil)
		if !errors.As(err, &link) || !errors.Is(err, rsa.ErrVerification) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// TestReports spoils a good report, one thing at a time.
func TestReports(t *testing.T) {
	a := amds()[snp.Milan]
	v := verifier(t, a.Roots(), nil)
	raw := a.Sign(good(a, 5))
	judge(t, v, snp.Evidence{Report: raw, Certificates: a.Table()})
	format := new(snp.FormatError)
	for name, spoil := range map[string]func([]byte) []byte{
		"empty":                  func(b []byte) []byte { return nil },
		"truncated":              func(b []byte) []byte { return b[:len(b)-1] },
		"extended":               func(b []byte) []byte { return append(b, 0) },
		"with its table":         func(b []byte) []byte { return append(b, a.Table()...) },
		"version 4":              func(b []byte) []byte { b[0] = 4; return b },
		"version 6":              func(b []byte) []byte { b[0] = 6; return b },
		"version 258":            func(b []byte) []byte { b[1] = 1; return b },
		"host's VMPL":            func(b []byte) []byte { binary.LittleEndian.PutUint32(b[0x30:], 0xffffffff); return b },
		"VMPL 4":                 func(b []byte) []byte { b[0x30] = 4; return b },
		"algorithm 2":            func(b []byte) []byte { b[0x34] = 2; return b },
		"reserved policy bit":    func(b []byte) []byte { b[0x0f] = 1; return b },
		"no policy bit 17":       func(b []byte) []byte { b[0x0a] &^= 2; return b },
		"reserved after signer":  func(b []byte) []byte { b[0x4c] = 1; return b },
		"reserved after CPUID":   func(b []byte) []byte { b[0x190] = 1; return b },
		"stepping of five bits":  func(b []byte) []byte { b[0x18a] = 0x11; return b },
		"reserved after vectors": func(b []byte) []byte { b[0x29f] = 1; return b },
		"after the signature":    func(b []byte) []byte { b[len(b)-1] = 1; return b },
		"signing key 2":          func(b []byte) []byte { b[0x48] = 2 << 2; return b },
		"vectors in version 3":   func(b []byte) []byte { b[0] = 3; return b },
		"unknown TCB part":       func(b []byte) []byte { b[0x1e4] = 1; return b },
	} {
		spoiled := spoil(append([]byte{}, raw...))
		if len(spoiled) == len(raw) && name != "after the signature" {
			a.SignRaw(spoiled) // the form is what is wrong, not the signature
		}
		if _, err := v.Verify(t.Context(), snp.Evidence{Report: spoiled, Certificates: a.Table()}, now); !errors.As(err, &format) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		spoil func(*pb.Report)
		want  error
	}{
		"not signed":              {func(r *pb.Report) { r.SignerInfo = 7 << 2 }, snp.ErrUnsigned},
		"another chip":            {func(r *pb.Report) { r.ChipId = make([]byte, 64); r.ChipId[3] = 1 }, snp.ErrMismatch},
		"another reported TCB":    {func(r *pb.Report) { r.ReportedTcb-- }, snp.ErrMismatch},
		"another product":         {func(r *pb.Report) { r.Cpuid1EaxFms = abi.FmsToCpuid1Eax(0x19, 0x11, 1) }, snp.ErrMismatch},
		"Siena, Milan's key":      {func(r *pb.Report) { r.Cpuid1EaxFms = abi.FmsToCpuid1Eax(0x19, 0xa0, 2) }, snp.ErrMismatch},
		"a processor of tomorrow": {func(r *pb.Report) { r.Cpuid1EaxFms = abi.FmsToCpuid1Eax(0x1c, 1, 1) }, snp.ErrProduct},
	} {
		r := good(a, 5)
		c.spoil(r)
		if _, err := v.Verify(t.Context(), snp.Evidence{Report: a.Sign(r), Certificates: a.Table()}, now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range raw {
		spoiled := append([]byte{}, raw...)
		spoiled[i] ^= 0x40
		if _, err := v.Verify(t.Context(), snp.Evidence{Report: spoiled, Certificates: a.Table()}, now); err == nil {
			t.Fatalf("taken with byte %#x changed", i)
		}
	}
}

// TestSienaAndBergamo: family 19h, models A0h to AFh are certified by Genoa's issuers, which the library does not know.
func TestSienaAndBergamo(t *testing.T) {
	a := amds()[snp.Genoa]
	v := verifier(t, a.Roots(), nil)
	r := good(a, 3)
	r.Cpuid1EaxFms = abi.FmsToCpuid1Eax(0x19, 0xa0, 2)
	at, err := v.Verify(t.Context(), snp.Evidence{Report: a.Sign(r), Certificates: a.Table()}, now)
	if err != nil {
		t.Fatal(err)
	}
	verdict := at.Judge(policy(), goodData, now)
	if err := verdict.Err(); err != nil || verdict.Facts.Product != snp.Genoa || verdict.Facts.Processor != "Siena or Bergamo" {
		t.Errorf("%+v, %v", verdict.Facts, err)
	}
	p := policy()
	delete(p.Products, snp.Genoa)
	if err := at.Judge(p, goodData, now).Err(); !errors.Is(err, snp.ErrNotAllowed) {
		t.Errorf("Genoa is not allowed: %v", err)
	}
	if abi.SevProductFromCpuid1Eax(r.Cpuid1EaxFms).Name != pb.SevProduct_SEV_PRODUCT_UNKNOWN {
		t.Log("the library knows Siena and Bergamo by now: its verify package could be used again")
	}
}

// TestMaskedChip: a host may hide the chip's id in the report; the VCEK names it all the same.
func TestMaskedChip(t *testing.T) {
	a := amds()[snp.Milan]
	v := verifier(t, a.Roots(), nil)
	p := policy()
	p.Chips = snp.Only(a.Chip)
	for signer, allowed := range map[uint32]bool{0: true, fake.VLEK: false} {
		r := good(a, 3)
		r.SignerInfo, r.ChipId = signer, make([]byte, 64)
		at, err := v.Verify(t.Context(), snp.Evidence{Report: a.Sign(r), Certificates: a.Table()}, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := at.Judge(p, goodData, now).Err(); (err == nil) != allowed || err != nil && !errors.Is(err, snp.ErrChip) {
			t.Errorf("signer %d: %v", signer, err)
		}
	}
}
