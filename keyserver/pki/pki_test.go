package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/testtool"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := NewKey(rand.Reader)
	must(t, err)
	return key
}

func newCA(t *testing.T, hosts ...string) *Authority {
	t.Helper()
	ca, err := NewAuthority(newKey(t), "test", hosts, rand.Reader, now)
	must(t, err)
	return ca
}

// verify says whether who trusts the CA takes the certificate for the host.
func verify(ca, c *x509.Certificate, host string, use x509.ExtKeyUsage, at time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{use}})
	return err
}

func TestServer(t *testing.T) {
	ca := newCA(t, "example.org", "192.0.2.1", "2001:db8::1")
	server, err := ca.Server([]string{"keys.example.org", "192.0.2.1", "2001:db8::1"}, newKey(t).Public(), ServerLife, now)
	must(t, err)
	for _, host := range []string{"keys.example.org", "192.0.2.1", "2001:db8::1"} {
		must(t, verify(ca.Certificate, server, host, x509.ExtKeyUsageServerAuth, now))
	}
	for about, bad := range map[string]error{
		"another host":    verify(ca.Certificate, server, "other.example.org", x509.ExtKeyUsageServerAuth, now),
		"as a client":     verify(ca.Certificate, server, "", x509.ExtKeyUsageClientAuth, now),
		"another CA":      verify(newCA(t, "example.org").Certificate, server, "", x509.ExtKeyUsageServerAuth, now),
		"after its end":   verify(ca.Certificate, server, "", x509.ExtKeyUsageServerAuth, now.Add(ServerLife+time.Second)),
		"before its time": verify(ca.Certificate, server, "", x509.ExtKeyUsageServerAuth, now.Add(-time.Hour)),
	} {
		if bad == nil {
			t.Errorf("%s: it is taken", about)
		}
	}
	if server.IsCA || server.SerialNumber.BitLen() != 127 || server.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("%+v", server)
	}
}

// TestConstraints: the CA signs nothing outside of what it was made for, and nobody would take it.
func TestConstraints(t *testing.T) {
	for _, c := range []struct{ ca, server []string }{
		{[]string{"example.org"}, []string{"example.com"}},
		{[]string{"example.org"}, []string{"notexample.org"}},
		{[]string{"keys.example.org"}, []string{"example.org"}},
		{[]string{"example.org"}, []string{"192.0.2.1"}},
		{[]string{"example.org"}, []string{"2001:db8::1"}},
		{[]string{"192.0.2.1"}, []string{"192.0.2.2"}},
		{[]string{"192.0.2.1"}, []string{"2001:db8::1"}},
		{[]string{"192.0.2.1"}, []string{"localhost"}},
		{[]string{"example.org"}, []string{"keys.example.org", "example.com"}},
	} {
		ca := newCA(t, c.ca...)
		_, err := ca.Server(c.ca, newKey(t).Public(), ServerLife, now)
		must(t, err)
		if got, err := ca.Server(c.server, newKey(t).Public(), ServerLife, now); !errors.Is(err, ErrOutside) || got != nil {
			t.Errorf("a CA for %q signed %q: %v", c.ca, c.server, err)
		}
	}
	ca := newCA(t, "example.org")
	if !ca.Certificate.PermittedDNSDomainsCritical || ca.Certificate.MaxPathLen != 0 || !ca.Certificate.MaxPathLenZero {
		t.Errorf("constraints %+v", ca.Certificate)
	}
	// A CA below it, signed by its key behind its back, is refused by who verifies.
	key := newKey(t)
	below, err := sign(&x509.Certificate{SerialNumber: ca.Certificate.SerialNumber, NotBefore: now, NotAfter: now.Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: ca.Certificate.Subject}, ca.Certificate, key.Public(), ca.key, rand.Reader)
	must(t, err)
	lower, err := OpenAuthority(below, key, rand.Reader)
	must(t, err)
	server, err := lower.Server([]string{"keys.example.org"}, newKey(t).Public(), time.Minute, now)
	must(t, err)
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca.Certificate)
	middle.AddCert(below)
	if _, err := server.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: now}); err == nil {
		t.Error("a CA below the CA is taken")
	}
}

func TestClient(t *testing.T) {
	ca := newCA(t, "example.org")
	client, err := ca.Client("ann", newKey(t).Public(), ClientLife, now)
	must(t, err)
	must(t, verify(ca.Certificate, client, "", x509.ExtKeyUsageClientAuth, now))
	if client.Subject.CommonName != "ann" || verify(ca.Certificate, client, "", x509.ExtKeyUsageServerAuth, now) == nil {
		t.Errorf("%v may be a server's", client.Subject)
	}
	for _, name := range []string{"", strings.Repeat("x", 65)} {
		if _, err := ca.Client(name, newKey(t).Public(), ClientLife, now); err == nil {
			t.Errorf("name %q", name)
		}
	}
}

