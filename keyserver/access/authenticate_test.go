package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// door is an Authenticator with a principal of each kind, and a clock that stands.
type door struct {
	*Authenticator
	t     *testing.T
	store *Memory
	time  time.Time
	token string            // of ann, who has register and audit
	cert  *x509.Certificate // of host, who has release
}

func newDoor(t *testing.T) *door {
	t.Helper()
	d := &door{t: t, store: new(Memory), time: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	d.Authenticator = NewAuthenticator(d.store, func() time.Time { return d.time })
	ann, text, err := NewTokenPrincipal("ann", Register|Audit, time.Hour, rand.Reader, d.time)
	d.must(err)
	d.must(d.store.Add(t.Context(), ann))
	d.token = string(text)
	d.cert = certificate(t, d.time, d.time.Add(time.Hour))
	host, err := NewCertificatePrincipal("host", Release, d.cert, d.time)
	d.must(err)
	d.must(d.store.Add(t.Context(), host))
	d.passes(d.bearer(d.token), ToRegister, "ann")
	d.passes(d.with(d.cert), ToRelease, "host")
	return d
}

func (d *door) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func certificate(t *testing.T, from, to time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (d *door) plain() *http.Request {
	r := httptest.NewRequest("POST", "/v1/images", nil)
	r.RemoteAddr = "192.0.2.1:4711"
	return r
}

func (d *door) bearer(token string) *http.Request {
	r := d.plain()
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func (d *door) with(c *x509.Certificate) *http.Request {
	r := d.plain()
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}, VerifiedChains: [][]*x509.Certificate{{c}}}
	return r
}

func (d *door) passes(r *http.Request, action Action, want string) {
	d.t.Helper()
	if p, err := d.Authorize(r, action); err != nil || p.Name != want {
		d.t.Fatalf("%+v, %v, want %s", p, err, want)
	}
}

// fails gives the failure, having seen that its text says no more than its class.
func (d *door) fails(r *http.Request, action Action, class error) *Failure {
	d.t.Helper()
	p, err := d.Authorize(r, action)
	f := (*Failure)(nil)
	if !errors.As(err, &f) || !errors.Is(err, class) || p != (Principal{}) {
		d.t.Fatalf("%+v, %v, want %v", p, err, class)
	}
	if f.Error() != class.Error() || f.Cause == nil || strings.Contains(f.Cause.Error(), d.token) {
		d.t.Fatalf("it says %q, cause %v", f, f.Cause)
	}
	return f
}

func TestAuthorize(t *testing.T) {
	d := newDoor(t)
	r := d.bearer(d.token)
	r.Header.Set("Authorization", "bearer "+d.token)
	d.passes(r, ToReadAudit, "ann")
	// The token decides, whatever certificate there is.
	r = d.with(d.cert)
	r.Header.Set("Authorization", "Bearer "+d.token)
	d.passes(r, ToRegister, "ann")
	if f := d.fails(r, ToRelease, ErrForbidden); f.Name != "ann" {
		t.Errorf("name %q", f.Name)
	}
	d.fails(d.with(d.cert), ToRegister, ErrForbidden)
	d.fails(d.bearer(d.token), ToManage, ErrForbidden)
	d.fails(d.bearer(d.token), 0, ErrForbidden)
}

func TestAuthorizeRefuses(t *testing.T) {
	other, _, err := NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for about, c := range map[string]struct {
		make  func(d *door) *http.Request
		name  string // that audit and log may know
		cause error
	}{
		"nothing":            {func(d *door) *http.Request { return d.plain() }, "", ErrNoCredential},
		"unknown token":      {func(d *door) *http.Request { return d.bearer(string(other)) }, "", ErrNoPrincipal},
		"token with a slip":  {func(d *door) *http.Request { return d.bearer(d.token[:52] + "!") }, "", ErrToken},
		"empty token":        {func(d *door) *http.Request { return d.bearer("") }, "", ErrToken},
		"space before token": {func(d *door) *http.Request { return d.bearer(" " + d.token) }, "", ErrToken},
		"removed":            {func(d *door) *http.Request { d.must(d.store.Remove(d.t.Context(), "ann")); return d.bearer(d.token) }, "", ErrNoPrincipal},
		"expired":            {func(d *door) *http.Request { d.time = d.time.Add(time.Hour); return d.bearer(d.token) }, "ann", ErrExpired},
		"two tokens": {func(d *door) *http.Request {
			r := d.bearer(d.token)
			r.Header.Add("Authorization", "Bearer "+d.token)
			return r
		}, "", nil},
		"basic": {func(d *door) *http.Request { r := d.plain(); r.SetBasicAuth("ann", d.token); return r }, "", nil},
		"bad token with a good certificate": {func(d *door) *http.Request {
			r := d.with(d.cert)
			r.Header.Set("Authorization", "Bearer "+string(other))
			return r
		}, "", ErrNoPrincipal},
		"empty header with a good certificate": {func(d *door) *http.Request {
			r := d.with(d.cert)
			r.Header.Set("Authorization", "")
			return r
		}, "", nil},
		"unknown certificate": {func(d *door) *http.Request { return d.with(certificate(d.t, d.time, d.time.Add(time.Hour))) }, "", ErrNoPrincipal},
		"unverified certificate": {func(d *door) *http.Request {
			r := d.with(d.cert)
			r.TLS.VerifiedChains = nil
			return r
		}, "", nil},
		"certificate that ended": {func(d *door) *http.Request { d.time = d.time.Add(time.Hour); return d.with(d.cert) }, "host", ErrExpired},
		"a token's digest as a key": {func(d *door) *http.Request {
			d.must(d.store.Add(d.t.Context(), Principal{Name: "x", Kind: Token, Digest: CertificateDigest(d.cert), Roles: Admin,
				Created: d.time, Expires: d.time.Add(time.Hour)}))
			d.must(d.store.Remove(d.t.Context(), "host"))
			return d.with(d.cert)
		}, "", ErrNoPrincipal},
	} {
		t.Run(about, func(t *testing.T) {
			d := newDoor(t)
			f := d.fails(c.make(d), ToRegister, ErrUnauthenticated)
			if f.Name != c.name || c.cause != nil && !errors.Is(f.Cause, c.cause) {
				t.Errorf("name %q, cause %v", f.Name, f.Cause)
			}
		})
	}
}

// TestCertificateEnds: a renewed certificate with the old key is good as long as the principal is, and no longer than itself.
func TestCertificateEnds(t *testing.T) {
	d := newDoor(t)
	short := *d.cert
	short.NotAfter = d.time.Add(time.Minute)
	d.passes(d.with(&short), ToRelease, "host")
	d.time = d.time.Add(time.Minute)
	if f := d.fails(d.with(&short), ToRelease, ErrUnauthenticated); f.Name != "host" || !errors.Is(f.Cause, ErrExpired) {
		t.Errorf("%+v", f)
	}
	d.passes(d.with(d.cert), ToRelease, "host")
}

// broken is a store that fails, or answers with another than was asked for.
type broken struct {
	*Memory
	p   Principal
	err error
}

func (b broken) Lookup(context.Context, Kind, Digest) (Principal, error) { return b.p, b.err }

func TestStoreIsNotBelieved(t *testing.T) {
	d := newDoor(t)
	all, _ := d.store.List(t.Context())
	good := all[0] // ann
	trouble := errors.New("disk")
	for about, b := range map[string]broken{
		"fails":              {err: trouble},
		"zero":               {},
		"another credential": {p: all[1]},
		"no end":             {p: Principal{Name: "ann", Kind: Token, Digest: good.Digest, Roles: Admin, Created: d.time}},
		"unknown role":       {p: Principal{Name: "ann", Kind: Token, Digest: good.Digest, Roles: 0xff, Created: d.time, Expires: d.time.Add(1)}},
	} {
		d.principals = b
		p, err := d.Authorize(d.bearer(d.token), ToRegister)
		if f := (*Failure)(nil); err == nil || errors.As(err, &f) || p != (Principal{}) || b.err != nil && !errors.Is(err, trouble) {
			t.Errorf("%s: %+v, %v", about, p, err)
		}
	}
	d.principals = broken{p: good}
	d.passes(d.bearer(d.token), ToRegister, "ann")
}

// TestBackOff: after some failures a source waits, longer each time, with good credentials too; others do not.
func TestBackOff(t *testing.T) {
	d := newDoor(t)
	bad := strings.Replace(d.token, "sbt1_", "sbt2_", 1)
	for range freeFailures {
		d.fails(d.bearer(bad), ToRegister, ErrUnauthenticated)
	}
	d.passes(d.bearer(d.token), ToRegister, "ann") // takes nothing back
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		d.fails(d.bearer(bad), ToRegister, ErrUnauthenticated)
		for range 3 { // asking earlier changes nothing
			if f := d.fails(d.bearer(d.token), ToRegister, ErrBackOff); f.Wait != wait || f.Name != "" {
				t.Fatalf("waits %v, name %q, want %v", f.Wait, f.Name, wait)
			}
		}
		r := d.bearer(d.token)
		r.RemoteAddr = "192.0.2.2:4711"
		d.passes(r, ToRegister, "ann")
		d.time = d.time.Add(wait - 1)
		d.fails(d.bearer(d.token), ToRegister, ErrBackOff)
		d.time = d.time.Add(1)
		d.passes(d.bearer(d.token), ToRegister, "ann")
		if wait == longestWait {
			break
		}
	}
	d.time = d.time.Add(forgetAfter)
	for range freeFailures {
		d.fails(d.bearer(bad), ToRegister, ErrUnauthenticated)
	}
	d.passes(d.bearer(d.token), ToRegister, "ann")
}

