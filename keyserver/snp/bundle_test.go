package snp_test

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
)

func bundle(t testing.TB, data []byte) *snp.Bundle {
	t.Helper()
	b, err := snp.ReadBundleFile("bundle", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBundle: a report without certificates is taken with those of a folder, several chips' and TCBs', and no network.
func TestBundle(t *testing.T) {
	a, other, newer := amds()[snp.Genoa], fake.New(snp.Genoa), fake.New(snp.Genoa)
	other.Chip[0]++
	newer.TCB.SNP++
	other.Certify(nil)
	newer.Certify(nil)
	folder := fstest.MapFS{
		"amd/genoa.pem":   {Data: fake.PEM(a.ASK(), a.ARK())},
		"amd/genoa.crl":   {Data: a.List(now.Add(-time.Hour), now.AddDate(0, 1, 0))},
		"chips/1.der":     {Data: a.VCEK().Raw},
		"chips/2.crt":     {Data: fake.PEM(other.VCEK(), newer.VCEK())},
		"cloud/vlek.CER":  {Data: append(append([]byte{}, a.VLEK().Raw...), a.ASVK().Raw...)},
		"amd/README":      {Data: []byte("not read")},
		"cloud/more.json": {Data: []byte("{}")},
	}
	b, err := snp.ReadBundle(folder)
	if err != nil {
		t.Fatal(err)
	}
	v := verifier(t, a.Roots(), nil, b)
	p := policy()
	p.Revocation = snp.DefaultPolicy().Revocation
	for name, raw := range map[string][]byte{"chip": a.Sign(good(a, 3)), "another chip": other.Sign(good(other, 5)), "newer TCB": newer.Sign(good(newer, 2)),
		"VLEK": func() []byte { r := good(a, 3); r.SignerInfo = fake.VLEK; return a.Sign(r) }()} {
		at, err := v.Verify(t.Context(), snp.Evidence{Report: raw}, now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := at.Judge(p, goodData, now).Err(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	masked := good(a, 3)
	masked.ChipId = make([]byte, 64)
	if _, err := v.Verify(t.Context(), snp.Evidence{Report: a.Sign(masked)}, now); !errors.Is(err, snp.ErrNoCertificate) {
		t.Errorf("masked: %v", err)
	}
	for name, file := range map[string]*fstest.MapFile{
		"garbage":       {Data: []byte("garbage")},
		"empty":         {},
		"a key":         {Data: []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")},
		"huge":          {Data: make([]byte, 2<<20)},
		"a broken list": {Data: listPEM([]byte("x"))},
		"somebody's":    {Data: fake.PEM(a.ARK(), a.VCEK())[:3000]},
		"list and half": {Data: append(a.List(now, now.AddDate(0, 1, 0)), 0x30)},
	} {
		folder["spoiled.pem"] = file
		if _, err := snp.ReadBundle(folder); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// TestOpenBundle takes a folder, and one file.
func TestOpenBundle(t *testing.T) {
	a, dir := amds()[snp.Milan], t.TempDir()
	if err := os.WriteFile(dir+"/milan.pem", fake.PEM(a.ASK(), a.ARK(), a.VCEK()), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, dir + "/milan.pem"} {
		b, err := snp.OpenBundle(name)
		if err != nil {
			t.Fatal(err)
		}
		judge(t, verifier(t, a.Roots(), nil, b), snp.Evidence{Report: a.Sign(good(a, 3))})
	}
	if _, err := snp.OpenBundle(dir + "/gone"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
