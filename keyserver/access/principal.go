package access

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sealboot/sealboot/keyserver/wire"
)

// Kind is a kind of credential.
type Kind string

// The kinds of credentials.
const (
	Token       Kind = "token"
	Certificate Kind = "certificate"
)

// Longest lives. A token lies in files and variables, a certificate's key can be kept better.
const (
	MaxTokenLife       = 366 * 24 * time.Hour
	MaxCertificateLife = 3660 * 24 * time.Hour
)

// Principal is somebody whom the key server knows.
type Principal struct {
	Name    string // 1 to 64 letters, digits, '.', '_', '-', as an image's
	Kind    Kind
	Digest  Digest // of the credential
	Roles   Roles
	Created time.Time
	Expires time.Time // always set; from then on it is refused
}

// Validate says everything that is wrong with p.
func (p Principal) Validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if !wire.ValidImage(p.Name) {
		bad("name is not 1 to 64 letters, digits, '.', '_', '-', beginning with a letter or digit")
	}
	longest := MaxTokenLife
	switch p.Kind {
	case Token:
	case Certificate:
		longest = MaxCertificateLife
	default:
		bad("no kind of credential")
	}
	if p.Digest == (Digest{}) {
		bad("no digest of a credential")
	}
	if !p.Roles.valid() {
		bad("no roles, or unknown ones: %w", ErrRoles)
	}
	if life := p.Expires.Sub(p.Created); p.Created.IsZero() || life <= 0 || life > longest {
		bad("it must end after its beginning, within %d days", int(longest/(24*time.Hour)))
	}
	if len(problems) > 0 {
		return fmt.Errorf("%w: %w", ErrPrincipal, errors.Join(problems...))
	}
	return nil
}

// Errors about principals.
var (
	ErrPrincipal   = errors.New("principal is not valid")
	ErrThere       = errors.New("a principal of that name or with that credential is there")
	ErrNoPrincipal = errors.New("no such principal")
)

// Principals keeps principals. It is safe for concurrent use. A change is durable and seen by every server on the
// same store when the call returns: there is no cache between.
type Principals interface {
	// List gives all, by name.
	List(ctx context.Context) ([]Principal, error)

	// Add takes a valid one (ErrPrincipal otherwise), whose name and credential are new (ErrThere). Times may be cut to seconds.
	Add(ctx context.Context, p Principal) error

	// Remove takes one away, or gives ErrNoPrincipal.
	Remove(ctx context.Context, name string) error

	// Lookup finds the one with a credential, expired or not, or gives ErrNoPrincipal. A database may search its index for the
	// digest: it is a hash of what the caller sent, so the time that takes tells nothing that helps to find another.
	Lookup(ctx context.Context, kind Kind, digest Digest) (Principal, error)
}

// NewTokenPrincipal makes a principal and its token. The caller adds the one, shows the other once, and wipes it.
func NewTokenPrincipal(name string, roles Roles, life time.Duration, random io.Reader, now time.Time) (Principal, []byte, error) {
	text, digest, err := NewToken(random)
	if err != nil {
		return Principal{}, nil, err
	}
	p := Principal{Name: name, Kind: Token, Digest: digest, Roles: roles, Created: now, Expires: now.Add(life)}
	if err := p.Validate(); err != nil {
		clear(text)
		return Principal{}, nil, err
	}
	return p, text, nil
}

// NewCertificatePrincipal makes a principal known by the certificate's key, until the certificate ends.
func NewCertificatePrincipal(name string, roles Roles, c *x509.Certificate, now time.Time) (Principal, error) {
	p := Principal{Name: name, Kind: Certificate, Digest: CertificateDigest(c), Roles: roles, Created: now, Expires: c.NotAfter}
	if err := p.Validate(); err != nil {
		return Principal{}, err
	}
	return p, nil
}
