package access

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// What a caller is told. The texts are all that may leave.
var (
	ErrUnauthenticated = errors.New("not authenticated") // HTTP 401
	ErrForbidden       = errors.New("not allowed")       // HTTP 403
	ErrBackOff         = errors.New("too many failures") // HTTP 429, with Retry-After
)

// Failure is a no to a caller. Its text is the class's; cause and name are for audit and log.
type Failure struct {
	Class error  // ErrUnauthenticated, ErrForbidden or ErrBackOff
	Name  string // of the principal, where its credential was found
	Cause error
	Wait  time.Duration // of ErrBackOff
}

func (f *Failure) Error() string { return f.Class.Error() }
func (f *Failure) Unwrap() error { return f.Class }

// Causes of failures, beside ErrToken, ErrNoPrincipal and text.
var (
	ErrNoCredential = errors.New("no credential")
	ErrExpired      = errors.New("credential has expired")
)

// Authenticator finds out who asks. It is safe for concurrent use.
type Authenticator struct {
	principals Principals
	now        func() time.Time
	sources    BackOff[netip.Prefix]
	names      BackOff[string]
}

// NewAuthenticator makes an Authenticator. Several for one store each count failures for themselves.
func NewAuthenticator(principals Principals, now func() time.Time) *Authenticator {
	return &Authenticator{principals: principals, now: now}
}

// Authorize says who asks, if that principal may do the action. Otherwise the error is a *Failure; an
// error that is none is the store's.
//
// With an Authorization header the token in it decides alone, whatever certificate the connection has; without one
// the connection's certificate does, which the handshake must have verified.
func (a *Authenticator) Authorize(r *http.Request, action Action) (Principal, error) {
	now := a.now()
	source := SourceOf(hostOf(r.RemoteAddr))
	if wait := a.sources.Wait(source, now); wait > 0 {
		return Principal{}, &Failure{Class: ErrBackOff, Wait: wait, Cause: fmt.Errorf("source %v failed too often", source)}
	}
	p, err := a.identify(r, now)
	if errors.Is(err, ErrNoCredential) { // nothing was tried
		return Principal{}, &Failure{Class: ErrUnauthenticated, Cause: err}
	}
	if rejected := (*rejection)(nil); errors.As(err, &rejected) {
		a.sources.Fail(source, now)
		if p.Name != "" {
			a.names.Fail(p.Name, now)
		}
		return Principal{}, &Failure{Class: ErrUnauthenticated, Name: p.Name, Cause: rejected.cause}
	}
	if err != nil {
		return Principal{}, err
	}
	if wait := a.names.Wait(p.Name, now); wait > 0 {
		return Principal{}, &Failure{Class: ErrBackOff, Name: p.Name, Wait: wait, Cause: errors.New("principal failed too often")}
	}
	if !p.Roles.May(action) {
		a.names.Fail(p.Name, now)
		return Principal{}, &Failure{Class: ErrForbidden, Name: p.Name, Cause: fmt.Errorf("roles %s do not allow it", p.Roles)}
	}
	return p, nil
}

// rejection is a credential that was not taken.
type rejection struct{ cause error }

func (r *rejection) Error() string { return r.cause.Error() }
func (r *rejection) Unwrap() error { return r.cause }

func reject(cause error) error { return &rejection{cause} }

// identify gives the principal whose credential the request has. With a rejection it gives the name alone.
func (a *Authenticator) identify(r *http.Request, now time.Time) (Principal, error) {
	if values := r.Header.Values("Authorization"); len(values) > 0 {
		if len(values) > 1 {
			return Principal{}, reject(errors.New("more than one Authorization header"))
		}
		scheme, text, _ := strings.Cut(values[0], " ")
		if !strings.EqualFold(scheme, "Bearer") { // RFC 9110, section 11.1
			return Principal{}, reject(errors.New("authorization is not by bearer token"))
		}
		digest, err := TokenDigest(text)
		if err != nil {
			return Principal{}, reject(err)
		}
		return a.find(r.Context(), Token, digest, now)
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return Principal{}, ErrNoCredential
	}
	if len(r.TLS.VerifiedChains) == 0 {
		return Principal{}, reject(errors.New("client certificate was not verified"))
	}
	leaf := r.TLS.PeerCertificates[0]
	p, err := a.find(r.Context(), Certificate, CertificateDigest(leaf), now)
	if err == nil && !within(leaf, now) { // it may end while the connection lasts
		return Principal{Name: p.Name}, reject(ErrExpired)
	}
	return p, err
}

func within(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && now.Before(c.NotAfter)
}

func (a *Authenticator) find(ctx context.Context, kind Kind, digest Digest, now time.Time) (Principal, error) {
	p, err := a.principals.Lookup(ctx, kind, digest)
	if errors.Is(err, ErrNoPrincipal) {
		return Principal{}, reject(ErrNoPrincipal)
	}
	if err != nil {
		return Principal{}, fmt.Errorf("look up principal: %w", err)
	}
	// The store was asked for this one; it is believed no further.
	if p.Kind != kind || !p.Digest.Equal(digest) || p.Validate() != nil {
		return Principal{}, fmt.Errorf("look up principal: %w", ErrPrincipal)
	}
	if !now.Before(p.Expires) {
		return Principal{Name: p.Name}, reject(ErrExpired)
	}
	return p, nil
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	return host
}
