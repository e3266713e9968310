package snp

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-sev-guest/verify/trust"
	"github.com/sealboot/sealboot/sev"
)

// authority is a root and an issuer below it whose signatures hold: ARK and ASK, or ARK and ASVK.
type authority struct {
	product  Product
	signer   Signer // whose certificates the issuer makes
	ark, ica *x509.Certificate
	root     sev.RootDigest
}

// rsaBits is the size of AMD's root and issuer keys for products with SEV-SNP (publication 57230).
const rsaBits = 4096

// newAuthority checks that the root is trusted, that it made the issuer, and that both say what AMD's say. Times are for later.
func newAuthority(roots sev.RootSet, ark, ica *x509.Certificate) (*authority, error) {
	root := sev.RootDigest(sha256.Sum256(ark.RawSubjectPublicKeyInfo))
	known, ok := roots[root]
	if !ok {
		return nil, fmt.Errorf("ARK with the key digest %v: %w", root, ErrUntrustedRoot)
	}
	line, ok := strings.CutPrefix(ark.Subject.CommonName, "ARK-")
	a := &authority{product: Product(line), ark: ark, ica: ica, root: root}
	if _, has := a.product.layout(); !ok || !has {
		return nil, &LinkError{"ARK", fmt.Errorf("%w: %q", ErrProduct, clip(ark.Subject.CommonName))}
	}
	if _, amd := sev.AMDRoots()[root]; amd && known != line {
		return nil, &LinkError{"ARK", fmt.Errorf("%w: %s's key in a certificate of %s", ErrMismatch, known, line)}
	}
	switch name := ica.Subject.CommonName; name {
	case "SEV-" + line:
		a.signer = VCEK
	case "SEV-VLEK-" + line:
		a.signer = VLEK
	default:
		return nil, &LinkError{"ASK", fmt.Errorf("%q is no issuer of %s", clip(name), line)}
	}
	for _, c := range []struct {
		name string
		*x509.Certificate
	}{{"ARK", ark}, {a.name(), ica}} {
		if err := checkIssuer(c.Certificate); err != nil {
			return nil, &LinkError{c.name, err}
		}
	}
	// The key digest speaks for the key; this signature, for what the certificate says beside it.
	if err := issuedBy("ARK", ark, ark); err != nil {
		return nil, err
	}
	if err := issuedBy(a.name(), ica, ark); err != nil {
		return nil, err
	}
	return a, nil
}

// name says which issuer it is.
func (a *authority) name() string {
	if a.signer == VLEK {
		return "ASVK"
	}
	return "ASK"
}

func checkIssuer(c *x509.Certificate) error {
	key, ok := c.PublicKey.(*rsa.PublicKey)
	switch {
	case !ok || key.N.BitLen() != rsaBits:
		return fmt.Errorf("has no RSA key of %d bits", rsaBits)
	case c.Version != 3 || !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("may not issue certificates")
	case c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("has a key for other uses")
	case c.SignatureAlgorithm != x509.SHA384WithRSAPSS:
		return fmt.Errorf("is signed by %v, not RSASSA-PSS with SHA-384", c.SignatureAlgorithm)
	case len(c.UnhandledCriticalExtensions) > 0:
		return errors.New("has a critical extension that is not known")
	}
	return nil
}

// issued checks that the authority made the signer's certificate, and that all three are valid now.
func (a *authority) issued(e *endorsement, now time.Time) error {
	if err := issuedBy(strings.ToUpper(string(e.signer)), e.certificate, a.ica); err != nil {
		return err
	}
	for _, c := range []struct {
		name string
		*x509.Certificate
	}{{"ARK", a.ark}, {a.name(), a.ica}, {strings.ToUpper(string(e.signer)), e.certificate}} {
		if err := current(c.name, c.Certificate, now); err != nil {
			return err
		}
	}
	return nil
}

// amdIssuers gives AMD's roots and issuers, as google/go-sev-guest carries them.
func amdIssuers() ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for _, text := range [][]byte{
		trust.AskArkMilanVcekBytes, trust.AskArkMilanVlekBytes, trust.AskArkGenoaVcekBytes, trust.AskArkGenoaVlekBytes,
		trust.AskArkTurinVcekBytes, trust.AskArkTurinVlekBytes,
	} {
		certificates, _, err := splitDER(text, maxEntries)
		if err != nil {
			return nil, err
		}
		for _, der := range certificates {
			c, err := parseCertificate(der)
			if err != nil {
				return nil, err
			}
			list = append(list, c)
		}
	}
	return list, nil
}

// pair puts together the authorities that can be made of certificates. What does not fit is left out; the error says why the last did not.
func pair(roots sev.RootSet, arks, icas []*x509.Certificate) ([]*authority, error) {
	var list []*authority
	err := fmt.Errorf("%w: issuer", ErrNoCertificate)
	for _, ica := range icas {
		for _, ark := range arks {
			if isRoot(ica) || !isRoot(ark) || string(ica.RawIssuer) != string(ark.RawSubject) {
				continue
			}
			a, problem := newAuthority(roots, ark, ica)
			if problem != nil {
				err = problem
				continue
			}
			list = append(list, a)
		}
	}
	return list, err
}

func isRoot(c *x509.Certificate) bool { return string(c.RawIssuer) == string(c.RawSubject) }
