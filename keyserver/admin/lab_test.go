package admin_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/admin"
	"github.com/sealboot/sealboot/keyserver/adminclient"
	"github.com/sealboot/sealboot/keyserver/pki"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
	"github.com/sealboot/sealboot/keyserver/tlsfiles"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

// lab is a key server over TLS, with a principal of each role, and a clock that the test moves.
type lab struct {
	t       *testing.T
	store   *keyserver.Store
	server  *keyserver.Server
	handler *admin.Handler
	url     string
	ca      *x509.CertPool
	dir     string            // of CA, server and the first administrator
	tokens  map[string]string // by role, and of "both"
	log     *syncBuffer
	folder  string // of the store
	roots   sev.RootSet
	amd     *fake.AMD

	mu  sync.Mutex
	now time.Time
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// platform is the machine of the hosts.
var platform = sync.OnceValue(func() *sev.Platform {
	p, err := sev.NewPlatform(rand.Reader, sev.API{Major: 1, Minor: 55, Build: 21})
	if err != nil {
		panic(err)
	}
	return p
})

var amd = sync.OnceValue(func() *fake.AMD { return fake.New(snp.Milan) })

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, log: new(syncBuffer), dir: filepath.Join(t.TempDir(), "pki"), now: time.Now().Truncate(time.Second), tokens: map[string]string{}, amd: amd()}
	raw := make([]byte, 32)
	rand.Read(raw)
	key, err := keyserver.NewKey(raw)
	must(t, err)
	location := filepath.Join(t.TempDir(), "store")
	l.folder = location
	must(t, keyserver.CreateStore(t.Context(), location, key, l.clock()))
	l.store, err = keyserver.OpenStore(t.Context(), location, key, rand.Reader, l.clock())
	must(t, err)

	first, err := pki.Start(l.dir, []string{"127.0.0.1"}, "root", rand.Reader, l.clock())
	must(t, err)
	root, err := access.NewCertificatePrincipal("root", access.Admin, first, l.clock())
	must(t, err)
	known := l.store.Principals(l.clock)
	must(t, known.Add(t.Context(), root))
	for name, roles := range map[string]access.Roles{"register": access.Register, "release": access.Release, "audit": access.Audit, "admin": access.Admin} {
		p, token, err := access.NewTokenPrincipal(name, roles, 24*time.Hour, rand.Reader, l.clock())
		must(t, err)
		must(t, known.Add(t.Context(), p))
		l.tokens[name] = string(token)
	}

	log := slog.New(slog.NewJSONHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	digest, err := platform().Chain.ARK.KeyDigest()
	must(t, err)
	l.roots = sev.AMDRoots().With("test", digest)
	verifier, err := snp.NewVerifier(l.amd.Roots(), nil)
	must(t, err)
	l.server, err = keyserver.NewServer(keyserver.Config{Store: l.store, Roots: l.roots, SNP: verifier, Random: rand.Reader, Now: l.clock, Log: log, Rate: 10_000})
	must(t, err)
	l.handler, err = admin.New(admin.Config{Store: l.store, Principals: known, Known: access.NewAuthenticator(known, l.clock), Random: rand.Reader, Now: l.clock, Log: log, Rate: 10_000, SNP: verifier})
	must(t, err)
	l.server.Administer(l.handler)

	files, err := tlsfiles.Open(tlsfiles.Config{Cert: filepath.Join(l.dir, pki.ServerCertificate), Key: filepath.Join(l.dir, pki.ServerKey),
		ClientCA: filepath.Join(l.dir, pki.AuthorityCertificate), Now: l.clock, Log: log})
	must(t, err)
	authority, err := pki.ReadCertificate(filepath.Join(l.dir, pki.AuthorityCertificate))
	must(t, err)
	l.ca = x509.NewCertPool()
	l.ca.AddCert(authority)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l.url = "https://" + listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.server.Serve(ctx, tls.NewListener(listener, files.TLS())) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		must(t, l.store.Close())
	})
	return l
}

func (l *lab) clock() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *lab) wait(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = l.now.Add(d)
}

// transport makes connections of their own, with a client certificate if files of one are named.
func (l *lab) transport(certificates ...tls.Certificate) *http.Client {
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: l.ca, Certificates: certificates}}
	l.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: documented{l.t, t}, Timeout: 30 * time.Second}
}

// as is a client with the token of a role.
func (l *lab) as(role string) *adminclient.Client {
	l.t.Helper()
	c, err := adminclient.New(l.url, []byte(l.tokens[role]), l.transport())
	must(l.t, err)
	return c
}

