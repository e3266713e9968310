package tlsfiles

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/pki"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// words is a log that may be read while it is written.
type words struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(b)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// site is a server on loopback with files of an own CA, and a clock that stands.
type site struct {
	t   *testing.T
	dir string
	ca  *pki.Authority
	log words

	mu   sync.Mutex
	time time.Time

	files   *Files
	address string
	handler http.HandlerFunc
}

func (s *site) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.time
}

func (s *site) wait(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.time = s.time.Add(d)
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) read(name string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(s.path(name))
	must(s.t, err)
	return b
}

// put replaces a file, as a tool that renews certificates does.
func (s *site) put(name string, content []byte) {
	s.t.Helper()
	must(s.t, os.WriteFile(s.path("new"), content, 0o600))
	must(s.t, os.Rename(s.path("new"), s.path(name)))
}

func (s *site) config() Config {
	return Config{Cert: s.path(pki.ServerCertificate), Key: s.path(pki.ServerKey), ClientCA: s.path(pki.AuthorityCertificate),
		Now: s.now, Log: slog.New(slog.NewTextHandler(&s.log, nil))}
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), time: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	_, err := pki.Start(s.dir, []string{"127.0.0.1", "localhost"}, "ann", rand.Reader, s.time)
	must(t, err)
	cert, err := pki.ReadCertificate(s.path(pki.AuthorityCertificate))
	must(t, err)
	key, err := pki.ReadKey(s.path(pki.AuthorityKey))
	must(t, err)
	s.ca, err = pki.OpenAuthority(cert, key, rand.Reader)
	must(t, err)
	return s
}

// serve begins to serve, and sees that a client of the CA is answered.
func (s *site) serve(c Config) *site {
	s.t.Helper()
	var err error
	s.files, err = Open(c)
	must(s.t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(s.t, err)
	s.address = l.Addr().String()
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.handler != nil {
			s.handler(w, r)
			return
		}
		io.WriteString(w, "ok")
	}), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go h.Serve(tls.NewListener(l, s.files.TLS()))
	s.t.Cleanup(func() { h.Close() })
	if c.RequireClientCert {
		must(s.t, s.ask(s.as("ann")))
	} else {
		must(s.t, s.ask(s.client()))
	}
	return s
}

// client trusts the CA and has no certificate.
func (s *site) client() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(s.ca.Certificate)
	return &tls.Config{RootCAs: roots, Time: s.now, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(10)}
}

// as has the certificate and key of those names.
func (s *site) as(name string) *tls.Config {
	s.t.Helper()
	pair, err := tls.LoadX509KeyPair(s.path(name+".crt"), s.path(name+".key"))
	must(s.t, err)
	c := s.client()
	c.Certificates = []tls.Certificate{pair}
	return c
}

// ask makes a connection and a request.
func (s *site) ask(c *tls.Config) error {
	_, err := s.state(c)
	return err
}

func (s *site) state(c *tls.Config) (tls.ConnectionState, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return tls.ConnectionState{}, err
	}
	answer, err := io.ReadAll(conn) // in TLS 1.3 a refusal of the client comes after its own handshake
	if err != nil {
		return tls.ConnectionState{}, err
	}
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) {
		return tls.ConnectionState{}, errors.New(string(answer))
	}
	return conn.(*tls.Conn).ConnectionState(), nil
}

// serial tells which certificate the server shows.
func (s *site) serial() string {
	s.t.Helper()
	state, err := s.state(s.client())
	must(s.t, err)
	return state.PeerCertificates[0].SerialNumber.String()
}

// renewed puts a new pair and gives its serial number.
func (s *site) renewed(life time.Duration) string {
	s.t.Helper()
	key, err := pki.NewKey(rand.Reader)
	must(s.t, err)
	must(s.t, os.Remove(s.path(pki.ServerKey)))
	must(s.t, pki.WriteKey(s.path(pki.ServerKey), key))
	c, err := s.ca.Server([]string{"localhost"}, key.Public(), life, s.now())
	must(s.t, err)
	must(s.t, pki.WriteCertificate(s.path(pki.ServerCertificate), c))
	return c.SerialNumber.String()
}

