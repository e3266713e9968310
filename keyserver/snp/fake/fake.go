// Package fake plays AMD and the firmware of its chips in tests: a throw-away root, issuers, VCEKs and VLEKs of any product, lists of
// revocations, and signed reports. It builds on google/go-sev-guest's package testing, whose keys anybody can read: what it makes is
// taken only by a verifier that was told to trust its root.
package fake

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	"github.com/google/go-sev-guest/proto/sevsnp"
	test "github.com/google/go-sev-guest/testing"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/sev"
)

// Made is when everything of AMD's was made.
var Made = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Serials of the issuers. The library gives all of its certificates the same.
var (
	ASKSerial  = big.NewInt(0x10001)
	ASVKSerial = big.NewInt(0x10002)
	VLEKSerial = big.NewInt(0x10003)
)

// AMD is a throw-away AMD that makes one chip.
type AMD struct {
	Product snp.Product
	TCB     snp.TCB // that the chip's certificates are for, and its reports report
	Chip    snp.ChipID
	Model   uint8 // of the processor's family

	signer *test.AmdSigner
}

// Default is what New's chips have.
var (
	MilanTCB = snp.TCB{Bootloader: 4, TEE: 1, SNP: 24, Microcode: 219}
	GenoaTCB = snp.TCB{Bootloader: 10, TEE: 2, SNP: 23, Microcode: 84}
	TurinTCB = snp.TCB{FMC: 1, Bootloader: 2, TEE: 3, SNP: 4, Microcode: 82}
)

// New makes an AMD and a chip of the product.
func New(p snp.Product) *AMD {
	a := &AMD{Product: p, TCB: MilanTCB, Model: 0x01}
	for i := range a.Chip {
		a.Chip[i] = byte(0xc0 + i)
	}
	switch p {
	case snp.Genoa:
		a.TCB, a.Model = GenoaTCB, 0x11
	case snp.Turin:
		a.TCB, a.Model = TurinTCB, 0x02
		clear(a.Chip[8:])
	}
	a.Certify(nil)
	return a
}

// Certify makes the certificates, anew for what has changed in a; spoil may change what the library is told.
func (a *AMD) Certify(spoil func(*test.AmdSignerBuilder)) {
	b := &test.AmdSignerBuilder{
		ProductName: string(a.Product) + "-B0", CSPID: "cloud.example",
		ArkCreationTime: Made, AskCreationTime: Made, AsvkCreationTime: Made, VcekCreationTime: Made, VlekCreationTime: Made,
		AskCustom:  test.CertOverride{SerialNumber: ASKSerial},
		AsvkCustom: test.CertOverride{SerialNumber: ASVKSerial},
		VcekCustom: test.CertOverride{Extensions: a.Extensions(snp.VCEK)},
		VlekCustom: test.CertOverride{Extensions: a.Extensions(snp.VLEK), SerialNumber: VLEKSerial},
	}
	if spoil != nil {
		spoil(b)
	}
	signer, err := b.TestOnlyCertChain()
	must(err)
	a.signer = signer
}

// Extensions are those of AMD's in the certificate of a signer.
func (a *AMD) Extensions(s snp.Signer) []pkix.Extension {
	number := func(oid asn1.ObjectIdentifier, n uint8) pkix.Extension {
		der, err := asn1.Marshal(int(n))
		must(err)
		return pkix.Extension{Id: oid, Value: der}
	}
	text := func(oid asn1.ObjectIdentifier, s string) pkix.Extension {
		der, err := asn1.MarshalWithParams(s, "ia5")
		must(err)
		return pkix.Extension{Id: oid, Value: der}
	}
	structure, chip := uint8(0), a.Chip[:]
	if a.Product == snp.Turin {
		structure, chip = 1, a.Chip[:8]
	}
	list := []pkix.Extension{number(kds.OidStructVersion, structure)}
	if s == snp.VCEK {
		list = append(list, text(kds.OidProductName1, string(a.Product)+"-B0"), pkix.Extension{Id: kds.OidHwid, Value: chip})
	} else {
		list = append(list, text(kds.OidProductName1, string(a.Product)), text(kds.OidCspID, "cloud.example"))
	}
	list = append(list, number(kds.OidBlSpl, a.TCB.Bootloader), number(kds.OidTeeSpl, a.TCB.TEE), number(kds.OidSnpSpl, a.TCB.SNP),
		number(kds.OidSpl5, 0), number(kds.OidSpl6, 0), number(kds.OidSpl7, 0), number(kds.OidUcodeSpl, a.TCB.Microcode))
	if structure == 1 {
		return append(list, number(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 9}, a.TCB.FMC))
	}
	return append(list, number(kds.OidSpl4, 0))
}

