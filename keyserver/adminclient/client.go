// Package adminclient administers a key server over the network: PROTOCOL.md, "Administrators".
//
// The administrator is known by a token, or by the certificate of the given http.Client's TLS configuration. A token goes over TLS, or to a
// loopback address; New refuses another URL. Answers are bounded and strictly decoded, redirects are not followed. A no is a *Refused.
package adminclient

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
	Request string // id under which the server's audit and log have the cause
	Detail  string // what is wrong; empty where the server does not say
}

func (e *Refused) Error() string {
	text := e.Detail
	if text == "" {
		text = e.Class.Title()
	}
	return fmt.Sprintf("key server: %s (%s, request %s)", text, e.Class, e.Request)
}

// ErrNotKeyServer says that what answered does not speak this protocol.
var ErrNotKeyServer = errors.New("answer is not a key server's")

// ErrCut says that a stream ended before its end.
var ErrCut = errors.New("answer was cut: what came is not the whole")

// Client speaks to one key server. It is safe for concurrent use.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// New makes a client of the server at an http or https URL. The given client decides on timeouts and TLS. The token may be empty:
// then the client's certificate says who asks.
func New(server string, token []byte, h *http.Client) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("key server's URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("key server's URL %q is not of the form https://HOST[:PORT]", u.Redacted())
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err != nil || !ip.Unmap().IsLoopback()) {
		return nil, fmt.Errorf("key server's URL %q: a credential goes over https alone, or to a loopback address", u.Redacted())
	}
	own := *h
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{base: strings.TrimSuffix(u.String(), "/"), token: string(token), http: &own}, nil
}

// do sends a request and gives the answer, which is no problem. The caller closes its body.
func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", wire.MediaType)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("key server: %w", err)
	}
	if answer.StatusCode < 300 {
		return answer, nil
	}
	defer answer.Body.Close()
	if media, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type")); media != wire.ProblemMediaType {
		return nil, fmt.Errorf("%w: status %d, type %q", ErrNotKeyServer, answer.StatusCode, media)
	}
	p, err := wire.DecodeDetailed(answer.Body, answer.StatusCode)
	if err != nil {
		return nil, fmt.Errorf("%w: status %d: %w", ErrNotKeyServer, answer.StatusCode, err)
	}
	return nil, &Refused{Class: p.Class, Request: p.Request, Detail: p.Detail}
}

// ask sends a request without a body and reads the answer.
func ask[A any](ctx context.Context, c *Client, method, path string) (A, error) {
	return message[A](c.do(ctx, method, path, nil))
}

// send sends a message and reads the answer.
func send[A, Q any](ctx context.Context, c *Client, method, path string, q Q) (A, error) {
	var zero A
	body, err := wire.Encode(q)
	if err != nil {
		return zero, err
	}
	defer clear(body)
	return message[A](c.do(ctx, method, path, body))
}

func message[A any](answer *http.Response, err error) (A, error) {
	var zero A
	if err != nil {
		return zero, err
	}
	defer answer.Body.Close()
	if media, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type")); media != wire.MediaType {
		return zero, fmt.Errorf("%w: type %q", ErrNotKeyServer, media)
	}
	m, err := wire.Decode[A](answer.Body, wire.MaxAnswer)
	if err != nil {
		return zero, fmt.Errorf("%w: %w", ErrNotKeyServer, err)
	}
	return m, nil
}

// stream writes an answer that is not held in memory. What was written before an error is not the whole.
func (c *Client) stream(ctx context.Context, path string, w io.Writer) error {
	answer, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if media := answer.Header.Get("Content-Type"); media != "application/octet-stream" {
		return fmt.Errorf("%w: type %q", ErrNotKeyServer, media)
	}
	if _, err := io.Copy(w, answer.Body); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = ErrCut
		}
		return fmt.Errorf("key server: %w", err)
	}
	return nil
}
