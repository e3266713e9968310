package snp_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"testing"

	"github.com/google/go-sev-guest/kds"
	amdtest "github.com/google/go-sev-guest/testing"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
)

// TestChains forges each link of the chain, each in a chain that is whole but for that.
func TestChains(t *testing.T) {
	newKey, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := amdtest.DefaultAmdKeys
	good1 := fake.New(snp.Milan)
	fresh := func(spoil func(*fake.AMD, *amdtest.AmdSignerBuilder)) *fake.AMD {
		a := fake.New(snp.Milan)
		a.Certify(func(b *amdtest.AmdSignerBuilder) { spoil(a, b) })
		return a
	}
	other := fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) {
		k := keys()
		k.Ark, k.Ask, k.Asvk = newKey, newKey, newKey
		b.Keys = k
	})
	without := func(oid asn1.ObjectIdentifier) func(*fake.AMD, *amdtest.AmdSignerBuilder) {
		return func(a *fake.AMD, b *amdtest.AmdSignerBuilder) {
			var kept []pkix.Extension
			for _, x := range a.Extensions(snp.VCEK) {
				if !x.Id.Equal(oid) {
					kept = append(kept, x)
				}
			}
			b.VcekCustom.Extensions = kept
		}
	}
	with := func(x pkix.Extension) func(*fake.AMD, *amdtest.AmdSignerBuilder) {
		return func(a *fake.AMD, b *amdtest.AmdSignerBuilder) {
			b.VcekCustom.Extensions = append(a.Extensions(snp.VCEK), x)
		}
	}
	instead := func(oid asn1.ObjectIdentifier, value ...byte) func(*fake.AMD, *amdtest.AmdSignerBuilder) {
		return func(a *fake.AMD, b *amdtest.AmdSignerBuilder) {
			without(oid)(a, b)
			b.VcekCustom.Extensions = append(b.VcekCustom.Extensions, pkix.Extension{Id: oid, Value: value})
		}
	}
	link, format := new(snp.LinkError), new(snp.FormatError)
	for name, c := range map[string]struct {
		amd          *fake.AMD // signs the report
		certificates []byte    // nil: its own
		signer       uint32
		as           any   // with errors.As
		is           error // with errors.Is
	}{
		"root of another":     {amd: other, is: snp.ErrUntrustedRoot},
		"issuer by another":   {amd: good1, certificates: fake.PEM(good1.VCEK(), other.ASK(), good1.ARK()), as: &link},
		"VCEK by another":     {amd: other, certificates: fake.PEM(other.VCEK(), good1.ASK(), good1.ARK()), as: &link},
		"no VCEK":             {amd: good1, certificates: fake.PEM(good1.ASK(), good1.ARK()), is: snp.ErrNoCertificate},
		"no issuer":           {amd: good1, certificates: fake.PEM(good1.VCEK(), good1.ARK()), is: snp.ErrNoCertificate},
		"no root":             {amd: good1, certificates: fake.PEM(good1.VCEK(), good1.ASK()), is: snp.ErrNoCertificate},
		"VLEK for VCEK":       {amd: good1, certificates: fake.PEM(good1.VLEK(), good1.ASVK(), good1.ARK()), is: snp.ErrNoCertificate},
		"VCEK for VLEK":       {amd: good1, signer: fake.VLEK, certificates: fake.PEM(good1.VCEK(), good1.ASK(), good1.ARK()), is: snp.ErrNoCertificate},
		"VLEK by the ASK":     {amd: good1, signer: fake.VLEK, certificates: fake.PEM(good1.VLEK(), good1.ASK(), good1.ARK()), is: snp.ErrNoCertificate},
		"VCEK of another key": {amd: fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) { b.Keys = keys(); b.Keys.Vcek = ec }), certificates: good1.Table(), is: snp.ErrSignature},
		"small issuer":        {amd: fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) { b.Keys = keys(); b.Keys.Ask = small }), as: &link},
		"issuer is no CA": {amd: fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) {
			b.AskCustom.KeyUsage = x509.KeyUsageDigitalSignature
		}), as: &link},
		"issuer of Genoa": {amd: fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) {
			b.AskCustom.Subject = &pkix.Name{CommonName: "SEV-Genoa"}
		}), as: &link},
		"root of Naples": {amd: fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) {
			b.ArkCustom.Subject = &pkix.Name{CommonName: "ARK-Naples"}
		}), is: snp.ErrProduct},
		"root of Genoa": {amd: fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) { b.ProductName = "Genoa-B0" }), is: snp.ErrMismatch},
		"issuer over":   {amd: fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) { b.AskCreationTime = now.AddDate(-30, 0, 0) }), as: &link},
		"VCEK over":     {amd: fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) { b.VcekCreationTime = now.AddDate(-8, 0, 0) }), as: &link},
		"root not yet":  {amd: fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) { b.ArkCreationTime = now.AddDate(0, 0, 1) }), as: &link},
		"subject of VCEK": {amd: fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) {
			b.VcekCustom.Subject = &pkix.Name{CommonName: "SEV-Milan"}
		}), as: &format},
		"chip id of eight bytes": {amd: fresh(instead(kds.OidHwid, good1.Chip[:8]...)), as: &link},
		"chip id of nine bytes":  {amd: fresh(instead(kds.OidHwid, good1.Chip[:9]...)), as: &link},
		"product is a number":    {amd: fresh(instead(kds.OidProductName1, 2, 1, 1)), as: &link},
		"product with a bell":    {amd: fresh(instead(kds.OidProductName1, 22, 1, 7)), as: &link},
		"issuer by SHA-256": {amd: fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) {
			b.AskCustom.SignatureAlgorithm = x509.SHA256WithRSAPSS
		}), as: &link},
		"VCEK by SHA-256": {amd: fresh(func(_ *fake.AMD, b *amdtest.AmdSignerBuilder) {
			b.VcekCustom.SignatureAlgorithm = x509.SHA256WithRSAPSS
		}), as: &format},
		"no chip id":            {amd: fresh(without(kds.OidHwid)), as: &link},
		"no SNP level":          {amd: fresh(without(kds.OidSnpSpl)), as: &link},
		"no structure":          {amd: fresh(without(kds.OidStructVersion)), as: &link},
		"no product":            {amd: fresh(without(kds.OidProductName1)), as: &link},
		"reserved level":        {amd: fresh(instead(kds.OidSpl5, 2, 1, 1)), as: &link},
		"FMC level":             {amd: fresh(with(pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 9}, Value: []byte{2, 1, 1}})), as: &link},
		"unknown extension":     {amd: fresh(with(pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 6}, Value: []byte{2, 1, 1}})), as: &link},
		"unknown and critical":  {amd: fresh(with(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{2, 1, 1}})), as: &link},
		"cloud in a VCEK":       {amd: fresh(with(pkix.Extension{Id: kds.OidCspID, Value: []byte{22, 1, 'x'}})), as: &link},
		"level of two bytes":    {amd: fresh(instead(kds.OidSnpSpl, 2, 2, 1, 24)), as: &link},
		"list of revocations":   {amd: good1, certificates: append(good1.Table()[:0:0], good1.List(now, now.AddDate(1, 0, 0))...), as: &format},
		"a stranger's":          {amd: good1, certificates: fake.PEM(good1.VCEK(), good1.VCEK()), as: &format},
		"garbage":               {amd: good1, certificates: []byte("garbage that is long enough to be a table's entry"), as: &format},
		"PEM with more":         {amd: good1, certificates: append(fake.PEM(good1.VCEK()), "x"...), as: &format},
		"PEM of a key":          {amd: good1, certificates: []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), as: &format},
		"DER with more":         {amd: good1, certificates: append(append([]byte{}, good1.VCEK().Raw...), 0), as: &format},
		"huge":                  {amd: good1, certificates: make([]byte, snp.MaxCertificates+1), as: &format},
		"one huge":              {amd: fresh(with(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, 5000)})), as: &format},
		"seventeen":             {amd: good1, certificates: bytes.Repeat(fake.PEM(good1.ASK()), 17), as: &format},
		"certificate not ended": {amd: good1, certificates: good1.VCEK().Raw[:1000], as: &format},
	} {
		v := verifier(t, good1.Roots(), nil)
		judge(t, v, snp.Evidence{Report: good1.Sign(good(good1, 3)), Certificates: fake.PEM(good1.VCEK(), good1.ASK(), good1.ARK())})
		r := good(c.amd, 3)
		r.SignerInfo = c.signer
		certificates := c.certificates
		if certificates == nil {
			certificates = fake.PEM(c.amd.VCEK(), c.amd.ASK(), c.amd.ARK())
		}
		_, err := v.Verify(t.Context(), snp.Evidence{Report: c.amd.Sign(r), Certificates: certificates}, now)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || c.as != nil && !errors.As(err, c.as) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestChipForms takes a chip's id as AMD's certificates have it, and as the document says.
func TestChipForms(t *testing.T) {
	a := fake.New(snp.Milan)
	a.Certify(func(b *amdtest.AmdSignerBuilder) {
		for i, x := range b.VcekCustom.Extensions {
			if x.Id.Equal(kds.OidHwid) {
				der, err := asn1.Marshal(x.Value)
				if err != nil {
					t.Fatal(err)
				}
				b.VcekCustom.Extensions[i].Value = der
			}
		}
	})
	judge(t, verifier(t, a.Roots(), nil), snp.Evidence{Report: a.Sign(good(a, 3)), Certificates: a.Table()})
}