// Roots trusts this AMD's root.
func (a *AMD) Roots() sev.RootSet {
	return sev.RootSet{}.With("fake", sev.RootDigest(sha256.Sum256(a.signer.Ark.RawSubjectPublicKeyInfo)))
}

// The certificates.
func (a *AMD) ARK() *x509.Certificate  { return a.signer.Ark }
func (a *AMD) ASK() *x509.Certificate  { return a.signer.Ask }
func (a *AMD) ASVK() *x509.Certificate { return a.signer.Asvk }
func (a *AMD) VCEK() *x509.Certificate { return a.signer.Vcek }
func (a *AMD) VLEK() *x509.Certificate { return a.signer.Vlek }

// PEM joins certificates, as AMD's cert_chain does.
func PEM(list ...*x509.Certificate) []byte {
	var b []byte
	for _, c := range list {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

// Table is the certificate table that a host hands to its guests, filled up to a whole page.
func (a *AMD) Table() []byte {
	b, err := a.signer.CertTableBytes()
	must(err)
	return append(b, make([]byte, -len(b)&4095)...)
}

// List makes AMD's list of revocations.
func (a *AMD) List(made, due time.Time, revoked ...*big.Int) []byte {
	crl := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: made, NextUpdate: due, SignatureAlgorithm: x509.SHA384WithRSAPSS}
	for _, serial := range revoked {
		crl.RevokedCertificateEntries = append(crl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: made})
	}
	// The library's ARK has no subject key id, which Go wants for the list's authority key id.
	issuer := *a.signer.Ark
	issuer.SubjectKeyId = []byte{1}
	der, err := x509.CreateRevocationList(rand.Reader, crl, &issuer, a.signer.Keys.Ark)
	must(err)
	return der
}

// Report is a report that the firmware would make for a guest at VMPL 0 under QEMU's policy, to be changed and then signed.
func (a *AMD) Report(version uint32, digest snp.Digest, d snp.ReportData) *sevsnp.Report {
	tcb := a.version(a.TCB)
	r := &sevsnp.Report{
		Version: version, Policy: 0x30000, SignatureAlgo: abi.SignEcdsaP384Sha384, PlatformInfo: 0x25,
		ReportData: d[:], Measurement: digest[:], ChipId: a.Chip[:],
		CurrentTcb: tcb, ReportedTcb: tcb, CommittedTcb: tcb, LaunchTcb: tcb,
		CurrentMajor: 1, CurrentMinor: 55, CurrentBuild: 39, CommittedMajor: 1, CommittedMinor: 55, CommittedBuild: 39,
		FamilyId: make([]byte, 16), ImageId: make([]byte, 16), HostData: make([]byte, 32), IdKeyDigest: make([]byte, 48),
		AuthorKeyDigest: make([]byte, 48), ReportId: make([]byte, 32), ReportIdMa: make([]byte, 32), Signature: make([]byte, 512),
	}
	if version >= 3 {
		family := byte(0x19)
		if a.Product == snp.Turin {
			family = 0x1a
		}
		r.Cpuid1EaxFms = abi.FmsToCpuid1Eax(family, a.Model, 1)
	}
	if version >= 5 {
		r.LaunchMitVector, r.CurrentMitVector = 3, 3
	}
	return r
}

// TCBVersion is a TCB in the form of the product's reports.
func (a *AMD) version(t snp.TCB) uint64 { return TCBVersion(a.Product, t) }

// TCBVersion is a TCB in the form of a product's reports (publication 56860, TCB_VERSION).
func TCBVersion(p snp.Product, t snp.TCB) uint64 {
	if p == snp.Turin {
		return uint64(t.FMC) | uint64(t.Bootloader)<<8 | uint64(t.TEE)<<16 | uint64(t.SNP)<<24 | uint64(t.Microcode)<<56
	}
	return uint64(t.Bootloader) | uint64(t.TEE)<<8 | uint64(t.SNP)<<48 | uint64(t.Microcode)<<56
}

// VLEK is SIGNING_KEY of a report that a VLEK signs; 0 is a VCEK's.
const VLEK = uint32(abi.VlekReportSigner) << 2

// Sign signs a report with the key that it names.
func (a *AMD) Sign(r *sevsnp.Report) []byte {
	raw, err := abi.ReportToAbiBytes(r)
	must(err)
	a.SignRaw(raw)
	return raw
}

// SignRaw signs a report's bytes, whatever is in them.
func (a *AMD) SignRaw(raw []byte) {
	key := a.signer.Keys.Vcek
	if raw[0x48]&0x1c == byte(VLEK) {
		key = a.signer.Keys.Vlek
	}
	sum := sha512.Sum384(abi.SignedComponent(raw))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	must(err)
	must(abi.SetSignature(r, s, raw))
}

func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("fake AMD: %v", err))
	}
}
