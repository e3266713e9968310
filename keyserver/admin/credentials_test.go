package admin_test

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/admin"
	"github.com/sealboot/sealboot/keyserver/adminclient"
	"github.com/sealboot/sealboot/keyserver/pki"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// allowed gives the roles that may ask for a route.
func allowed(route string) string {
	const view, change, read, manage = "register audit admin", "register admin", "audit admin", "admin"
	method, path, _ := strings.Cut(route, " ")
	switch path = strings.TrimPrefix(path, "/v1/admin/"); {
	case path == "backup" || strings.HasPrefix(path, "principals"):
		return manage
	case strings.HasPrefix(path, "audit"):
		return read
	case method == "GET" || strings.HasSuffix(path, "/test"):
		return view
	}
	return change
}

// TestRoles asks for every route with every role, and without one.
func TestRoles(t *testing.T) {
	l := newLab(t)
	routes := l.handler.Routes()
	if len(routes) < 25 {
		t.Fatalf("%d routes", len(routes))
	}
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		path = strings.NewReplacer("{image}", "web", "{version}", "1", "{secret}", other.String(), "{kind}", "chip", "{value}", "x", "{name}", "nobody").Replace(path)
		for role := range l.tokens {
			status := func() int { // a source of its own, so that no failure slows another request
				r := httptest.NewRequest(method, path, nil)
				r.RemoteAddr = fmt.Sprintf("[2001:db8:%x::1]:1", len(role)*100+len(path))
				r.TLS = new(tls.ConnectionState)
				r.Header.Set("Authorization", "Bearer "+l.tokens[role])
				w := httptest.NewRecorder()
				fresh(t, l).ServeHTTP(w, r)
				return w.Code
			}()
			may := strings.Contains(" "+allowed(route)+" ", " "+role+" ")
			if (status == http.StatusForbidden) == may || status == http.StatusUnauthorized {
				t.Errorf("%s as %s: %d", route, role, status)
			}
		}
		answer, text := l.raw(method, path, "", nil, nil)
		if c := l.class(answer, text); c != wire.Unauthenticated || answer.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s without a credential: %s", route, c)
		}
	}
	for _, method := range []string{"PATCH", "OPTIONS", "PUT"} {
		answer, text := l.raw(method, "/v1/admin/images", "", nil, nil)
		if c := l.class(answer, text); c != wire.MethodNotAllowed || answer.Header.Get("Allow") != "GET, HEAD, POST" {
			t.Errorf("%s: %s, %q", method, c, answer.Header.Get("Allow"))
		}
	}
	for _, path := range []string{"/v1/admin", "/v1/admin/", "/v1/admin/other", "/v1/admin/images/", "/v1/admin//images", "/v1/admin/x/../images"} {
		answer, text := l.raw("GET", path, "", nil, nil)
		if c := l.class(answer, text); c != wire.NotFound {
			t.Errorf("%s: %s", path, c)
		}
	}
}

// fresh is a handler that has seen no failure.
func fresh(t *testing.T, l *lab) http.Handler {
	t.Helper()
	c := l.handler.Config
	c.Rate = 1000
	c.Known = access.NewAuthenticator(c.Principals, l.clock)
	h, err := admin.New(c)
	must(t, err)
	return h
}

