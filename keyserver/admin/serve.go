package admin

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"time"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// call is one request under way.
type call struct {
	context.Context
	r     *http.Request
	w     http.ResponseWriter
	who   access.Principal
	id    string
	from  string // address
	now   time.Time
	asked map[string]string // the query
}

// refusal is a no with its class. The text goes to the administrator.
type refusal struct {
	class wire.Class
	cause error
}

func (r *refusal) Error() string { return r.cause.Error() }
func (r *refusal) Unwrap() error { return r.cause }

func unacceptable(err error) error { return &refusal{wire.Unacceptable, err} }

// serve does what is the same for every route.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, to route) {
	c := &call{Context: r.Context(), r: r, w: w, id: h.newID(), from: host(r.RemoteAddr), now: h.Now()}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { // a stream that was cut: the other side must see it
				panic(p)
			}
			h.problem(c, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	if err := h.enter(c, to); err != nil {
		h.problem(c, err)
		return
	}
	if to.stream != nil {
		h.stream(c, to)
		return
	}
	select {
	case h.working <- struct{}{}:
		defer func() { <-h.working }()
	default:
		h.problem(c, &refusal{wire.Busy, fmt.Errorf("%d requests under way", maxWorking)})
		return
	}
	ctx, cancel := context.WithTimeout(c.Context, workTime)
	defer cancel()
	c.Context = ctx
	body, err := to.do(c)
	if err != nil {
		h.problem(c, err)
		return
	}
	h.send(w, to.success, wire.MediaType, body)
	h.log(c, slog.LevelInfo, "administered", "status", to.success)
}

// enter lets those in who may do it. Nothing of the body has been read.
func (h *Handler) enter(c *call, to route) error {
	if !h.limiter.Allow(access.SourceOf(c.from), c.now) {
		return &refusal{wire.TooManyRequests, errors.New("source asks too often")}
	}
	if !protected(c.r) {
		return &refusal{wire.Forbidden, errors.New("connection is neither TLS nor from this machine")}
	}
	if to.open {
		return nil
	}
	who, err := h.Known.Authorize(c.r, to.action)
	if err != nil {
		if failure := (*access.Failure)(nil); errors.As(err, &failure) {
			c.who.Name = failure.Name
			c.Context = keyserver.WithActor(c.Context, keyserver.Actor{Name: failure.Name, Request: c.id, Source: c.from})
		}
		return err
	}
	c.who = who
	c.Context = keyserver.WithActor(c.Context, keyserver.Actor{Name: who.Name, Request: c.id, Source: c.from})
	return nil
}

// protected says whether nobody between can read the request.
func protected(r *http.Request) bool {
	ip, err := netip.ParseAddr(host(r.RemoteAddr))
	return r.TLS != nil || err == nil && ip.Unmap().IsLoopback()
}

// read reads the request's message.
func read[Q any](c *call, most int64) (Q, error) {
	var zero Q
	if !wire.IsMessage(c.r.Header) {
		return zero, &refusal{wire.UnsupportedMedia, fmt.Errorf("body is not plain %s", wire.MediaType)}
	}
	if err := c.query(); err != nil {
		return zero, err
	}
	q, err := wire.Decode[Q](http.MaxBytesReader(c.w, c.r.Body, most), most)
	tooLarge := (*http.MaxBytesError)(nil)
	switch {
	case err == nil:
		return q, nil
	case errors.Is(err, wire.ErrTooLarge) || errors.As(err, &tooLarge):
		return zero, &refusal{wire.TooLarge, fmt.Errorf("body of more than %d bytes", most)}
	}
	return zero, &refusal{wire.Malformed, err}
}

// noBody refuses what a request without a message must not have: a body, and a query of other names than the known ones.
func (c *call) noBody(known ...string) error {
	if c.r.ContentLength != 0 {
		return &refusal{wire.Malformed, errors.New("request has a body")}
	}
	return c.query(known...)
}

// query reads the request's query, which has each of the known names at most once, and no other.
func (c *call) query(known ...string) error {
	values, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return &refusal{wire.Malformed, errors.New("query does not read")}
	}
	c.asked = map[string]string{}
	for _, name := range known {
		if v, ok := values[name]; ok && len(v) == 1 && v[0] != "" {
			c.asked[name] = v[0]
			delete(values, name)
		}
	}
	if len(values) > 0 {
		return &refusal{wire.Malformed, errors.New("query has something unknown, empty or twice")}
	}
	return nil
}

func (h *Handler) send(w http.ResponseWriter, status int, media string, body []byte) {
	head := w.Header()
	head.Set("Content-Type", media)
	head.Set("Cache-Control", "no-store")
	head.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(body)
}

func (h *Handler) log(c *call, level slog.Level, text string, more ...any) {
	h.Log.Log(c.Context, level, text, append([]any{"request", c.id, "source", c.from, "principal", c.who.Name, "route", c.r.Pattern}, more...)...)
}

// newID makes the request's own id.
func (h *Handler) newID() string {
	id := make([]byte, 8)
	if _, err := io.ReadFull(h.Random, id); err != nil {
		clear(id) // an id is for finding log lines, no more
	}
	return hex.EncodeToString(id)
}

func host(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "unknown"
	}
	return host
}
