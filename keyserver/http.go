package keyserver

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// maxWorking bounds the requests that are worked on at once; a request beyond it is told "busy". Reading a slow
// request does not count.
const maxWorking = 256

// route is a method and a path that are answered.
type route struct {
	method, path string
	handler      http.HandlerFunc
}

// routes are those of PROTOCOL.md for hosts and guests.
func (s *Server) routes() []route {
	list := []route{
		{"POST", "/v1/sessions", answer(s, access.ToRelease, http.StatusCreated, wire.DecodeSessionRequest,
			func(ctx context.Context, r *http.Request, from Source, m wire.SessionRequest) (wire.Session, error) {
				return s.OpenSession(ctx, from, m)
			})},
		{"POST", "/v1/sessions/{id}/measurement", answer(s, access.ToRelease, http.StatusOK, wire.DecodeMeasurementRequest,
			func(ctx context.Context, r *http.Request, from Source, m wire.MeasurementRequest) (wire.Packet, error) {
				return s.Release(ctx, from, r.PathValue("id"), m)
			})},
		{"POST", "/v1/sessions/{id}/confirmation", answer(s, anybody, http.StatusNoContent, wire.DecodeConfirmationRequest,
			func(ctx context.Context, r *http.Request, from Source, m wire.ConfirmationRequest) (nothing, error) {
				return nothing{}, s.Confirm(ctx, from, r.PathValue("id"), m)
			})},
		{"GET", "/v1/health", s.health},
	}
	if s.snp != nil {
		list = append(list, route{"POST", "/v1/challenges", answer(s, anybody, http.StatusCreated, wire.DecodeChallengeRequest,
			func(_ context.Context, _ *http.Request, _ Source, m wire.ChallengeRequest) (wire.Challenge, error) {
				return s.OpenChallenge(m)
			})}, route{"POST", "/v1/challenges/{id}/report", answer(s, anybody, http.StatusOK, wire.DecodeReportRequest,
			func(ctx context.Context, r *http.Request, from Source, m wire.ReportRequest) (wire.SealedSecret, error) {
				return s.Report(ctx, from, r.PathValue("id"), m)
			})})
	}
	return list
}

// Routes lists what Handler answers, as "METHOD PATH", without what is below /v1/admin/.
func (s *Server) Routes() []string {
	var list []string
	for _, r := range s.routes() {
		list = append(list, r.method+" "+r.path)
	}
	return list
}

