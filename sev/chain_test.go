package sev

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/verify/trust"
)

// TestAMDRoots compares with the certificates in Google's library, whose keys are the same.
func TestAMDRoots(t *testing.T) {
	checked := 0
	for product, bundles := range map[string][][]byte{
		"Milan": {trust.AskArkMilanVcekBytes, trust.AskArkMilanVlekBytes},
		"Genoa": {trust.AskArkGenoaVcekBytes, trust.AskArkGenoaVlekBytes},
		"Turin": {trust.AskArkTurinVcekBytes, trust.AskArkTurinVlekBytes},
	} {
		for _, bundle := range bundles {
			_, rest := pem.Decode(bundle) // ASK
			block, _ := pem.Decode(rest)
			if block == nil {
				t.Fatalf("%s: no second certificate", product)
			}
			ark, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			der, err := x509.MarshalPKIXPublicKey(ark.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			if got := AMDRoots()[sha256.Sum256(der)]; got != product {
				t.Errorf("%s's ARK is known as %q", product, got)
			}
			checked++
		}
	}
	if checked != 6 || len(AMDRoots()) != 5 {
		t.Errorf("%d bundles checked, %d roots", checked, len(AMDRoots()))
	}
	AMDRoots()[RootDigest{}] = "added to a copy"
	if len(AMDRoots()) != 5 {
		t.Error("AMD's roots can be changed")
	}
}

func TestRootSet(t *testing.T) {
	d, err := ParseRootDigest("9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9")
	if err != nil || d.String()[:8] != "9f056bee" {
		t.Fatal(d, err)
	}
	for _, bad := range []string{"", "9f", d.String() + "00", "x" + d.String()[1:]} {
		if got, err := ParseRootDigest(bad); err == nil || got != (RootDigest{}) {
			t.Errorf("%q is a digest", bad)
		}
	}
	base := AMDRoots()
	if more := base.With("own", RootDigest{1}); len(more) != 6 || len(base) != 5 || len(RootSet(nil).With("own", d)) != 1 {
		t.Error("With changes what it was given, or does not add")
	}
}

// TestCAReadAlike: Google's reader finds the same numbers.
func TestCAReadAlike(t *testing.T) {
	forEachVector(t, func(t *testing.T, v vector) {
		theirs, size, err := abi.ParseAskCert(v.CA)
		if err != nil {
			t.Fatal(err)
		}
		ask := v.chain(t).ASK
		if !bytes.Equal(theirs.Modulus, ask.Modulus) || !bytes.Equal(theirs.PubExp, ask.Exponent) || !bytes.Equal(theirs.Signature, ask.Signature) ||
			theirs.KeyUsage != uint32(ask.Usage) || !bytes.Equal(theirs.KeyID[:], ask.KeyID[:]) || size != len(ask.Encode()) {
			t.Error("read differently")
		}
	})
}

func TestChainRefuses(t *testing.T) {
	v := vectors(t)[1]
	other := vectors(t)[2]
	good := v.chain(t)
	roots := RootSet{RootDigest(v.Root): "recorded", RootDigest(other.Root): "other"}
	if _, err := good.Verify(roots); err != nil {
		t.Fatal(err)
	}
	flip := func(b []byte) { b[len(b)/8] ^= 1 } // within 48 bytes of a number
	for _, c := range []struct {
		name  string
		spoil func(*Chain)
		want  error
	}{
		{"ARK's own signature", func(c *Chain) { flip(c.ARK.Signature) }, ErrSignature},
		{"ARK's name", func(c *Chain) { c.ARK.CertifyingID[0] ^= 1 }, ErrIssuer},
		{"ASK's signature", func(c *Chain) { flip(c.ASK.Signature) }, ErrSignature},
		{"ASK's issuer", func(c *Chain) { c.ASK.CertifyingID[0] ^= 1 }, ErrIssuer},
		{"ASK's content", func(c *Chain) { c.ASK.KeyID[0] ^= 1 }, ErrSignature},
		{"ARK of another", func(c *Chain) { c.ARK = other.chain(t).ARK }, ErrIssuer},
		{"ASK and ARK of another", func(c *Chain) { o := other.chain(t); c.ARK, c.ASK = o.ARK, o.ASK }, ErrSignature},
		{"CEK's signature", func(c *Chain) { flip(c.CEK.Signatures[0].Data[:]) }, ErrSignature},
		{"CEK's content", func(c *Chain) { c.CEK.APIMinor++ }, ErrSignature},
		{"CEK not signed yet", func(c *Chain) { c.CEK.Signatures[0] = Signature{Usage: UsageNone} }, ErrUnsigned},
		{"CEK signed by another name", func(c *Chain) { c.CEK.Signatures[0].Usage = UsageARK }, ErrUnsigned},
		{"CEK by another algorithm", func(c *Chain) { c.CEK.Signatures[0].Algorithm = AlgorithmRSASHA256 }, ErrSignature},
		{"CEK of another", func(c *Chain) { c.CEK = other.chain(t).CEK }, ErrSignature},
		{"OCA's signature", func(c *Chain) { flip(c.OCA.Signatures[0].Data[:]) }, ErrSignature},
		{"OCA of another", func(c *Chain) { c.OCA = vectors(t)[0].chain(t).OCA }, ErrSignature},
		{"PEK's signature by OCA", func(c *Chain) { flip(c.PEK.Signatures[0].Data[:]) }, ErrSignature},
		{"PEK's signature by CEK", func(c *Chain) { flip(c.PEK.Signatures[1].Data[:]) }, ErrSignature},
		{"PEK without OCA", func(c *Chain) { c.PEK.Signatures[0].Usage = UsageNone }, ErrUnsigned},
		{"PEK without CEK", func(c *Chain) { c.PEK.Signatures[1].Usage = UsageNone }, ErrUnsigned},
		{"PEK twice by OCA", func(c *Chain) { c.PEK.Signatures[1] = c.PEK.Signatures[0] }, ErrUnsigned},
		{"PEK of another", func(c *Chain) { c.PEK = other.chain(t).PEK }, ErrSignature},
		{"PDH's signature", func(c *Chain) { flip(c.PDH.Signatures[0].Data[:]) }, ErrSignature},
		{"PDH's key", func(c *Chain) { c.PDH.Key = vectors(t)[0].chain(t).PDH.Key }, ErrSignature},
		{"PDH of another", func(c *Chain) { c.PDH = other.chain(t).PDH }, ErrSignature},
		{"signature with bytes after it", func(c *Chain) { c.PDH.Signatures[0].Data[300] = 1 }, ErrSignature},
		{"signature of zeros", func(c *Chain) { c.PDH.Signatures[0].Data = [512]byte{} }, ErrSignature},
		{"PDH that signs", func(c *Chain) { c.PDH.Algorithm = AlgorithmECDSASHA256 }, ErrSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain := v.chain(t)
			c.spoil(&chain)
			if product, err := chain.Verify(roots); !errors.Is(err, c.want) || product != "" {
				t.Errorf("gives %q, %v, want %v", product, err, c.want)
			}
		})
	}
	for _, c := range []struct {
		name  string
		spoil func(*Chain)
	}{
		{"PDH and PEK swapped", func(c *Chain) { c.PDH, c.PEK = c.PEK, c.PDH }},
		{"OCA and CEK swapped", func(c *Chain) { c.OCA, c.CEK = c.CEK, c.OCA }},
		{"ASK and ARK swapped", func(c *Chain) { c.ASK, c.ARK = c.ARK, c.ASK }},
		{"PEK's usage", func(c *Chain) { c.PEK.Usage = UsageOCA }},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain := v.chain(t)
			c.spoil(&chain)
			var usage *UsageError
			if _, err := chain.Verify(roots); !errors.As(err, &usage) {
				t.Errorf("gives %v", err)
			}
		})
	}
	for name, none := range map[string]RootSet{"AMD's roots": AMDRoots(), "empty": {}, "nil": nil} {
		if _, err := good.Verify(none); !errors.Is(err, ErrUntrustedRoot) {
			t.Errorf("%s: %v", name, err)
		}
	}
	missing := good
	missing.CEK = nil
	if _, err := missing.Verify(roots); !errors.Is(err, errIncomplete) {
		t.Errorf("a chain with a gap: %v", err)
	}
}

