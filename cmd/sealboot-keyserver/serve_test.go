package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// visitor is somebody who asks over TLS, with a certificate or a token or neither.
func visitor(t *testing.T, dir, certificate, token string) *http.Client {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "pki/ca.crt"))
	noError(t, err)
	security := &tls.Config{RootCAs: x509.NewCertPool()}
	security.RootCAs.AppendCertsFromPEM(text)
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, certificate+".crt"), filepath.Join(dir, certificate+".key"))
		noError(t, err)
		security.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: security}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: withToken{transport, token}}
}

type withToken struct {
	next  http.RoundTripper
	token string
}

func (w withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+w.token)
	}
	return w.next.RoundTrip(r)
}

// look gets a page, and gives its status and text.
func look(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	answer, err := c.Get(url)
	noError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	noError(t, err)
	return answer.StatusCode, string(text)
}

// TestServeConfigured serves by a configuration: TLS, known hosts alone, metrics and page, with systemd to tell.
func TestServeConfigured(t *testing.T) {
	dir, platform, digest := keyserverStore(t)
	keys := "--store=" + dir + "/keys"
	command(t, 0, "ca", "init", dir+"/pki", "--host", "127.0.0.1")
	command(t, 0, "ca", "client", "host1", "--ca", dir+"/pki", "--out", dir+"/host1")
	command(t, 0, "admin", "add-cert", "host1", "--cert", dir+"/host1.crt", "--roles", "release", keys)
	auditor := strings.TrimSpace(command(t, 0, "token", "new", "auditor", "--roles", "audit", keys))
	root, err := platform.Chain.ARK.KeyDigest()
	noError(t, err)
	var asked atomic.Int64 // questions to AMD's key service
	amd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.NotFound(w, nil)
	}))
	defer amd.Close()
	config := fmt.Sprintf(`
listen      = "127.0.0.1:0"
store_key   = "file:%[1]s/keys.key"
trust_roots = [%[2]q]
[store]
folder = "%[1]s/keys"
[tls]
cert      = "%[1]s/pki/server.crt"
key       = "%[1]s/pki/server.key"
client_ca = "%[1]s/pki/ca.crt"
require_release_role = true
[log]
format = "json"
[snp]
kds       = %[3]q
kds_cache = "%[1]s/kds"
[metrics]
listen = "127.0.0.1:0"
[page]
listen = "0.0.0.0:0"
`, dir, root.String(), amd.URL)
	noError(t, os.Mkdir(dir+"/kds", 0o700))
	noError(t, os.WriteFile(dir+"/keyserver.toml", []byte(config), 0o600))
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/notify", Net: "unixgram"})
	noError(t, err)
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", dir+"/notify")
	told := func(want string) {
		t.Helper()
		noError(t, socket.SetReadDeadline(time.Now().Add(10*time.Second)))
		b := make([]byte, 64)
		n, err := socket.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Fatalf("systemd is told %q, %v", b[:n], err)
		}
	}
	s := serveKeys(t, "--config", dir+"/keyserver.toml", "--json")
	told("READY=1")
	launchAs := func(c *http.Client) (string, error) {
		keys, err := client.New(s.first.URL, c)
		noError(t, err)
		return launchOnce(t.Context(), keys, platform, digest)
	}
	passphrase, err := launchAs(visitor(t, dir, "host1", ""))
	noError(t, err)
	if passphrase != keyserverPassphrase {
		t.Fatalf("guest found %q", passphrase)
	}
	for about, c := range map[string]struct {
		visitor *http.Client
		class   wire.Class
	}{
		"nobody":            {visitor(t, dir, "", ""), wire.Unauthenticated},
		"another's role":    {visitor(t, dir, "", auditor), wire.Forbidden},
		"a key not known":   {visitor(t, dir, "pki/admin", ""), wire.Unauthenticated},
		"no token at all":   {visitor(t, dir, "host1", "sbt1_x"), wire.Unauthenticated},
		"token with a slip": {visitor(t, dir, "", auditor[:20]+"~"+auditor[21:]), wire.Unauthenticated},
	} {
		_, err := launchAs(c.visitor)
		if refused := (*client.Refused)(nil); !errors.As(err, &refused) || refused.Class != c.class {
			t.Errorf("%s: %v", about, err)
		}
	}
	// A guest brings a report and no certificate: they are asked for.
	guest, err := client.New(s.first.URL, visitor(t, dir, "", ""))
	noError(t, err)
	challenge, err := guest.Challenge(t.Context(), wire.ChallengeRequest{Image: "web"})
	noError(t, err)
	milan := fake.New(snp.Milan)
	report := milan.Sign(milan.Report(3, snp.Digest{1}, snp.ReportData{}))
	if _, err := guest.Report(t.Context(), challenge.ID, wire.ReportRequest{Image: "web", Report: report, PublicKey: make([]byte, 32)}); err == nil || asked.Load() == 0 {
		t.Errorf("AMD's key service was asked %d times; %v", asked.Load(), err)
	}
	if _, text := look(t, http.DefaultClient, s.first.Metrics+"/metrics"); !strings.Contains(text, `{outcome="answered"} `) || strings.Contains(text, `{outcome="answered"} 0`) {
		t.Errorf("metrics do not count it:\n%s", text)
	}
	if status, text := look(t, http.DefaultClient, s.first.Metrics+"/metrics"); status != http.StatusOK || !strings.Contains(text, "certificate_end_timestamp_seconds") {
		t.Errorf("metrics: status %d\n%s", status, text)
	}
	page := "https://127.0.0.1" + s.first.Page[strings.LastIndex(s.first.Page, ":"):] + "/"
	for about, c := range map[string]struct {
		visitor *http.Client
		status  int
	}{
		"auditor": {visitor(t, dir, "", auditor), http.StatusOK},
		"nobody":  {visitor(t, dir, "", ""), http.StatusUnauthorized},
		"host":    {visitor(t, dir, "host1", ""), http.StatusForbidden},
	} {
		if status, text := look(t, c.visitor, page); status != c.status || (status == http.StatusOK) != strings.Contains(text, "web") {
			t.Errorf("page to %s: status %d\n%s", about, status, text)
		}
	}
	if status, _ := look(t, visitor(t, dir, "", ""), s.first.URL+"/v1/health"); status != http.StatusOK {
		t.Errorf("health: status %d", status)
	}
	command(t, 0, "token", "remove", "host1", keys)
	if _, err := launchAs(visitor(t, dir, "host1", "")); err == nil {
		t.Error("a removed host is served")
	}
	if code := s.stop(); code != 0 {
		t.Fatalf("serve ended with %d\n%s", code, s.log)
	}
	told("STOPPING=1")
}

// TestAddressTaken listens where somebody else does.
func TestAddressTaken(t *testing.T) {
	dir, _, _ := keyserverStore(t)
	other, err := net.Listen("tcp4", "127.0.0.1:0")
	noError(t, err)
	defer other.Close()
	says := failing(t, 1, "serve", "--store", dir+"/keys", "--listen", other.Addr().String())
	if !strings.Contains(says, "address already in use: choose another address, or stop what has it") {
		t.Errorf("it says %q", says)
	}
}
