// Package client speaks to a key server, from the host's side: it asks for a launch session
// and brings the measurement; and from the guest's: it asks for a challenge,
// brings a report, and confirms that it has used a new secret. Requests and answers are package wire's.
//
// What the server answers is not believed further than its form: bounded, strictly decoded, no redirects
// followed. A refusal is a *Refused, which carries the class and nothing more, for that is all there is.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/sealboot/sealboot/keyserver/wire"
)

// Refused says that the server answered, and that the answer was no.
type Refused struct {
	Class   wire.Class
	Request string // id under which the server's owner finds the cause
}

func (e *Refused) Error() string {
	return fmt.Sprintf("key server: %s (%s; its log has the cause as request %s)", e.Class.Title(), e.Class, e.Request)
}

// Temporary says whether the same request may succeed later.
func (e *Refused) Temporary() bool {
	return e.Class == wire.Busy || e.Class == wire.TooManyRequests
}

// Final says whether the server judged the launch, so that no repetition changes the answer.
func (e *Refused) Final() bool {
	return e.Class == wire.Refused || e.Class == wire.UntrustedPlatform
}

// ErrNotKeyServer says that what answered does not speak this protocol.
var ErrNotKeyServer = errors.New("answer is not a key server's")

// Client speaks to one key server. It is safe for concurrent use.
type Client struct {
	base  string
	http  *http.Client
	token string
}

// New makes a client of the server at an http or https URL. The given client decides on timeouts and TLS; nil
// means Go's default one. Redirects are never followed.
func New(server string, h *http.Client) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("key server's URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("key server's URL %q is not of the form https://HOST[:PORT]", u.Redacted())
	}
	if h == nil {
		h = http.DefaultClient
	}
	own := *h
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{base: strings.TrimSuffix(u.String(), "/"), http: &own}, nil
}

// Token gives a client by which a host says who it is, where the key server asks for that: by a token, which goes over https, or to a
// loopback address. A host with a certificate has it in its http.Client's TLS configuration.
func (c *Client) Token(token []byte) (*Client, error) {
	u, err := url.Parse(c.base)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err != nil || !ip.Unmap().IsLoopback()) {
		return nil, fmt.Errorf("key server's URL %q: a token goes over https alone, or to a loopback address", u.Redacted())
	}
	known := *c
	known.token = string(token)
	return &known, nil
}

// Session asks for a launch session.
func (c *Client) Session(ctx context.Context, r wire.SessionRequest) (wire.Session, error) {
	body, err := r.Encode()
	if err != nil {
		return wire.Session{}, err
	}
	return post(ctx, c, "/v1/sessions", body, http.StatusCreated, wire.DecodeSession)
}

// Measurement brings the session's measurement and gets the sealed secret.
func (c *Client) Measurement(ctx context.Context, session string, r wire.MeasurementRequest) (wire.Packet, error) {
	if !wire.ValidSessionID(session) {
		return wire.Packet{}, fmt.Errorf("ask for secret: %q is no session", session)
	}
	body, err := r.Encode()
	if err != nil {
		return wire.Packet{}, err
	}
	return post(ctx, c, "/v1/sessions/"+session+"/measurement", body, http.StatusOK, wire.DecodePacket)
}

// Challenge asks for what a running guest's report must bind.
func (c *Client) Challenge(ctx context.Context, r wire.ChallengeRequest) (wire.Challenge, error) {
	body, err := r.Encode()
	if err != nil {
		return wire.Challenge{}, err
	}
	return post(ctx, c, "/v1/challenges", body, http.StatusCreated, wire.DecodeChallenge)
}

// Report brings the challenge's report and gets the sealed secret, which package snp/seal opens.
func (c *Client) Report(ctx context.Context, challenge string, r wire.ReportRequest) (wire.SealedSecret, error) {
	if !wire.ValidChallengeID(challenge) {
		return wire.SealedSecret{}, fmt.Errorf("ask for secret: %q is no challenge", challenge)
	}
	body, err := r.Encode()
	if err != nil {
		return wire.SealedSecret{}, err
	}
	return post(ctx, c, "/v1/challenges/"+challenge+"/report", body, http.StatusOK, wire.DecodeSealedSecret)
}

// Confirm tells that a secret's new version was used by the guest that got it in the session.
func (c *Client) Confirm(ctx context.Context, session string, r wire.ConfirmationRequest) error {
	if !wire.ValidSessionID(session) {
		return fmt.Errorf("confirm a secret: %q is no session", session)
	}
	body, err := r.Encode()
	if err != nil {
		return err
	}
	_, err = post[struct{}](ctx, c, "/v1/sessions/"+session+"/confirmation", body, http.StatusNoContent, nil)
	return err
}

// post sends a body and reads the answer; without a way to read it, there must be none.
func post[T any](ctx context.Context, c *Client, path string, body []byte, success int, decode func(io.Reader) (T, error)) (T, error) {
	var zero T
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return zero, err
	}
	r.Header.Set("Content-Type", wire.MediaType)
	r.Header.Set("Accept", wire.MediaType+", "+wire.ProblemMediaType)
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return zero, fmt.Errorf("key server: %w", err)
	}
	defer answer.Body.Close()
	media, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	switch {
	case media == wire.ProblemMediaType && answer.StatusCode >= 400:
		p, err := wire.DecodeProblem(answer.Body, answer.StatusCode)
		if err != nil {
			return zero, fmt.Errorf("%w: status %d: %w", ErrNotKeyServer, answer.StatusCode, err)
		}
		return zero, &Refused{Class: p.Class, Request: p.Request}
	case answer.StatusCode == success && decode == nil && answer.ContentLength == 0:
		return zero, nil
	case answer.StatusCode != success || media != wire.MediaType || decode == nil:
		return zero, fmt.Errorf("%w: status %d, type %q", ErrNotKeyServer, answer.StatusCode, media)
	}
	m, err := decode(answer.Body)
	if err != nil {
		return zero, fmt.Errorf("%w: %w", ErrNotKeyServer, err)
	}
	return m, nil
}
