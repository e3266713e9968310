package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

const keyserverPassphrase = "correct horse battery staple"

// keyserverRun is a server that runs as the command, in this process.
type keyserverRun struct {
	url   string
	first struct{ URL, Metrics, Page string } // as it says with --json
	log   *bytes.Buffer                       // to be read after stop
	stop  func() int
}

// serveKeys runs `sealboot-keyserver serve` until it says where it listens.
func serveKeys(t *testing.T, args ...string) *keyserverRun {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	r := &keyserverRun{log: new(bytes.Buffer)}
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, append([]string{"serve"}, args...), strings.NewReader(""), in, r.log)
		in.Close()
	}()
	if err := json.NewDecoder(out).Decode(&r.first); err != nil {
		cancel()
		t.Fatalf("serve ended with %d before it listened: %v\n%s", <-code, err, r.log)
	}
	go io.Copy(io.Discard, out)
	r.url = r.first.URL
	ended := false
	r.stop = func() int {
		if ended {
			return 0
		}
		ended = true
		cancel()
		select {
		case c := <-code:
			return c
		case <-time.After(30 * time.Second):
			t.Fatal("serve does not stop")
			return -1
		}
	}
	t.Cleanup(func() { r.stop() })
	return r
}

// keyserverStore registers an image by the command and makes a platform; its root's file goes to --trust-root.
func keyserverStore(t *testing.T) (dir string, platform *sev.Platform, digest sev.Digest) {
	t.Helper()
	dir = t.TempDir()
	digest = sha256.Sum256([]byte("firmware"))
	record := &measure.Record{
		Version:  measure.RecordVersion,
		Firmware: measure.FirmwareFacts{SHA256: measure.Hash(digest), Size: 4 << 20, SecretArea: ovmf.Area{Base: 0x80c000, Size: 3072}},
		Digests:  []measure.LaunchDigest{{Launch: measure.Launch{Mode: measure.SEV}, Digest: digest[:]}},
		Disk:     measure.Disk{UUID: "00000000-0000-4000-8000-000000000001", HeaderPin: sha256.Sum256([]byte("header"))},
		MadeWith: map[string]string{},
	}
	text, err := record.Encode()
	noError(t, err)
	platform, err = sev.NewPlatform(rand.Reader, sev.API{Major: 1, Minor: 55, Build: 21})
	noError(t, err)
	noError(t, os.WriteFile(filepath.Join(dir, "record.json"), text, 0o600))
	noError(t, os.WriteFile(filepath.Join(dir, "passphrase"), []byte(keyserverPassphrase), 0o600))
	noError(t, os.WriteFile(filepath.Join(dir, "ca"), platform.Chain.EncodeCA(), 0o600))
	command(t, 0, "register", "--record", dir+"/record.json", "--key-file", dir+"/passphrase", "--name", "web", "--store", dir+"/keys")
	return dir, platform, digest
}

// command runs the program, checks its exit code, and gives what it printed.
func command(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code != want {
		t.Fatalf("%q: exit code %d, want %d\n%s%s", args, code, want, &out, &errs)
	}
	return out.String()
}

