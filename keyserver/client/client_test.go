package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/wire"
)

var (
	request = wire.SessionRequest{Image: "web", PDH: make([]byte, 2084), CertChain: make([]byte, 3*2084), CA: make([]byte, 2*(64+3*256))}
	session = wire.Session{ID: strings.Repeat("0", 32), Policy: 11, DHCert: make([]byte, 2084), Blob: make([]byte, 128), Expires: time.Unix(1_800_000_000, 0).UTC()}
)

// server answers every request in one way.
func server(t *testing.T, answer http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	c, err := New(s.URL+"/", s.Client())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func reply(status int, media string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", media)
		w.WriteHeader(status)
		w.Write(body)
	}
}

func encoded(t *testing.T, m interface{ Encode() ([]byte, error) }) []byte {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAnswers starts from an answer that is taken and spoils it.
func TestAnswers(t *testing.T) {
	good := encoded(t, session)
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		m, err := wire.DecodeSessionRequest(r.Body)
		if err != nil || m.Image != "web" || r.URL.Path != "/v1/sessions" || r.Header.Get("Content-Type") != wire.MediaType {
			t.Errorf("server got %s %q: %v", r.URL.Path, r.Header, err)
		}
		reply(http.StatusCreated, wire.MediaType, good)(w, r)
	})
	if s, err := c.Session(t.Context(), request); err != nil || s.ID != session.ID || !s.Expires.Equal(session.Expires) {
		t.Fatalf("%+v, %v", s, err)
	}
	problem := encoded(t, wire.Problem{Class: wire.Refused, Request: "1"})
	for name, answer := range map[string]http.HandlerFunc{
		"other status":         reply(http.StatusOK, wire.MediaType, good),
		"other type":           reply(http.StatusCreated, "text/html", good),
		"unknown field":        reply(http.StatusCreated, wire.MediaType, bytes.Replace(good, []byte("{"), []byte(`{"x":1,`), 1)),
		"cut short":            reply(http.StatusCreated, wire.MediaType, good[:100]),
		"without end":          endless,
		"a problem as success": reply(http.StatusCreated, wire.ProblemMediaType, problem),
		"status not its own":   reply(http.StatusNotFound, wire.ProblemMediaType, problem),
		"a proxy's page":       reply(http.StatusBadGateway, "text/html", []byte("<html>")),
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/sessions" {
				t.Error("the redirect was followed")
			}
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := server(t, answer).Session(t.Context(), request)
			if !errors.Is(err, ErrNotKeyServer) || s.ID != "" {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", wire.MediaType)
	w.WriteHeader(http.StatusCreated)
	for r.Context().Err() == nil {
		if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<16)); err != nil {
			return
		}
	}
}

// TestRefused gives each class to the caller as it is.
func TestRefused(t *testing.T) {
	for _, class := range wire.Classes() {
		c := server(t, reply(class.Status(), wire.ProblemMediaType, encoded(t, wire.Problem{Class: class, Request: "abc"})))
		_, err := c.Measurement(t.Context(), session.ID, wire.MeasurementRequest{Measurement: make([]byte, 48)})
		refused := (*Refused)(nil)
		if !errors.As(err, &refused) || refused.Class != class || !strings.Contains(err.Error(), "request abc") {
			t.Errorf("%s: %v", class, err)
			continue
		}
		if got, want := refused.Temporary(), class == wire.Busy || class == wire.TooManyRequests; got != want {
			t.Errorf("%s is temporary: %v", class, got)
		}
		if got, want := refused.Final(), class == wire.Refused || class == wire.UntrustedPlatform; got != want {
			t.Errorf("%s is final: %v", class, got)
		}
	}
}

