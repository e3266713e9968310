// Package admin answers the key server's administrators over the network: PROTOCOL.md, "Administrators".
//
// Who asks is found out before anything of the request's body is read (package access), over TLS or a loopback address alone. What
// a principal may do is in the table of routes. Each change is in the audit with principal, request and source, and so is
// each request that was refused, but for those without any credential and those that are told to wait: of these there
// could be any number, and they are in the log. No answer holds a secret.
package admin

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// Config says for whom a Handler works. All but Rate and SNP must be given.
type Config struct {
	Store      *keyserver.Store
	Principals access.Principals
	Known      *access.Authenticator // of those principals; one for the whole server, so that it counts failures at every door
	Random     io.Reader             // safe for concurrent use; crypto/rand.Reader outside tests
	Now        func() time.Time
	Log        *slog.Logger
	Rate       int           // requests a second from one source, with bursts of five seconds' worth; 0: keyserver.DefaultRate
	SNP        *snp.Verifier // nil: no policy is tried on a report
}

// Handler answers what is below /v1/admin/. It is safe for concurrent use.
type Handler struct {
	Config
	limiter   *access.Limiter[netip.Prefix]
	working   chan struct{} // requests whose body is in memory
	streaming chan struct{} // exports and backups
	mux       *http.ServeMux
}

// Bounds of what is worked on at once; a request beyond them is told "busy".
const (
	maxWorking   = 32
	maxStreaming = 4
	burstSeconds = 5
	workTime     = 10 * time.Second // a database that does not answer holds nobody for ever
	writeTime    = 20 * time.Second // for each part of a stream
)

// New makes a Handler.
func New(c Config) (*Handler, error) {
	if c.Rate == 0 {
		c.Rate = keyserver.DefaultRate
	}
	if c.Store == nil || c.Principals == nil || c.Known == nil || c.Random == nil || c.Now == nil || c.Log == nil || c.Rate < 1 {
		return nil, errors.New("administration needs a store, principals, who knows them, randomness, a clock, a log and a rate")
	}
	h := &Handler{Config: c,
		limiter: access.NewLimiter[netip.Prefix](float64(c.Rate), burstSeconds*c.Rate),
		working: make(chan struct{}, maxWorking), streaming: make(chan struct{}, maxStreaming), mux: http.NewServeMux()}
	methods := map[string]string{}
	for _, r := range h.routes() {
		h.mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, q *http.Request) { h.serve(w, q, r) })
		if methods[r.path] != "" {
			methods[r.path] += ", "
		}
		methods[r.path] += r.method
		if r.method == http.MethodGet {
			methods[r.path] += ", HEAD" // as a ServeMux has it
		}
	}
	for path, allow := range methods {
		h.mux.HandleFunc(path, func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Allow", allow)
			h.serve(w, q, route{action: access.ToView, open: true, do: func(*call) ([]byte, error) {
				return nil, &refusal{wire.MethodNotAllowed, fmt.Errorf("method is none of %s", allow)}
			}})
		})
	}
	h.mux.HandleFunc("/", func(w http.ResponseWriter, q *http.Request) {
		h.serve(w, q, route{open: true, do: func(*call) ([]byte, error) { return nil, &refusal{wire.NotFound, errors.New("no such path")} }})
	})
	return h, nil
}

// Routes lists what is answered, as "METHOD PATH".
func (h *Handler) Routes() []string {
	var list []string
	for _, r := range h.routes() {
		list = append(list, r.method+" "+r.path)
	}
	return list
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }
