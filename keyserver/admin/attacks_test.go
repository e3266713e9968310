package admin_test

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/admin"
	"github.com/sealboot/sealboot/keyserver/adminclient"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// class reads an answer's problem.
func (l *lab) class(answer *http.Response, text string) wire.Class {
	l.t.Helper()
	p, err := wire.DecodeDetailed(strings.NewReader(text), answer.StatusCode)
	if err != nil {
		l.t.Fatalf("%d %s: %v", answer.StatusCode, text, err)
	}
	return p.Class
}

// TestBodies starts from a registration that is taken and spoils its form.
func TestBodies(t *testing.T) {
	l := newLab(t)
	body, err := wire.Encode(registration(t, "web"))
	must(t, err)
	good := string(body)
	answer, text := l.raw("POST", "/v1/admin/images", l.tokens["register"], jsonHeader, strings.NewReader(strings.Replace(good, `"web"`, `"good"`, 1)))
	if answer.StatusCode != http.StatusCreated || answer.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", answer.StatusCode, text)
	}
	secret := "/v1/admin/images/good/secrets/" + other.String()
	for name, bad := range map[string]struct {
		method, path, body string
		header             http.Header
		class              wire.Class
	}{
		"unknown field":       {body: strings.Replace(good, "{", `{"role":"admin",`, 1), class: wire.Malformed},
		"second value":        {body: strings.Replace(good, "{", `{"image":"x",`, 1), class: wire.Malformed},
		"second object":       {body: good + good, class: wire.Malformed},
		"trailing byte":       {body: good + "x", class: wire.Malformed},
		"nothing":             {body: "", class: wire.Malformed},
		"deep array":          {body: strings.Repeat("[", 2<<20), class: wire.Malformed},
		"deep secrets":        {body: strings.Repeat(`{"secrets":[`, 100_000), class: wire.Malformed},
		"many fields":         {body: "{" + strings.Repeat(`"a":1,`, 100_000) + `"b":1}`, class: wire.Malformed},
		"largest and more":    {body: good + strings.Repeat(" ", wire.MaxDocuments), class: wire.TooLarge},
		"large record":        {body: strings.Replace(good, `"record":"`, `"record":"`+strings.Repeat("AAAA", 400_000), 1), class: wire.Malformed},
		"no type":             {header: http.Header{}, body: good, class: wire.UnsupportedMedia},
		"compressed":          {header: http.Header{"Content-Type": {wire.MediaType}, "Content-Encoding": {"gzip"}}, body: good, class: wire.UnsupportedMedia},
		"of a form":           {header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, body: good, class: wire.UnsupportedMedia},
		"with a query":        {path: "/v1/admin/images?force=1", body: good, class: wire.Malformed},
		"secret over 64 KiB":  {method: "PUT", path: secret, body: `{"data":"eA=="}` + strings.Repeat(" ", wire.MaxBody), class: wire.TooLarge},
		"secret over its own": {method: "PUT", path: secret, body: `{"data":"` + base64.StdEncoding.EncodeToString(make([]byte, 16385)) + `"}`, class: wire.Malformed},
		"list with a body":    {method: "GET", body: "{}", class: wire.Malformed},
		"list with a query":   {method: "GET", path: "/v1/admin/images?x", body: "", class: wire.Malformed},
		"removal with a body": {method: "DELETE", path: "/v1/admin/revocations/chip/x", body: "{}", class: wire.Malformed},
	} {
		method, path, header := bad.method, bad.path, bad.header
		if method == "" {
			method = "POST"
		}
		if path == "" {
			path = "/v1/admin/images"
		}
		if header == nil {
			header = jsonHeader
		}
		answer, text := l.raw(method, path, l.tokens["register"], header, strings.NewReader(bad.body))
		if c := l.class(answer, text); c != bad.class {
			t.Errorf("%s: %s, want %s", name, c, bad.class)
		}
	}
	list, err := l.as("audit").Images(t.Context())
	must(t, err)
	if len(list) != 1 {
		t.Errorf("%d images were registered", len(list))
	}
}

// TestNoBodyBeforeCredential announces a body and waits with it: who has no credential gets an answer, and is not asked for it.
func TestNoBodyBeforeCredential(t *testing.T) {
	l := newLab(t)
	ask := func(token string) *http.Response {
		c, err := tls.Dial("tcp", strings.TrimPrefix(l.url, "https://"), &tls.Config{RootCAs: l.ca})
		must(t, err)
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "POST /v1/admin/images HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\nAuthorization: Bearer %s\r\n\r\n", token)
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		must(t, err)
		return answer
	}
	if answer := ask(l.tokens["register"]); answer.StatusCode != http.StatusContinue {
		t.Fatalf("with a token: %d", answer.StatusCode)
	}
	if answer := ask(anotherToken(t)); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("without: %d", answer.StatusCode)
	}
	if answer := ask(l.tokens["audit"]); answer.StatusCode != http.StatusForbidden {
		t.Errorf("with another role: %d", answer.StatusCode)
	}
}

// TestSlowBodies leaves requests half sent: others are answered, and what never came whole changes nothing.
func TestSlowBodies(t *testing.T) {
	l := newLab(t)
	body, err := wire.Encode(registration(t, "slow"))
	must(t, err)
	var conns []*tls.Conn
	for range 20 {
		c, err := tls.Dial("tcp", strings.TrimPrefix(l.url, "https://"), &tls.Config{RootCAs: l.ca})
		must(t, err)
		fmt.Fprintf(c, "POST /v1/admin/images HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\nAuthorization: Bearer %s\r\n\r\n%s",
			len(body), l.tokens["register"], body[:len(body)-1])
		conns = append(conns, c)
	}
	l.register("web")
	for _, c := range conns {
		c.Close()
	}
	list, err := l.as("audit").Images(t.Context())
	must(t, err)
	if len(list) != 1 || list[0].Image != "web" {
		t.Errorf("%+v", list)
	}
}