// TestSignaturesInEitherOrder: the two places of the PEK's signatures are not ordered.
func TestSignaturesInEitherOrder(t *testing.T) {
	v := vectors(t)[1]
	c := v.chain(t)
	c.PEK.Signatures[0], c.PEK.Signatures[1] = c.PEK.Signatures[1], c.PEK.Signatures[0]
	if _, err := c.Verify(RootSet{RootDigest(v.Root): "recorded"}); err != nil {
		t.Error(err)
	}
}

// TestPDHForECDH: a PDH is for key agreement, also when all signatures are good.
func TestPDHForECDH(t *testing.T) {
	ask, err := newCA(UsageASK)
	if err != nil {
		t.Fatal(err)
	}
	c := Chain{ASK: ask.certificate}
	by := map[Usage]issuer{UsageASK: ask.issuer}
	for usage, to := range map[Usage]**Certificate{UsageCEK: &c.CEK, UsageOCA: &c.OCA, UsagePEK: &c.PEK, UsagePDH: &c.PDH} {
		if *to, by[usage], err = newSigning(usage); err != nil {
			t.Fatal(err)
		}
	}
	for algorithm, good := range map[Algorithm]bool{AlgorithmECDHSHA256: true, AlgorithmECDHSHA384: true, AlgorithmECDSASHA256: false} {
		c.PDH.Algorithm = algorithm
		if err := errors.Join(c.CEK.sign(by[UsageASK]), c.OCA.sign(by[UsageOCA]), c.PEK.sign(by[UsageCEK], by[UsageOCA]), c.PDH.sign(by[UsagePEK])); err != nil {
			t.Fatal(err)
		}
		var format *FormatError
		if err := c.verifyPlatform(); good && err != nil || !good && !errors.As(err, &format) {
			t.Errorf("algorithm %#x: %v", uint32(algorithm), err)
		}
	}
}