// TestBackOffOfNames: who has a credential and keeps asking for what it does not allow waits, from wherever; nobody else.
func TestBackOffOfNames(t *testing.T) {
	d := newDoor(t)
	for range freeFailures + 1 {
		d.fails(d.bearer(d.token), ToManage, ErrForbidden)
	}
	r := d.bearer(d.token)
	r.RemoteAddr = "[2001:db8::1]:4711"
	if f := d.fails(r, ToRegister, ErrBackOff); f.Name != "ann" || f.Wait != firstWait {
		t.Errorf("%+v", f)
	}
	d.passes(d.with(d.cert), ToRelease, "host")
	d.time = d.time.Add(firstWait)
	d.passes(r, ToRegister, "ann")
}

// TestBackOffClock: a clock that was set back makes nobody wait longer than the rule.
func TestBackOffClock(t *testing.T) {
	var b BackOff[string]
	now := time.Unix(1e9, 0)
	for range freeFailures + 3 {
		b.Fail("a", now)
	}
	if wait := b.Wait("a", now); wait != 4*firstWait {
		t.Fatal(wait)
	}
	if wait := b.Wait("a", now.Add(-24*time.Hour)); wait != 4*firstWait {
		t.Error(wait)
	}
	for range 100 {
		b.Fail("a", now)
	}
	if wait := b.Wait("a", now); wait != longestWait {
		t.Error(wait)
	}
}