func TestRenew(t *testing.T) {
	ca := newCA(t, "example.org", "192.0.2.1")
	server, err := ca.Server([]string{"keys.example.org", "192.0.2.1"}, newKey(t).Public(), ServerLife, now)
	must(t, err)
	later := now.Add(ServerLife - time.Hour)
	again, err := ca.Renew(server, ServerLife, later)
	must(t, err)
	must(t, verify(ca.Certificate, again, "keys.example.org", x509.ExtKeyUsageServerAuth, later.Add(ServerLife-time.Hour)))
	if !bytes.Equal(again.RawSubjectPublicKeyInfo, server.RawSubjectPublicKeyInfo) || again.SerialNumber.Cmp(server.SerialNumber) == 0 ||
		!slices.Equal(again.DNSNames, server.DNSNames) || len(again.IPAddresses) != 1 || again.Subject.String() != server.Subject.String() {
		t.Errorf("%+v", again)
	}
	if verify(ca.Certificate, again, "", x509.ExtKeyUsageClientAuth, later) == nil {
		t.Error("renewed for clients too")
	}
	for about, c := range map[string]*x509.Certificate{"another CA's": mustServer(t, newCA(t, "example.org")), "the CA's own": ca.Certificate} {
		if got, err := ca.Renew(c, ServerLife, now); !errors.Is(err, ErrNotIssued) || got != nil {
			t.Errorf("%s: %v", about, err)
		}
	}
	for _, life := range []time.Duration{0, -1} {
		if _, err := ca.Renew(server, life, now); err == nil {
			t.Errorf("renewed for %v", life)
		}
	}
	if _, err := ca.Renew(server, AuthorityLife+time.Second, now); !errors.Is(err, ErrOutside) {
		t.Errorf("outlives the CA: %v", err)
	}
	if _, err := ca.Renew(server, ServerLife, now.Add(AuthorityLife)); !errors.Is(err, ErrOutside) {
		t.Errorf("after the CA's end: %v", err)
	}
}

func mustServer(t *testing.T, ca *Authority) *x509.Certificate {
	t.Helper()
	c, err := ca.Server([]string{"example.org"}, newKey(t).Public(), ServerLife, now)
	must(t, err)
	return c
}

func TestHosts(t *testing.T) {
	for _, host := range []string{"localhost", "a.b-c.d1", "192.0.2.1", "::1", "xn--bcher-kva.example", strings.Repeat("a", 63) + ".x"} {
		if _, _, err := sortHosts([]string{host}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, host := range []string{"", ".", "a.", ".a", "a..b", "*.a", "A", "a_b", "-a", "a-", "a b", "a/b", "https://a", "a:1", "192.0.2.300", "1", "fe80::1%eth0",
		"0.0.0.0", "::", "b\u00fccher", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a"} {
		if _, err := NewAuthority(newKey(t), "test", []string{"good", host}, rand.Reader, now); !errors.Is(err, ErrHost) {
			t.Errorf("%q: %v", host, err)
		}
	}
	if _, err := NewAuthority(newKey(t), "test", nil, rand.Reader, now); err == nil {
		t.Error("a CA for the whole world")
	}
	if _, err := NewAuthority(newKey(t), "test", []string{"good"}, strings.NewReader("short"), now); err == nil {
		t.Error("a serial number from too few random bytes")
	}
}

func TestStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	client, err := Start(dir, []string{"keys.example.org", "127.0.0.1"}, "ann", rand.Reader, now)
	must(t, err)
	caCert, err := ReadCertificate(filepath.Join(dir, AuthorityCertificate))
	must(t, err)
	caKey, err := ReadKey(filepath.Join(dir, AuthorityKey))
	must(t, err)
	ca, err := OpenAuthority(caCert, caKey, rand.Reader)
	must(t, err)
	server, err := ReadCertificate(filepath.Join(dir, ServerCertificate))
	must(t, err)
	must(t, verify(caCert, server, "keys.example.org", x509.ExtKeyUsageServerAuth, now))
	must(t, verify(caCert, client, "", x509.ExtKeyUsageClientAuth, now))
	annKey, err := ReadKey(filepath.Join(dir, "ann.key"))
	must(t, err)
	if !annKey.PublicKey.Equal(client.PublicKey) {
		t.Error("ann's key is not that of her certificate")
	}
	again, err := ca.Renew(client, ClientLife, now)
	must(t, err)
	must(t, WriteCertificate(filepath.Join(dir, "ann.crt"), again))

	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		want := os.FileMode(0o644)
		if strings.HasSuffix(f.Name(), ".key") {
			want = 0o600
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}
	if len(files) != 6 {
		t.Errorf("%d files", len(files))
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder %v, %v", info.Mode(), err)
	}

	before, err := os.ReadFile(filepath.Join(dir, AuthorityKey))
	must(t, err)
	if _, err := Start(dir, []string{"other.example.org"}, "bob", rand.Reader, now); !errors.Is(err, ErrThere) {
		t.Errorf("started twice: %v", err)
	}
	if err := WriteKey(filepath.Join(dir, AuthorityKey), annKey); !errors.Is(err, ErrThere) {
		t.Errorf("a key is written over another: %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, AuthorityKey)); err != nil || !bytes.Equal(before, after) {
		t.Error("the CA's key has changed")
	}

	for _, name := range []string{"", "ca", "server", "../ann", "a/b", ".", ".ann", "-ann", strings.Repeat("x", 65)} {
		if _, err := Start(filepath.Join(t.TempDir(), "tls"), []string{"example.org"}, name, rand.Reader, now); err == nil {
			t.Errorf("administrator %q", name)
		}
	}
	_, err = OpenAuthority(caCert, annKey, rand.Reader)
	if err == nil {
		t.Error("a CA with another's key")
	}
	if _, err := OpenAuthority(server, annKey, rand.Reader); err == nil {
		t.Error("a server's certificate as a CA")
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "key")
	must(t, WriteKey(name, newKey(t)))
	good, err := os.ReadFile(name)
	must(t, err)
	read := func() error { _, err := ReadKey(name); return err }
	must(t, read())
	must(t, os.Chmod(name, 0o640))
	if err := read(); !errors.Is(err, ErrOthersMay) {
		t.Errorf("others may read it: %v", err)
	}
	must(t, os.Chmod(name, 0o600))
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(other)
	must(t, err)
	for about, c := range map[string]struct {
		text []byte
		want error
	}{
		"empty": {nil, ErrNotPEM}, "two": {append(bytes.Clone(good), good...), ErrNotPEM}, "half": {good[:len(good)/2], ErrNotPEM},
		"another kind": {bytes.ReplaceAll(good, []byte("PRIVATE KEY"), []byte("CERTIFICATE")), ErrNotPEM},
		"huge":         {append(bytes.Clone(good), bytes.Repeat([]byte("\n"), maxFile)...), ErrNotPEM},
		"P-384":        {pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), ErrNotKey},
		"damaged":      {pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der[:60]}), ErrNotKey},
	} {
		must(t, os.WriteFile(name, c.text, 0o600))
		if err := read(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", about, err)
		}
	}
	if _, err := ReadCertificate(name); err == nil {
		t.Error("a damaged key as a certificate")
	}
}

