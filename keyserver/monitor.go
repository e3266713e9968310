package keyserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/auditlog"
	"github.com/sealboot/sealboot/keyserver/metrics"
	"github.com/sealboot/sealboot/keyserver/page"
)

// scrapeTimeout bounds what is read from the store for one scrape.
const scrapeTimeout = 5 * time.Second

// Monitor counts, from now on, what the server and its store do. It is called once, before Handler and Serve. The certificates
// are those whose end is to be watched, by use (see metrics.Config).
func (s *Server) Monitor(certificates map[string]func() (time.Time, bool)) *metrics.Metrics {
	m := metrics.New(metrics.Config{
		OpenSessions: func() (int64, error) {
			ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
			defer cancel()
			return s.store.OpenSessions(ctx)
		},
		Chains:       s.chains.counts,
		Queue:        s.store.Queue,
		Certificates: certificates,
		Log:          s.log,
	})
	s.store.Observe(Observer{
		Batch:   m.Batch,
		Decided: func(e Entry) { m.Decided(string(e.Event), e.Kind, string(e.Class), e.Count) },
		Signed:  func(c auditlog.Checkpoint, _ []byte) { m.Signed(c.Time) },
	})
	s.metrics = m
	return m
}

// OwnersPage serves the owner's page. It asks nobody who they are: it belongs on a loopback address behind LoopbackOnly, or
// behind a check of roles. So do the metrics.
func (s *Server) OwnersPage(name string) (http.Handler, error) {
	return page.New(page.Config{Name: name, Source: s.store.Owner(), Now: s.now, Log: s.log})
}

// LoopbackOnly refuses requests that were not sent to a loopback address by that name: a web page that the owner has open could else
// have its own name point to this machine (DNS rebinding) and read what is here.
func LoopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			http.Error(w, "not served under this name: use 127.0.0.1, [::1] or localhost", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// RoleOnly lets those through who may do the action. It is for what people look at: the answers to others are plain text.
func RoleOnly(known *access.Authenticator, action access.Action, log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := known.Authorize(r, action)
		if err == nil {
			next.ServeHTTP(w, r)
			return
		}
		status, failure := http.StatusInternalServerError, (*access.Failure)(nil)
		text, cause := "server failed", err
		if errors.As(err, &failure) {
			text, cause = failure.Error(), failure.Cause
			switch failure.Class {
			case access.ErrUnauthenticated:
				status = http.StatusUnauthorized
				w.Header().Set("WWW-Authenticate", "Bearer")
			case access.ErrForbidden:
				status = http.StatusForbidden
			case access.ErrBackOff:
				status = http.StatusTooManyRequests
				w.Header().Set("Retry-After", strconv.Itoa(int(failure.Wait/time.Second)+1))
			}
			p.Name = failure.Name
		}
		log.Warn("not allowed", "source", r.RemoteAddr, "principal", p.Name, "path", clean(r.URL.Path), "status", status, "cause", cause)
		http.Error(w, text, status)
	})
}