// failing runs the program, which must end with that code, and gives what it said.
func failing(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code != want {
		t.Fatalf("%q: exit code %d, want %d\n%s%s", args, code, want, &out, &errs)
	}
	return errs.String()
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// launchOnce goes through the protocol as a host does, and gives what the guest finds.
func launchOnce(ctx context.Context, c *client.Client, p *sev.Platform, digest sev.Digest) (string, error) {
	s, err := c.Session(ctx, wire.SessionRequest{Image: "web", PDH: p.Chain.PDH.Encode(), CertChain: p.Chain.EncodePlatform(), CA: p.Chain.EncodeCA()})
	if err != nil {
		return "", err
	}
	guest, err := p.LaunchStart(s.DHCert, s.Blob, sev.Policy(s.Policy))
	if err != nil {
		return "", err
	}
	m, err := guest.Measure(digest, rand.Reader)
	if err != nil {
		return "", err
	}
	packet, err := c.Measurement(ctx, s.ID, wire.MeasurementRequest{Measurement: m.Encode(), APIMajor: p.API.Major, APIMinor: p.API.Minor, Build: p.API.Build})
	if err != nil {
		return "", err
	}
	plain, err := guest.OpenSecret(packet.Header, packet.Secret)
	if err != nil {
		return "", err
	}
	table, err := sev.ParseSecretTable(plain)
	if err != nil {
		return "", err
	}
	passphrase, ok := table.Find(sev.DiskPassphrase)
	if !ok {
		return "", errors.New("no passphrase in the table")
	}
	return string(passphrase), nil
}

// TestKeyserverServes runs the commands from register to audit, over loopback.
func TestKeyserverServes(t *testing.T) {
	dir, platform, digest := keyserverStore(t)
	store := []string{"--store", dir + "/keys"}
	// Without --trust-root a software platform is nobody.
	s := serveKeys(t, append(store, "--listen", "127.0.0.1:0", "--json")...)
	c, err := client.New(s.url, nil)
	noError(t, err)
	_, err = launchOnce(t.Context(), c, platform, digest)
	refused := (*client.Refused)(nil)
	if !errors.As(err, &refused) || refused.Class != wire.UntrustedPlatform {
		t.Fatalf("a platform of nobody's: %v", err)
	}
	if code := s.stop(); code != 0 {
		t.Fatalf("serve ended with %d\n%s", code, s.log)
	}

	root, err := platform.Chain.ARK.KeyDigest()
	noError(t, err)
	noError(t, os.WriteFile(dir+"/root.txt", []byte(root.String()+"\n"), 0o600))
	noError(t, os.WriteFile(dir+"/ark", platform.Chain.ARK.Encode(), 0o600))
	for _, trust := range []string{dir + "/ca", dir + "/ark", dir + "/root.txt", root.String()} {
		s = serveKeys(t, append(store, "--listen", "127.0.0.1:0", "--json", "--address-file", dir+"/url", "--trust-root", trust, "--log-format", "json")...)
		text, err := os.ReadFile(dir + "/url")
		noError(t, err)
		if string(text) != s.url+"\n" {
			t.Errorf("address file says %q, standard output %q", text, s.url)
		}
		c, err = client.New(s.url, nil)
		noError(t, err)
		passphrase, err := launchOnce(t.Context(), c, platform, digest)
		noError(t, err)
		if passphrase != keyserverPassphrase {
			t.Fatalf("guest found %q", passphrase)
		}
		_, err = launchOnce(t.Context(), c, platform, sev.Digest{1})
		if !errors.As(err, &refused) || refused.Class != wire.Refused {
			t.Fatalf("another digest: %v", err)
		}
		if code := s.stop(); code != 0 || bytes.Contains(s.log.Bytes(), []byte(keyserverPassphrase)) || !bytes.Contains(s.log.Bytes(), []byte(`"msg":"stopped"`)) {
			t.Fatalf("serve ended with %d\n%s", code, s.log)
		}
	}
	audit := command(t, 0, append([]string{"audit", "list"}, store...)...)
	if n := strings.Count(audit, " release granted "); n != 4 {
		t.Errorf("%d releases in the audit:\n%s", n, audit)
	}
	for _, want := range []string{" session untrusted-platform ", " release refused ", "none of the record's digests fits", fmt.Sprintf("digest=%x", digest)} {
		if !strings.Contains(audit, want) {
			t.Errorf("audit does not say %q:\n%s", want, audit)
		}
	}
	if strings.Contains(audit, keyserverPassphrase) {
		t.Error("the passphrase is in the audit")
	}
}

// TestKeyserverTLS serves over TLS 1.3 and nothing older.
func TestKeyserverTLS(t *testing.T) {
	dir, platform, digest := keyserverStore(t)
	command(t, 0, "ca", "init", dir+"/pki", "--host", "127.0.0.1")
	text, err := os.ReadFile(dir + "/pki/ca.crt")
	noError(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	s := serveKeys(t, "--store", dir+"/keys", "--listen", "0.0.0.0:0", "--json", "--trust-root", dir+"/ca", "--tls-cert", dir+"/pki/server.crt", "--tls-key", dir+"/pki/server.key")
	if !strings.HasPrefix(s.url, "https://") {
		t.Fatalf("serves %s", s.url)
	}
	address := "https://127.0.0.1:" + s.url[strings.LastIndex(s.url, ":")+1:]
	with := func(config *tls.Config) error {
		transport := &http.Transport{TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		c, err := client.New(address, &http.Client{Transport: transport})
		noError(t, err)
		_, err = launchOnce(t.Context(), c, platform, digest)
		return err
	}
	noError(t, with(&tls.Config{RootCAs: pool}))
	if err := with(&tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 was spoken")
	}
	if err := with(&tls.Config{RootCAs: x509.NewCertPool()}); err == nil {
		t.Error("the client took an unknown certificate")
	}
	address = strings.Replace(address, "https", "http", 1)
	if err := with(nil); err == nil {
		t.Error("plain HTTP was spoken")
	}
}

// TestAuditFields holds what audit list says of its JSON to the entry's fields.
func TestAuditFields(t *testing.T) {
	help := command(t, 0, "audit", "list", "--help")
	fields := 0
	for _, typ := range []reflect.Type{reflect.TypeFor[keyserver.Row](), reflect.TypeFor[keyserver.Entry]()} {
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				continue
			}
			if fields++; !strings.Contains(help, `"`+name+`"`) {
				t.Errorf("help does not list %q", name)
			}
		}
	}
	if fields < 15 {
		t.Errorf("%d fields", fields)
	}
}