// TestConfirm sends what the protocol says, and takes the one answer that means yes.
func TestConfirm(t *testing.T) {
	confirmation := wire.ConfirmationRequest{Secret: [16]byte{1}, MAC: make([]byte, 32)}
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		if m, err := wire.DecodeConfirmationRequest(r.Body); err != nil || m.Secret != confirmation.Secret || r.URL.Path != "/v1/sessions/"+session.ID+"/confirmation" {
			t.Errorf("server got %s, %+v, %v", r.URL.Path, m, err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	if err := c.Confirm(t.Context(), session.ID, confirmation); err != nil {
		t.Fatal(err)
	}
	if err := c.Confirm(t.Context(), "../x", confirmation); err == nil {
		t.Error("a session of another form was confirmed")
	}
	for name, answer := range map[string]http.HandlerFunc{
		"another success":     reply(http.StatusOK, wire.MediaType, []byte("{}")),
		"a proxy's page":      reply(http.StatusBadGateway, "text/html", []byte("<html>")),
		"redirect":            func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusTemporaryRedirect) },
		"a problem of no kin": reply(http.StatusGone, wire.ProblemMediaType, encoded(t, wire.Problem{Class: wire.Refused})),
	} {
		if err := server(t, answer).Confirm(t.Context(), session.ID, confirmation); !errors.Is(err, ErrNotKeyServer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestURLs takes what names a server and nothing else.
func TestURLs(t *testing.T) {
	for _, good := range []string{"http://127.0.0.1:8420", "https://keys.example.org/", "https://[::1]:1/base"} {
		if _, err := New(good, nil); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "127.0.0.1:8420", "ftp://a", "http://", "https://user:secret@a", "https://a/?q", "https://a/#f", "http://a b"} {
		_, err := New(bad, nil)
		if err == nil {
			t.Errorf("%q was taken", bad)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error repeats the password", bad)
		}
	}
	c, err := New("http://127.0.0.1:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Measurement(t.Context(), "../x", wire.MeasurementRequest{}); err == nil {
		t.Error("a session of another form was asked for")
	}
}

// TestDeadline ends a request with its context.
func TestDeadline(t *testing.T) {
	c := server(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Session(ctx, request); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestReport asks for a challenge and brings its report.
func TestReport(t *testing.T) {
	challenge := wire.Challenge{ID: strings.Repeat("1f", 40), Nonce: make([]byte, 32), Expires: session.Expires}
	sealed := wire.SealedSecret{Encapsulated: make([]byte, 32), Secret: make([]byte, 40)}
	report := wire.ReportRequest{Image: "web", Report: make([]byte, 0x4a0), PublicKey: make([]byte, 32)}
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/challenges":
			if m, err := wire.DecodeChallengeRequest(r.Body); err != nil || m.Image != "web" {
				t.Errorf("server got %+v: %v", m, err)
			}
			reply(http.StatusCreated, wire.MediaType, encoded(t, challenge))(w, r)
		case "/v1/challenges/" + challenge.ID + "/report":
			if m, err := wire.DecodeReportRequest(r.Body); err != nil || len(m.Certificates) != 0 {
				t.Errorf("server got %+v: %v", m, err)
			}
			reply(http.StatusOK, wire.MediaType, encoded(t, sealed))(w, r)
		default:
			t.Errorf("server got %s", r.URL.Path)
		}
	})
	got, err := c.Challenge(t.Context(), wire.ChallengeRequest{Image: "web"})
	if err != nil || got.ID != challenge.ID || !bytes.Equal(got.Nonce, challenge.Nonce) {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := c.Report(t.Context(), got.ID, report); err != nil || !bytes.Equal(got.Secret, sealed.Secret) {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := c.Report(t.Context(), "../x", report); err == nil {
		t.Error("a challenge of another form was asked for")
	}
	for name, answer := range map[string]http.HandlerFunc{
		"other status": reply(http.StatusCreated, wire.MediaType, encoded(t, sealed)), "a challenge": reply(http.StatusOK, wire.MediaType, encoded(t, challenge)),
		"without end": endless,
	} {
		if _, err := server(t, answer).Report(t.Context(), challenge.ID, report); !errors.Is(err, ErrNotKeyServer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestToken sends a token where nobody between can read it.
func TestToken(t *testing.T) {
	got := ""
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		reply(http.StatusCreated, wire.MediaType, encoded(t, session))(w, r)
	})
	known, err := c.Token([]byte("sbt1_x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := known.Session(t.Context(), wire.SessionRequest{Image: "web", PDH: []byte{1}, CertChain: []byte{1}, CA: []byte{1}}); err != nil || got != "Bearer sbt1_x" {
		t.Errorf("server got %q; %v", got, err)
	}
	if _, err := c.Session(t.Context(), wire.SessionRequest{Image: "web", PDH: []byte{1}, CertChain: []byte{1}, CA: []byte{1}}); err != nil || got != "" {
		t.Errorf("without a token the server got %q; %v", got, err)
	}
	for url, ok := range map[string]bool{"https://keys.example": true, "http://[::1]:8420": true, "http://keys.example": false, "http://192.0.2.1": false, "http://localhost": false} {
		c, err := New(url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Token([]byte("sbt1_x")); (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
	}
}
