package snp_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"

	"github.com/sealboot/sealboot/keyserver/snp"
)

// BenchmarkVerify takes a report and its certificates through Verify and Judge, and in turn checks the signatures alone that this takes: "of-raw" is
// their share. With issuers that came with the report there are four signatures, with the owner's own two: those above were checked when the
// verifier was made.
func BenchmarkVerify(b *testing.B) {
	a := amds()[snp.Milan]
	raw := a.Sign(good(a, 5))
	p := policy()
	both := func(name string, v *snp.Verifier, e snp.Evidence, signatures func() error) {
		b.Run(name, func(b *testing.B) {
			var whole, alone time.Duration
			for b.Loop() {
				began := time.Now()
				at, err := v.Verify(b.Context(), e, now)
				if err != nil {
					b.Fatal(err)
				}
				if err := at.Judge(p, goodData, now).Err(); err != nil {
					b.Fatal(err)
				}
				between := time.Now()
				if err := signatures(); err != nil {
					b.Fatal(err)
				}
				whole, alone = whole+between.Sub(began), alone+time.Since(between)
			}
			b.ReportMetric(alone.Seconds()/whole.Seconds(), "of-raw")
			b.ReportMetric(float64(b.N)/whole.Seconds(), "verified/s")
		})
	}
	der, err := abi.ReportToSignatureDER(raw)
	if err != nil {
		b.Fatal(err)
	}
	report := func() error { return a.VCEK().CheckSignature(x509.ECDSAWithSHA384, abi.SignedComponent(raw), der) }
	link := func(c, by *x509.Certificate) error {
		return by.CheckSignature(x509.SHA384WithRSAPSS, c.RawTBSCertificate, c.Signature)
	}
	all := func(checks ...func() error) func() error {
		return func() error {
			for _, check := range checks {
				if err := check(); err != nil {
					return err
				}
			}
			return nil
		}
	}
	vcek := func() error { return link(a.VCEK(), a.ASK()) }
	ask := func() error { return link(a.ASK(), a.ARK()) }
	ark := func() error { return link(a.ARK(), a.ARK()) }
	both("issuers given", verifier(b, a.Roots(), nil), snp.Evidence{Report: raw, Certificates: a.Table()}, all(report, vcek, ask, ark))
	own := append(append([]byte{}, a.ARK().Raw...), a.ASK().Raw...)
	both("issuers known", verifier(b, a.Roots(), nil, bundle(b, own)), snp.Evidence{Report: raw, Certificates: a.VCEK().Raw}, all(report, vcek))
}