// TestCredentials starts from a token that is taken, and spoils it, its way or its time.
func TestCredentials(t *testing.T) {
	l := newLab(t)
	good := l.tokens["audit"]
	ask := func(h http.Handler, change func(*http.Request)) (int, http.Header, string) {
		r := httptest.NewRequest("GET", "/v1/admin/status", nil)
		r.RemoteAddr = "192.0.2.1:4711"
		r.TLS = new(tls.ConnectionState)
		r.Header.Set("Authorization", "Bearer "+good)
		change(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Header(), w.Body.String()
	}
	if code, _, body := ask(l.handler, func(*http.Request) {}); code != 200 {
		t.Fatalf("the good request: %d %s", code, body)
	}
	rows := len(l.rows())
	var told []string
	for name, c := range map[string]struct {
		change  func(*http.Request)
		code    int
		audited bool
	}{
		"no credential": {func(r *http.Request) { r.Header.Del("Authorization") }, 401, false},
		"another token": {func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+anotherToken(t)) }, 401, true},
		"a letter changed": {func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+good[:20]+otherLetter(good[20])+good[21:])
		}, 401, true},
		"as a password":         {func(r *http.Request) { r.SetBasicAuth("audit", good) }, 401, true},
		"twice":                 {func(r *http.Request) { r.Header.Add("Authorization", "Bearer "+good) }, 401, true},
		"in the query":          {func(r *http.Request) { r.Header.Del("Authorization"); r.URL.RawQuery = "access_token=" + good }, 401, false},
		"over the open network": {func(r *http.Request) { r.TLS = nil }, 403, false},
		"and from nowhere":      {func(r *http.Request) { r.TLS = nil; r.RemoteAddr = "" }, 403, false},
	} {
		code, header, body := ask(fresh(t, l), c.change)
		if code != c.code || strings.Contains(body, "detail") {
			t.Errorf("%s: %d %s", name, code, body)
		}
		if code == 401 {
			told = append(told, header.Get("WWW-Authenticate")+body[:strings.Index(body, "instance")])
		}
		if n := len(l.rows()); (n > rows) != c.audited {
			t.Errorf("%s: %d rows more", name, n-rows)
		} else {
			rows = n
		}
	}
	for _, one := range told {
		if one != told[0] {
			t.Errorf("a caller can tell %q from %q", one, told[0])
		}
	}
	if code, _, body := ask(fresh(t, l), func(r *http.Request) { r.TLS = nil; r.RemoteAddr = "127.0.0.1:1" }); code != 200 {
		t.Errorf("from this machine: %d %s", code, body)
	}
	l.wait(24 * time.Hour)
	if code, _, body := ask(fresh(t, l), func(*http.Request) {}); code != 401 || l.last().Principal != "audit" || l.last().Cause != access.ErrExpired.Error() {
		t.Errorf("expired: %d %s, audit %+v", code, body, l.last())
	}
}

func otherLetter(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func anotherToken(t *testing.T) string {
	t.Helper()
	text, _, err := access.NewToken(rand.Reader)
	must(t, err)
	return string(text)
}

// TestCertificates starts from the first administrator's certificate.
func TestCertificates(t *testing.T) {
	l := newLab(t)
	status, err := l.rootClient().Status(t.Context())
	must(t, err)
	if status.Principal != "root" {
		t.Fatalf("%+v", status)
	}
	as := func(c tls.Certificate) error {
		client, err := adminclient.New(l.url, nil, l.transport(c))
		must(t, err)
		_, err = client.Status(t.Context())
		return err
	}
	l.refused(as(l.issue("root")), wire.Unauthenticated) // the same name, another key

	dir := filepath.Join(t.TempDir(), "other")
	_, err = pki.Start(dir, []string{"127.0.0.1"}, "root", rand.Reader, l.clock())
	must(t, err)
	foreign, err := tls.LoadX509KeyPair(filepath.Join(dir, "root.crt"), filepath.Join(dir, "root.key"))
	must(t, err)
	if err := as(foreign); err == nil || strings.Contains(err.Error(), "request") {
		t.Errorf("another CA's: %v", err) // the handshake fails
	}
	// A token decides alone, even with an administrator's certificate beside it.
	pair, err := tls.LoadX509KeyPair(filepath.Join(l.dir, "root.crt"), filepath.Join(l.dir, "root.key"))
	must(t, err)
	client, err := adminclient.New(l.url, []byte(l.tokens["audit"]), l.transport(pair))
	must(t, err)
	_, err = client.Principals(t.Context())
	l.refused(err, wire.Forbidden)
}

// TestBackOff fails too often, and waits.
func TestBackOff(t *testing.T) {
	l := newLab(t)
	c, err := adminclient.New(l.url, []byte(anotherToken(t)), l.transport())
	must(t, err)
	for range 6 {
		_, err := c.Status(t.Context())
		l.refused(err, wire.Unauthenticated)
	}
	answer, text := l.raw("GET", "/v1/admin/status", l.tokens["admin"], nil, nil)
	if c := l.class(answer, text); c != wire.BackOff || answer.Header.Get("Retry-After") != "1" {
		t.Errorf("%s, Retry-After %q", c, answer.Header.Get("Retry-After"))
	}
	l.wait(time.Second)
	if _, err := l.as("admin").Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRate asks too often.
func TestRate(t *testing.T) {
	l := newLab(t)
	c := l.handler.Config
	c.Rate = 1
	h, err := admin.New(c)
	must(t, err)
	code := 0
	for range 6 {
		r := httptest.NewRequest("GET", "/v1/admin/status", nil)
		r.RemoteAddr = "127.0.0.1:1"
		r.Header.Set("Authorization", "Bearer "+l.tokens["audit"])
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		code = w.Code
	}
	if code != http.StatusTooManyRequests {
		t.Errorf("the sixth request at once: %d", code)
	}
}