func TestVersions(t *testing.T) {
	s := newSite(t)
	s.serve(s.config())
	state, err := s.state(s.client())
	if err != nil || state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "" {
		t.Fatalf("%+v, %v", state, err)
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12} {
		c := s.client()
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, version
		if err := s.ask(c); err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
	c := s.client()
	c.NextProtos = []string{"h2"}
	if err := s.ask(c); err == nil {
		t.Error("HTTP/2 alone is answered")
	}
	c.NextProtos = []string{"h2", "http/1.1"}
	if state, err := s.state(c); err != nil || state.NegotiatedProtocol != "http/1.1" {
		t.Errorf("%q, %v", state.NegotiatedProtocol, err)
	}
}

// TestNoResumption: each connection is judged anew.
func TestNoResumption(t *testing.T) {
	s := newSite(t)
	s.serve(s.config())
	c := s.as("ann")
	for range 3 {
		state, err := s.state(c)
		must(t, err)
		if state.DidResume {
			t.Fatal("a session was resumed")
		}
	}
}

func TestClientCertificates(t *testing.T) {
	s := newSite(t)
	config := s.config()
	config.RequireClientCert = true
	s.serve(config)
	strange := newSite(t)
	expired := func() *tls.Config {
		key, err := pki.NewKey(rand.Reader)
		must(t, err)
		c, err := s.ca.Client("old", key.Public(), time.Minute, s.now())
		must(t, err)
		s.wait(time.Minute + time.Second) // the last second counts
		config := s.client()
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{c.Raw}, PrivateKey: key}}
		return config
	}
	other := strange.as("ann")
	other.RootCAs = s.client().RootCAs
	pair := other.Certificates[0]
	// A client keeps back a certificate that is of none of the CAs the server names: this one does not.
	other.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	for about, c := range map[string]*tls.Config{
		"none": s.client(), "another CA's": other, "expired": expired(), "a server's": s.as("server"),
	} {
		if err := s.ask(c); err == nil {
			t.Errorf("%s: it is taken", about)
		}
	}
	must(t, s.ask(s.as("ann")))
	s.wait(pki.ClientLife)
	if err := s.ask(s.as("ann")); err == nil {
		t.Error("taken after its end")
	}

	// Not required, a certificate must be right if there is one.
	s = newSite(t)
	s.serve(s.config())
	must(t, s.ask(s.as("ann")))
	if err := s.ask(other); err == nil {
		t.Error("another CA's is taken where none is needed")
	}
	// Without a CA none is asked for.
	config = s.config()
	config.ClientCA = ""
	s.serve(config)
	s.handler = func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) != 0 {
			w.WriteHeader(500)
		}
	}
	must(t, s.ask(s.as("ann")))
}

// TestAuthenticator puts package access behind it: a certificate that the handshake verified, and whose key is known.
func TestAuthenticator(t *testing.T) {
	s := newSite(t)
	s.serve(s.config())
	store := new(access.Memory)
	door := access.NewAuthenticator(store, s.now)
	s.handler = func(w http.ResponseWriter, r *http.Request) {
		if p, err := door.Authorize(r, access.ToManage); err != nil || p.Name != "ann" {
			http.Error(w, "no", http.StatusUnauthorized)
		}
	}
	if err := s.ask(s.as("ann")); err == nil {
		t.Fatal("who is not registered is let in")
	}
	c, err := pki.ReadCertificate(s.path("ann.crt"))
	must(t, err)
	ann, err := access.NewCertificatePrincipal("ann", access.Admin, c, s.now())
	must(t, err)
	must(t, store.Add(t.Context(), ann))
	must(t, s.ask(s.as("ann")))
	again, err := s.ca.Renew(c, time.Hour, s.now())
	must(t, err)
	must(t, pki.WriteCertificate(s.path("ann.crt"), again))
	must(t, s.ask(s.as("ann")))
	if err := s.ask(s.client()); err == nil {
		t.Error("who has no certificate is let in")
	}
	// The same name under the same CA, with another key, is nobody.
	key, err := pki.NewKey(rand.Reader)
	must(t, err)
	second, err := s.ca.Client("ann", key.Public(), time.Hour, s.now())
	must(t, err)
	config := s.client()
	config.Certificates = []tls.Certificate{{Certificate: [][]byte{second.Raw}, PrivateKey: key}}
	if err := s.ask(config); err == nil {
		t.Error("the subject's name was believed")
	}
	must(t, store.Remove(t.Context(), "ann"))
	if err := s.ask(s.as("ann")); err == nil {
		t.Error("let in after the end")
	}
}