// Handler answers the requests of PROTOCOL.md.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range s.routes() { // each path has one method
		allow := route.method
		if allow == "GET" {
			allow = "GET, HEAD"
		}
		mux.HandleFunc(route.method+" "+route.path, route.handler)
		mux.HandleFunc(route.path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow)
			s.problem(w, r, s.source(r), refusef(wire.MethodNotAllowed, "method %q", clean(r.Method)))
		})
	}
	notFound := func(w http.ResponseWriter, r *http.Request) {
		s.problem(w, r, s.source(r), refusef(wire.NotFound, "no such path"))
	}
	mux.HandleFunc("/", notFound)
	if s.admin != nil {
		mux.Handle("/v1/admin/", s.admin)
		mux.HandleFunc("/v1/admin", notFound)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if at := r.URL.EscapedPath(); path.Clean(at) != at { // a ServeMux would redirect, which is no answer of the protocol
			notFound(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
	if s.metrics != nil {
		return s.metrics.Count(handler)
	}
	return handler
}

// anybody may ask: a guest, which has no credential before it has its secrets, is known by its report, or by a receipt.
const anybody access.Action = 0

// answer makes the handler of one kind of request.
func answer[Q any, A interface{ Encode() ([]byte, error) }](s *Server, action access.Action, success int, decode func(io.Reader) (Q, error),
	work func(context.Context, *http.Request, Source, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		began := s.now()
		from := s.source(r)
		defer func() {
			if p := recover(); p != nil { // the server's own would say so without the request's id
				s.problem(w, r, from, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			}
		}()
		if !s.sources.Allow(access.SourceOf(from.Address), began) {
			s.problem(w, r, from, refusef(wire.TooManyRequests, "source asks too often"))
			return
		}
		asking, err := s.enter(r, from, action)
		if err != nil {
			s.problem(w, r, from, err)
			return
		}
		if refusal := checkMedia(r.Header); refusal != nil {
			s.problem(w, r, from, refusal)
			return
		}
		m, err := decode(http.MaxBytesReader(w, r.Body, wire.MaxBody))
		if err != nil {
			s.problem(w, r, from, badBody(err))
			return
		}
		select {
		case s.working <- struct{}{}:
			defer func() { <-s.working }()
		default:
			s.problem(w, r, from, refusef(wire.Busy, "%d requests under way", maxWorking))
			return
		}
		ctx, cancel := context.WithTimeout(asking, s.limits.write/2) // while there is time to answer that the database does not
		defer cancel()
		reply, err := work(ctx, r, from, m)
		if err != nil {
			s.problem(w, r, from, err)
			return
		}
		body, err := reply.Encode()
		if err != nil {
			s.problem(w, r, from, err)
			return
		}
		s.send(w, success, wire.MediaType, body)
		s.log.Info("granted", "request", from.Request, "source", from.Address, "route", r.Pattern, "status", success, "took", s.now().Sub(began))
	}
}

// enter finds out who asks, where that must be somebody (Config.Hosts). A credential that does not do is noted in the audit.
func (s *Server) enter(r *http.Request, from Source, action access.Action) (context.Context, error) {
	if s.hosts == nil || action == anybody {
		return r.Context(), nil
	}
	who, err := s.hosts.Authorize(r, action)
	if err == nil {
		return WithActor(r.Context(), Actor{Name: who.Name, Request: from.Request, Source: from.Address}), nil
	}
	failure := (*access.Failure)(nil)
	if !errors.As(err, &failure) {
		return nil, err
	}
	class := classOf(failure)
	if class == wire.BackOff || errors.Is(failure.Cause, access.ErrNoCredential) { // anybody could fill the audit with these
		return nil, failure
	}
	entry := Entry{Time: s.now(), Event: EventSession, Principal: clean(failure.Name), Request: from.Request, Source: from.Address}
	if id := r.PathValue("id"); wire.ValidSessionID(id) {
		entry.Event, entry.Session = EventRelease, id
	}
	entry.refuse(&Refusal{Class: class, Cause: failure.Cause})
	if err := s.store.write(r.Context(), func(t *transaction) error { return t.audit(entry) }); err != nil {
		return nil, err
	}
	return nil, failure
}

// classOf says what somebody is told who is not known, or may not ask.
func classOf(f *access.Failure) wire.Class {
	switch f.Class {
	case access.ErrForbidden:
		return wire.Forbidden
	case access.ErrBackOff:
		return wire.BackOff
	}
	return wire.Unauthenticated
}

// nothing is the answer that has no body.
type nothing struct{}

func (nothing) Encode() ([]byte, error) { return nil, nil }

func checkMedia(h http.Header) *Refusal {
	if !wire.IsMessage(h) {
		return refusef(wire.UnsupportedMedia, "body is not plain %s", wire.MediaType)
	}
	return nil
}

func badBody(err error) *Refusal {
	tooLarge := (*http.MaxBytesError)(nil)
	if errors.Is(err, wire.ErrTooLarge) || errors.As(err, &tooLarge) {
		return &Refusal{Class: wire.TooLarge, Cause: err}
	}
	return &Refusal{Class: wire.Malformed, Cause: err}
}

// problem answers with the class of err alone, and logs the rest.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, from Source, err error) {
	class, level, reason, retry := wire.Internal, slog.LevelError, "", 1
	if refusal := (*Refusal)(nil); errors.As(err, &refusal) {
		class, level, err, reason = refusal.Class, slog.LevelWarn, refusal.Cause, refusal.Reason
	} else if failure := (*access.Failure)(nil); errors.As(err, &failure) {
		class, level, err, retry = classOf(failure), slog.LevelWarn, failure.Cause, int(failure.Wait/time.Second)+1
	} else if s.store.Busy(err) {
		class, level = wire.Busy, slog.LevelWarn
	}
	facts := []any{"request", from.Request, "source", from.Address, "route", r.Pattern, "status", class.Status(), "class", class, "cause", err}
	if reason != "" {
		facts = append(facts, "reason", reason)
	}
	s.log.Log(r.Context(), level, "not granted", facts...)
	body, err := wire.Problem{Class: class, Request: from.Request}.Encode()
	if err != nil {
		body = nil
	}
	switch class {
	case wire.Busy, wire.TooManyRequests, wire.BackOff:
		w.Header().Set("Retry-After", strconv.Itoa(retry))
	case wire.Unauthenticated:
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	s.send(w, class.Status(), wire.ProblemMediaType, body)
}

func (s *Server) send(w http.ResponseWriter, status int, media string, body []byte) {
	h := w.Header()
	if len(body) > 0 {
		h.Set("Content-Type", media)
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(body) // the other side's going away is no concern of ours: a release counts as done
}

// health says whether the server can serve: it listens, so it has its keys, and the store answers and is not newer than this program.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := s.store.dialect.checkForm(ctx, s.store.read); err != nil {
		s.problem(w, r, s.source(r), err)
		return
	}
	s.send(w, http.StatusOK, wire.MediaType, []byte(`{"status":"ok"}`))
}

// source tells who asks, under a fresh id of the request's own.
func (s *Server) source(r *http.Request) Source {
	id := make([]byte, 8)
	if _, err := io.ReadFull(s.random, id); err != nil {
		clear(id) // an id is for finding log lines, no more
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = "unknown"
	}
	return Source{Request: hex.EncodeToString(id), Address: host}
}

// clean keeps what a host sends short and printable where it goes into a log.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 64)]
}