// TestPSSLengths: salt and hash of AMD's signatures have one length each.
func TestPSSLengths(t *testing.T) {
	for bits, hash := range map[int]crypto.Hash{2048: crypto.SHA256, 4096: crypto.SHA384} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		cert := &CACertificate{Usage: UsageARK, Modulus: littleBytes(key.N, bits/8), Exponent: littleBytes(big.NewInt(int64(key.E)), bits/8)}
		by, err := cert.signer()
		if err != nil {
			t.Fatal(err)
		}
		sign := func(h crypto.Hash, salt int) []byte {
			sum := h.New()
			sum.Write(cert.signed())
			s, err := rsa.SignPSS(rand.Reader, key, h, sum.Sum(nil), &rsa.PSSOptions{SaltLength: salt, Hash: h})
			if err != nil {
				t.Fatal(err)
			}
			return reversed(s)
		}
		if err := by.verify(cert.signed(), sign(hash, hash.Size())); err != nil {
			t.Fatalf("%d bits: the good signature: %v", bits, err)
		}
		wrong := crypto.SHA256
		if hash == crypto.SHA256 {
			wrong = crypto.SHA384
		}
		for name, signature := range map[string][]byte{
			"shorter salt":  sign(hash, hash.Size()-1),
			"longer salt":   sign(hash, hash.Size()+1),
			"other hash":    sign(wrong, wrong.Size()),
			"big-endian":    reversed(sign(hash, hash.Size())),
			"shorter":       sign(hash, hash.Size())[1:],
			"byte after it": append(sign(hash, hash.Size()), 1),
			"nothing":       nil,
		} {
			if err := by.verify(cert.signed(), signature); !errors.Is(err, ErrSignature) {
				t.Errorf("%d bits, %s: %v", bits, name, err)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	v := vectors(t)[1]
	for _, c := range []struct {
		name string
		at   int
		to   byte
	}{
		{"version", 0, 2}, {"reserved", 6, 1}, {"usage of a CA", 8, 0x13}, {"unknown usage", 9, 0x11}, {"unknown algorithm", 12, 9},
		{"no algorithm", 12, 0}, {"RSA key that is none", 12, 1}, {"curve", 16, 1}, {"point", 20, 0}, {"long coordinate", 20 + 48, 1},
	} {
		b := bytes.Clone(v.PDH)
		if b[c.at] == c.to {
			b[c.at]++
		} else {
			b[c.at] = c.to
		}
		var format *FormatError
		if cert, err := ParseCertificate(b); !errors.As(err, &format) || cert != nil {
			t.Errorf("certificate, %s: %v", c.name, err)
		}
	}
	rsaOwner := vectors(t)[2].chain(t).OCA.Encode()
	for name, at := range map[string]int{"exponent": 16 + 4 + 256, "modulus": 16 + 4 + 512 + 256} {
		var format *FormatError
		if cert, err := ParseCertificate(changed(rsaOwner, at, 1)); !errors.As(err, &format) || cert != nil {
			t.Errorf("certificate with an RSA key, bytes after the %s: %v", name, err)
		}
	}
	ask := v.chain(t).ASK.Encode()
	even := bytes.Clone(ask)
	even[64+512] &^= 1
	short := bytes.Clone(ask)
	short[64+1023] = 0
	exponent := bytes.Clone(ask)
	exponent[64+100] = 1
	for name, b := range map[string][]byte{
		"nothing": nil, "header alone": ask[:64], "one byte less": ask[:len(ask)-1], "one byte more": append(bytes.Clone(ask), 0),
		"version": changed(ask, 0, 2), "usage": changed(ask, 36, 1), "reserved": changed(ask, 40, 1),
		"exponent bits": changed(ask, 56, 1), "modulus bits": changed(ask, 60, 1), "huge modulus": changed(ask, 63, 0xff),
		"even modulus": even, "short modulus": short, "long exponent": exponent, "even exponent": changed(ask, 64, 0),
	} {
		var format *FormatError
		if cert, err := ParseCACertificate(b); !errors.As(err, &format) || cert != nil {
			t.Errorf("CA certificate, %s: %v", name, err)
		}
	}
	for name, parts := range map[string][3][]byte{
		"short chain": {v.PDH, v.CertChain[:len(v.CertChain)-1], v.CA}, "no ARK": {v.PDH, v.CertChain, ask},
		"no PDH": {nil, v.CertChain, v.CA}, "CA with more": {v.PDH, v.CertChain, append(bytes.Clone(v.CA), 0)},
	} {
		var format *FormatError
		if c, err := ParseChain(parts[0], parts[1], parts[2]); !errors.As(err, &format) || c != (Chain{}) {
			t.Errorf("chain, %s: %v", name, err)
		}
	}
}

func changed(b []byte, at int, to byte) []byte {
	out := bytes.Clone(b)
	out[at] = to
	return out
}
