package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Lives of certificates, where the caller wishes no other.
const (
	AuthorityLife = 3650 * 24 * time.Hour
	ServerLife    = 397 * 24 * time.Hour // as public CAs have it, or had
	ClientLife    = 397 * 24 * time.Hour
)

// backdated is for clients whose clocks are a little late.
const backdated = 5 * time.Minute

// Errors of a CA.
var (
	ErrHost      = errors.New("not a DNS name or an IP address")
	ErrNotIssued = errors.New("certificate is not from this CA")
	ErrOutside   = errors.New("CA may not sign it")
)

// Authority is a CA with its key. It is safe for concurrent use if its randomness is.
type Authority struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	random      io.Reader
}

// NewKey makes a private key.
func NewKey(random io.Reader) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

// NewAuthority makes a CA that speaks for the hosts, DNS names and IP addresses, and for what is below a name.
func NewAuthority(key *ecdsa.PrivateKey, name string, hosts []string, random io.Reader, now time.Time) (*Authority, error) {
	names, addresses, err := sortHosts(hosts)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial(random)
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber:                serial,
		Subject:                     pkix.Name{CommonName: name},
		NotBefore:                   now.Add(-backdated),
		NotAfter:                    now.Add(AuthorityLife),
		KeyUsage:                    x509.KeyUsageCertSign,
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         names,
	}
	// A kind of name without a constraint would be free: it is excluded.
	if len(names) == 0 {
		c.ExcludedDNSDomains = []string{""}
	}
	for _, ip := range addresses {
		c.PermittedIPRanges = append(c.PermittedIPRanges, &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))})
	}
	if len(addresses) == 0 {
		c.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}
	}
	signed, err := sign(c, c, key.Public(), key, random)
	if err != nil {
		return nil, err
	}
	return OpenAuthority(signed, key, random)
}

// OpenAuthority takes a CA that was made before.
func OpenAuthority(c *x509.Certificate, key *ecdsa.PrivateKey, random io.Reader) (*Authority, error) {
	if !c.IsCA || !c.BasicConstraintsValid || c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("certificate is not a CA's")
	}
	if public, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return nil, errors.New("key is not that of the CA's certificate")
	}
	return &Authority{Certificate: c, key: key, random: random}, nil
}

// Server signs a key for a server of these names and addresses.
func (a *Authority) Server(hosts []string, public crypto.PublicKey, life time.Duration, now time.Time) (*x509.Certificate, error) {
	names, addresses, err := sortHosts(hosts)
	if err != nil {
		return nil, err
	}
	return a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: hosts[0]},
		DNSNames:    names,
		IPAddresses: addresses,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, public, life, now)
}

// Client signs a key for a principal.
func (a *Authority) Client(principal string, public crypto.PublicKey, life time.Duration, now time.Time) (*x509.Certificate, error) {
	if principal == "" || len(principal) > 64 { // ub-common-name of RFC 5280
		return nil, errors.New("a client's certificate needs the principal's name, of 1 to 64 characters")
	}
	return a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: principal},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, public, life, now)
}

// Renew signs the key of a certificate of this CA once more, for the same names and use.
func (a *Authority) Renew(c *x509.Certificate, life time.Duration, now time.Time) (*x509.Certificate, error) {
	if err := c.CheckSignatureFrom(a.Certificate); err != nil || c.IsCA {
		return nil, fmt.Errorf("renew certificate of %q: %w", c.Subject.CommonName, ErrNotIssued)
	}
	return a.issue(&x509.Certificate{Subject: c.Subject, DNSNames: c.DNSNames, IPAddresses: c.IPAddresses, ExtKeyUsage: c.ExtKeyUsage},
		c.PublicKey, life, now)
}

// issue signs c, and verifies it as a client or the server would: what the CA's own limits forbid is not handed out.
func (a *Authority) issue(c *x509.Certificate, public crypto.PublicKey, life time.Duration, now time.Time) (*x509.Certificate, error) {
	serial, err := newSerial(a.random)
	if err != nil {
		return nil, err
	}
	if life <= 0 {
		return nil, errors.New("certificate must last longer than nothing")
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = serial, now.Add(-backdated), now.Add(life)
	c.KeyUsage, c.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
	if c.NotAfter.After(a.Certificate.NotAfter) {
		return nil, fmt.Errorf("%w: it would last longer than the CA, which ends at %s: choose a shorter life, or make a new CA",
			ErrOutside, a.Certificate.NotAfter.UTC().Format(time.DateOnly))
	}
	signed, err := sign(c, a.Certificate, public, a.key, a.random)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate)
	if _, err := signed.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: c.ExtKeyUsage}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOutside, err)
	}
	return signed, nil
}

func sign(c, parent *x509.Certificate, public crypto.PublicKey, key *ecdsa.PrivateKey, random io.Reader) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(random, c, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// newSerial gives 126 random bits below a one, so that the number has one length (RFC 5280, section 4.1.2.2: positive,
// at most 20 octets).
func newSerial(random io.Reader) (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := io.ReadFull(random, b); err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b), nil
}

// sortHosts tells names from addresses. No host at all is refused.
func sortHosts(hosts []string) (names []string, addresses []net.IP, err error) {
	for _, host := range hosts {
		if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" && !ip.IsUnspecified() {
			addresses = append(addresses, ip.Unmap().AsSlice())
		} else if isDNSName(host) {
			names = append(names, host)
		} else {
			return nil, nil, fmt.Errorf("%q is %w", host, ErrHost)
		}
	}
	if len(hosts) == 0 {
		return nil, nil, errors.New("no host: give at least one DNS name or IP address")
	}
	return names, addresses, nil
}

// isDNSName takes lower-case names without wildcards and without a dot at the end (RFC 1123, section 2.1).
func isDNSName(s string) bool {
	if len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
		}) {
			return false
		}
	}
	last := labels[len(labels)-1]
	return strings.ContainsFunc(last, func(r rune) bool { return r < '0' || r > '9' }) // 192.0.2.300 is no name
}