// TestBounds: neither sources nor names grow without end, and who keeps asking is not forgotten.
func TestBounds(t *testing.T) {
	var b BackOff[int]
	l := NewLimiter[int](1, 5)
	now := time.Unix(1e9, 0)
	for range freeFailures + 1 {
		b.Fail(-1, now)
	}
	for range 5 {
		if !l.Allow(-1, now) {
			t.Fatal("not allowed what may come at once")
		}
	}
	for i := range 5 * generation {
		b.Fail(i, now)
		l.Allow(i, now)
		if i%1000 == 0 && (b.Wait(-1, now) != firstWait || l.Allow(-1, now)) {
			t.Fatalf("forgotten after %d others", i)
		}
	}
	if n := len(b.failed.young) + len(b.failed.old); n > 2*generation {
		t.Errorf("%d failures are remembered", n)
	}
	if n := len(l.buckets.young) + len(l.buckets.old); n > 2*generation {
		t.Errorf("%d buckets are remembered", n)
	}
	if !l.Allow(-1, now.Add(time.Second)) || l.Allow(-1, now.Add(time.Second)) {
		t.Error("a second gives back what it should not, or not what it should")
	}
}

func TestSourceOf(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32", "2001:db8::1": "2001:db8::/64", "2001:db8:0:1::1": "2001:db8:0:1::/64",
		"fe80::1%eth0": "fe80::/64", "": "invalid Prefix", "other": "invalid Prefix",
	} {
		if got := SourceOf(address).String(); got != want {
			t.Errorf("%s is of %s, want %s", address, got, want)
		}
	}
}