// TestOpenSSL has the certificates judged by another implementation.
func TestOpenSSL(t *testing.T) {
	openssl := testtool.Program(t, "openssl")
	dir := filepath.Join(t.TempDir(), "tls")
	_, err := Start(dir, []string{"keys.example.org", "192.0.2.1"}, "ann", rand.Reader, time.Now())
	must(t, err)
	ca := filepath.Join(dir, AuthorityCertificate)
	for _, c := range [][]string{
		{"-purpose", "sslserver", "-verify_hostname", "keys.example.org", filepath.Join(dir, ServerCertificate)},
		{"-purpose", "sslserver", "-verify_ip", "192.0.2.1", filepath.Join(dir, ServerCertificate)},
		{"-purpose", "sslclient", filepath.Join(dir, "ann.crt")},
	} {
		testtool.Output(t, openssl, append([]string{"verify", "-x509_strict", "-CAfile", ca}, c...)...)
	}
	text := testtool.Output(t, openssl, "x509", "-in", ca, "-noout", "-text")
	for _, want := range []string{"pathlen:0", "Name Constraints: critical", "DNS:keys.example.org", "IP:192.0.2.1/255.255.255.255", "prime256v1"} {
		if !strings.Contains(text, want) {
			t.Errorf("openssl does not say %q:\n%s", want, text)
		}
	}
	// What the CA is not made for, signed all the same, is refused there too.
	for host, made := range map[string][]string{"192.0.2.1": {"example.org"}, "example.org": {"192.0.2.1"}} {
		key := newKey(t)
		ca, err := NewAuthority(key, "test", made, rand.Reader, time.Now())
		must(t, err)
		names, addresses, err := sortHosts([]string{host})
		must(t, err)
		bad, err := sign(&x509.Certificate{SerialNumber: ca.Certificate.SerialNumber, DNSNames: names, IPAddresses: addresses, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour), AuthorityKeyId: ca.Certificate.SubjectKeyId}, ca.Certificate, newKey(t).Public(), key, rand.Reader)
		must(t, err)
		caName, badName := filepath.Join(t.TempDir(), "ca"), filepath.Join(t.TempDir(), "bad")
		must(t, WriteCertificate(caName, ca.Certificate))
		must(t, WriteCertificate(badName, bad))
		out := testtool.Output(t, "sh", "-c", openssl+` verify -CAfile "$1" "$2" 2>&1 || true`, "sh", caName, badName)
		if !strings.Contains(out, "subtree violation") {
			t.Errorf("a CA for %q is taken for %s: %s", made, host, out)
		}
	}
}