func TestOpenRefuses(t *testing.T) {
	for about, c := range map[string]struct {
		spoil func(s *site, c *Config)
		want  error  // nil: any
		word  string // what the operator reads
	}{
		"no clock":             {func(_ *site, c *Config) { c.Now = nil }, nil, "clock"},
		"required without CA":  {func(_ *site, c *Config) { c.ClientCA, c.RequireClientCert = "", true }, nil, "no client CA"},
		"no certificate":       {func(s *site, c *Config) { c.Cert = s.path("none") }, os.ErrNotExist, "none"},
		"no key":               {func(s *site, c *Config) { c.Key = s.path("none") }, os.ErrNotExist, "none"},
		"no client CA":         {func(s *site, c *Config) { c.ClientCA = s.path("none") }, os.ErrNotExist, "none"},
		"key that others read": {func(s *site, c *Config) { must(s.t, os.Chmod(c.Key, 0o604)) }, ErrKeyAccess, "chmod 0600"},
		"another's key":        {func(s *site, c *Config) { c.Key = s.path("ann.key") }, ErrCertificate, ""},
		"a client's":           {func(s *site, c *Config) { c.Cert, c.Key = s.path("ann.crt"), s.path("ann.key") }, ErrCertificate, "subjectAltName"},
		"the CA's":             {func(s *site, c *Config) { c.Cert, c.Key = s.path("ca.crt"), s.path("ca.key") }, ErrCertificate, "CA's"},
		"expired":              {func(s *site, c *Config) { s.wait(pki.ServerLife) }, ErrCertificate, "renew it"},
		"not yet":              {func(s *site, c *Config) { s.wait(-24 * time.Hour) }, ErrCertificate, "clock"},
		"wrong order": {func(s *site, c *Config) {
			s.put("server.crt", append(s.read("server.crt"), s.read("ann.crt")...))
		}, ErrCertificate, "order"},
		"a server's as CA": {func(s *site, c *Config) { c.ClientCA = s.path("server.crt") }, ErrClientCA, "not a CA's"},
		"CA with a key":    {func(s *site, c *Config) { s.put("ca.crt", append(s.read("ca.crt"), s.read("ca.key")...)) }, ErrClientCA, "something else"},
		"empty CA":         {func(s *site, c *Config) { s.put("ca.crt", nil) }, ErrClientCA, "no certificate"},
		"huge":             {func(s *site, c *Config) { s.put("server.crt", bytes.Repeat([]byte("x"), maxFile+1)) }, nil, "more than"},
	} {
		t.Run(about, func(t *testing.T) {
			s := newSite(t)
			config := s.config()
			if _, err := Open(config); err != nil {
				t.Fatal(err)
			}
			c.spoil(s, &config)
			f, err := Open(config)
			if err == nil || f != nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.word) {
				t.Errorf("%v, want %v and %q in it", err, c.want, c.word)
			}
		})
	}
	t.Run("all at once", func(t *testing.T) {
		s := newSite(t)
		config := s.config()
		config.Cert, config.Key, config.ClientCA = s.path("a"), s.path("b"), s.path("c")
		if _, err := Open(config); err == nil || strings.Count(err.Error(), "\n") != 2 {
			t.Errorf("%v", err)
		}
	})
	t.Run("chain", func(t *testing.T) {
		s := newSite(t)
		s.put("server.crt", append(s.read("server.crt"), s.read("ca.crt")...))
		_, err := Open(s.config())
		must(t, err)
	})
}