// TestPipelined sends the same registration twice in one write: it is done once.
func TestPipelined(t *testing.T) {
	l := newLab(t)
	body, err := wire.Encode(registration(t, "web"))
	must(t, err)
	c, err := tls.Dial("tcp", strings.TrimPrefix(l.url, "https://"), &tls.Config{RootCAs: l.ca})
	must(t, err)
	defer c.Close()
	one := fmt.Sprintf("POST /v1/admin/images HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\nAuthorization: Bearer %s\r\n\r\n%s",
		len(body), l.tokens["register"], body)
	go io.WriteString(c, one+one)
	in := bufio.NewReader(c)
	for _, want := range []int{http.StatusCreated, http.StatusConflict} {
		answer, err := http.ReadResponse(in, nil)
		must(t, err)
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%d, want %d", answer.StatusCode, want)
		}
	}
}

// TestRaces lets many do the same at once: it is done once.
func TestRaces(t *testing.T) {
	l := newLab(t)
	many := func(do func(*adminclient.Client) error) (done int) {
		var all sync.WaitGroup
		results := make(chan error, 16)
		for range cap(results) {
			c := l.as("register")
			all.Go(func() { results <- do(c) })
		}
		all.Wait()
		for range cap(results) {
			if err := <-results; err == nil {
				done++
			}
		}
		return done
	}
	r := registration(t, "web")
	if n := many(func(c *adminclient.Client) error { _, err := c.Register(t.Context(), r); return err }); n != 1 {
		t.Errorf("registered %d times", n)
	}
	p := wire.NewPolicy{Replaces: 1, Policy: r.Policy}
	if n := many(func(c *adminclient.Client) error { _, err := c.SetPolicy(t.Context(), "web", p); return err }); n != 1 {
		t.Errorf("policy 1 was replaced %d times", n)
	}
	next := wire.Replacement{Replaces: 1, Record: r.Record, Policy: r.Policy}
	if n := many(func(c *adminclient.Client) error { _, err := c.Replace(t.Context(), "web", next); return err }); n != 1 {
		t.Errorf("version 1 was replaced %d times", n)
	}
	if n := many(func(c *adminclient.Client) error {
		_, err := c.PutSecret(t.Context(), "web", other, []byte("x"))
		return err
	}); n != 1 {
		t.Errorf("the secret was put %d times", n)
	}
}

// TestNothingSecretIsWritten searches log and audit for what went over the wire.
func TestNothingSecretIsWritten(t *testing.T) {
	l := newLab(t)
	l.register("web")
	p, token, err := access.NewTokenPrincipal("ann", access.Audit, time.Hour, rand.Reader, l.clock())
	must(t, err)
	_, err = l.as("admin").AddPrincipal(t.Context(), newPrincipal(p))
	must(t, err)
	_, err = l.as("register").PutSecret(t.Context(), "web", other, []byte("a secret that is looked for"))
	must(t, err)
	_, err = l.as("register").PutSecret(t.Context(), "web", other, []byte("a secret that is looked for"))
	l.refused(err, wire.Conflict)
	_, err = l.as("release").Status(t.Context())
	l.refused(err, wire.Forbidden)
	written := l.log.String() + fmt.Sprint(l.rows())
	if !strings.Contains(written, `"principal":"register"`) {
		t.Fatal("log does not say who it was")
	}
	for _, secret := range []string{string(token), l.tokens["admin"], l.tokens["release"], string(passphrase), "a secret that is looked for",
		base64.StdEncoding.EncodeToString(passphrase), base64.StdEncoding.EncodeToString([]byte("a secret that is looked for"))} {
		if strings.Contains(written, secret) {
			t.Errorf("%q was written", secret)
		}
	}
}

// TestTampered changes a row of the store: its administrators are told what is wrong with it.
func TestTampered(t *testing.T) {
	l := newLab(t)
	l.register("web")
	must(t, l.as("audit").Export(t.Context(), io.Discard, nil))
	must(t, tamper(l, `UPDATE audit SET entry = replace(entry, 'web', 'wob') WHERE seq = (SELECT max(seq) FROM audit WHERE event = 'register')`))
	if detail := l.refused(l.as("audit").Export(t.Context(), io.Discard, nil), wire.Internal); !strings.Contains(detail, "row") {
		t.Errorf("told %q", detail)
	}
	must(t, tamper(l, `UPDATE principals SET roles = 'admin' WHERE name = 'audit'`))
	must(t, tamper(l, `UPDATE generation SET n = n + 1`))
	_, err := l.as("audit").Principals(t.Context())
	l.refused(err, wire.Internal)
}

// TestConfig spoils one part of a good configuration at a time.
func TestConfig(t *testing.T) {
	l := newLab(t)
	for name, spoil := range map[string]func(*admin.Config){
		"store": func(c *admin.Config) { c.Store = nil }, "principals": func(c *admin.Config) { c.Principals = nil }, "authenticator": func(c *admin.Config) { c.Known = nil },
		"randomness": func(c *admin.Config) { c.Random = nil }, "clock": func(c *admin.Config) { c.Now = nil },
		"log": func(c *admin.Config) { c.Log = nil }, "rate": func(c *admin.Config) { c.Rate = -1 },
	} {
		c := l.handler.Config
		spoil(&c)
		if h, err := admin.New(c); err == nil || h != nil {
			t.Errorf("without %s: no error", name)
		}
	}
}