// rootClient has the first administrator's certificate.
func (l *lab) rootClient() *adminclient.Client {
	l.t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(l.dir, "root.crt"), filepath.Join(l.dir, "root.key"))
	must(l.t, err)
	c, err := adminclient.New(l.url, nil, l.transport(pair))
	must(l.t, err)
	return c
}

var (
	goodDigest = sev.Digest(sha256.Sum256([]byte("firmware")))
	snpDigest  = snp.Digest(bytes.Repeat([]byte{0x5a}, 48))
	passphrase = []byte("the passphrase of the disk: 256 bits, let us say")
)

func testRecord(t testing.TB) []byte {
	t.Helper()
	r := &measure.Record{
		Version: measure.RecordVersion,
		Firmware: measure.FirmwareFacts{SHA256: sha256.Sum256([]byte("firmware")), Size: 4 << 20,
			SecretArea: ovmf.Area{Base: 0x80c000, Size: 3072}},
		Digests: []measure.LaunchDigest{
			{Launch: measure.Launch{Mode: measure.SEV}, Digest: goodDigest[:]},
			{Launch: measure.Launch{Mode: measure.SNP, VCPUs: 1, VCPUType: "EPYC-v4"}, Digest: snpDigest[:]},
		},
		Disk:     measure.Disk{UUID: "00000000-0000-4000-8000-000000000001", HeaderPin: sha256.Sum256([]byte("header"))},
		MadeWith: map[string]string{"sealboot": "test"},
	}
	text, err := r.Encode()
	must(t, err)
	return text
}

func testPolicy(t testing.TB, change ...func(*keyserver.Policy)) []byte {
	t.Helper()
	p := keyserver.DefaultPolicy()
	for _, c := range change {
		c(&p)
	}
	text, err := p.Encode()
	must(t, err)
	return text
}

func registration(t testing.TB, name string) wire.Registration {
	t.Helper()
	return wire.Registration{Image: name, Record: testRecord(t), Policy: testPolicy(t), Passphrase: passphrase}
}

func (l *lab) register(name string) {
	l.t.Helper()
	_, err := l.as("register").Register(l.t.Context(), registration(l.t, name))
	must(l.t, err)
}

// refused checks that err is the server's refusal of a class, that audit or log know its request, and gives the detail.
func (l *lab) refused(err error, class wire.Class) string {
	l.t.Helper()
	r := (*adminclient.Refused)(nil)
	if !errors.As(err, &r) || r.Class != class {
		l.t.Fatalf("got %v, want a refusal of class %s", err, class)
	}
	if !strings.Contains(l.log.String(), r.Request) {
		l.t.Errorf("log does not know request %s", r.Request)
	}
	return r.Detail
}

// last is the audit's last row; the audit must hold.
func (l *lab) last() keyserver.Row {
	l.t.Helper()
	rows := l.rows()
	if len(rows) == 0 {
		l.t.Fatal("audit is empty")
	}
	return rows[len(rows)-1]
}

func (l *lab) rows() (rows []keyserver.Row) {
	l.t.Helper()
	must(l.t, l.store.Audit(l.t.Context(), func(r keyserver.Row) error { rows = append(rows, r); return nil }))
	return rows
}

// raw sends a request as it is.
func (l *lab) raw(method, path, token string, header http.Header, body io.Reader) (*http.Response, string) {
	l.t.Helper()
	r, err := http.NewRequestWithContext(l.t.Context(), method, l.url+path, body)
	must(l.t, err)
	for name, values := range header {
		r.Header[name] = values
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := l.transport().Do(r)
	must(l.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(l.t, err)
	return answer, string(text)
}

// issue makes a client certificate of the lab's CA.
func (l *lab) issue(name string) tls.Certificate {
	l.t.Helper()
	authority, err := pki.ReadCertificate(filepath.Join(l.dir, pki.AuthorityCertificate))
	must(l.t, err)
	signer, err := pki.ReadKey(filepath.Join(l.dir, pki.AuthorityKey))
	must(l.t, err)
	ca, err := pki.OpenAuthority(authority, signer, rand.Reader)
	must(l.t, err)
	key, err := pki.NewKey(rand.Reader)
	must(l.t, err)
	c, err := ca.Client(name, key.Public(), 24*time.Hour, l.clock())
	must(l.t, err)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key}
}

var jsonHeader = http.Header{"Content-Type": {wire.MediaType}}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// tamper changes the store's database from outside.
func tamper(l *lab, statement string) error {
	db, err := sql.Open("sqlite", filepath.Join(l.folder, "keyserver.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec(statement)
	return err
}
