package keyserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

// testAPI is the version of the platforms' firmware in tests.
var testAPI = sev.API{Major: 1, Minor: 55, Build: 21}

var testPassphrase = []byte("correct horse battery staple: 256 bits, let us say")

// platforms are the machines of all tests: the first two are trusted, the third has a root of its own.
var platforms = sync.OnceValue(func() []*sev.Platform {
	var list []*sev.Platform
	for range 3 {
		p, err := sev.NewPlatform(rand.Reader, testAPI)
		if err != nil {
			panic(err)
		}
		list = append(list, p)
	}
	return list
})

// lab is a key server with one image, on loopback, and a clock that the test moves.
type lab struct {
	t         testing.TB
	dir       string // location of the store
	key       *Key
	store     *Store
	server    *Server
	client    *client.Client
	url       string
	log       *syncBuffer
	config    Config
	limits    limits
	stop      func()
	monitored bool // what is counted, see Monitor

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

func (b *syncBuffer) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.b.Bytes())
}

// newKey makes a store key: the bytes, for another process, and the Key.
func newKey(t testing.TB) ([]byte, *Key) {
	t.Helper()
	raw := make([]byte, keySize)
	rand.Read(raw)
	key, err := NewKey(raw)
	must(t, err)
	return raw, key
}

func testKey(t testing.TB) *Key {
	t.Helper()
	_, key := newKey(t)
	return key
}

// newLab starts a server; change may alter its configuration.
func newLab(t testing.TB, change ...func(*Config)) *lab {
	t.Helper()
	return newLabAt(t, newLocation(t), change...)
}

// newLabAt makes the store in a location.
func newLabAt(t testing.TB, location string, change ...func(*Config)) *lab {
	t.Helper()
	key := testKey(t)
	l := &lab{t: t, dir: location, key: key, log: new(syncBuffer), now: time.Now().Truncate(time.Second), limits: defaultLimits}
	l.limits.stop = 500 * time.Millisecond // a client's spare connections are not waited for
	must(t, CreateStore(t.Context(), l.dir, key, l.clock()))
	l.config = Config{Rate: maxRate, ImageRate: maxRate, Roots: sev.AMDRoots(), Random: rand.Reader, Now: l.clock, Log: slog.New(slog.NewJSONHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, p := range platforms()[:2] {
		digest, err := p.Chain.ARK.KeyDigest()
		must(t, err)
		l.config.Roots = l.config.Roots.With("test", digest)
	}
	for _, c := range change {
		c(&l.config)
	}
	l.start()
	t.Cleanup(func() { l.stop() })
	return l
}

// query asks the store's database, whether the store is open or not.
func (l *lab) query(query string, args ...any) *sql.Row {
	l.t.Helper()
	db, d, err := openDatabase(l.dir)
	must(l.t, err)
	l.t.Cleanup(func() { db.Close() })
	return d.on(db).row(l.t.Context(), query, args...)
}

// start opens the store and serves it; stop ends both, and start may follow again.
func (l *lab) start() {
	l.t.Helper()
	var err error
	l.store, err = OpenStore(context.Background(), l.dir, l.key, rand.Reader, l.clock())
	must(l.t, err)
	l.config.Store = l.store
	l.server, err = NewServer(l.config)
	must(l.t, err)
	l.server.limits = l.limits
	if l.monitored {
		l.server.Monitor(nil)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(l.t, err)
	l.url = "http://" + listener.Addr().String()
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	l.client, err = client.New(l.url, &http.Client{Transport: transport, Timeout: 30 * time.Second})
	must(l.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.server.Serve(ctx, listener) }()
	l.stop = sync.OnceFunc(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			l.t.Errorf("serve: %v", err)
		}
		if err := l.store.Close(); err != nil {
			l.t.Errorf("close store: %v", err)
		}
	})
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

// Digests of the test image: two ways to launch with SEV, one with SEV-ES.
var (
	goodDigest  = sev.Digest(sha256.Sum256([]byte("firmware")))
	otherDigest = sev.Digest(sha256.Sum256([]byte("firmware, launched otherwise")))
	esDigest    = sev.Digest(sha256.Sum256([]byte("firmware, and one virtual processor's registers")))
)

func testRecord() *measure.Record {
	return &measure.Record{
		Version: measure.RecordVersion,
		Firmware: measure.FirmwareFacts{SHA256: sha256.Sum256([]byte("firmware")), Size: 4 << 20,
			SecretArea: ovmf.Area{Base: 0x80c000, Size: 3072}},
		Digests: []measure.LaunchDigest{
			{Launch: measure.Launch{Mode: measure.SEV}, Digest: otherDigest[:]},
			{Launch: measure.Launch{Mode: measure.SEV, KernelHashes: make([]byte, 32)}, Digest: goodDigest[:]},
			{Launch: measure.Launch{Mode: measure.SEVES, VCPUs: 1, VCPUType: "EPYC-v4"}, Digest: esDigest[:]},
		},
		Disk:     measure.Disk{UUID: "00000000-0000-4000-8000-000000000001", HeaderPin: sha256.Sum256([]byte("header"))},
		MadeWith: map[string]string{"sealboot": "test"},
	}
}

// register puts the test image into the store under a name.
func (l *lab) register(name string, change ...func(*Registration)) {
	l.t.Helper()
	r := Registration{Name: name, Record: testRecord(), Policy: DefaultPolicy(), Passphrase: testPassphrase}
	for _, c := range change {
		c(&r)
	}
	_, err := l.store.Register(l.t.Context(), r, l.clock())
	must(l.t, err)
}

// launch is one start of a machine on the way through the protocol. Tests spoil a field between its steps.
type launch struct {
	platform *sev.Platform
	request  wire.SessionRequest
	session  wire.Session
	policy   sev.Policy // that the host starts the guest with
	digest   sev.Digest
	api      sev.API
	guest    *sev.Guest
	measured wire.MeasurementRequest
}

func newLaunch(p *sev.Platform, image string) *launch {
	return &launch{platform: p, digest: goodDigest, api: p.API, request: wire.SessionRequest{
		Image: image, PDH: p.Chain.PDH.Encode(), CertChain: p.Chain.EncodePlatform(), CA: p.Chain.EncodeCA()}}
}

// begin asks for the session.
func (h *launch) begin(ctx context.Context, c *client.Client) (err error) {
	h.session, err = c.Session(ctx, h.request)
	h.policy = sev.Policy(h.session.Policy)
	return err
}

// measure starts the guest on the platform and measures it.
func (h *launch) measure(t testing.TB) {
	t.Helper()
	var err error
	h.guest, err = h.platform.LaunchStart(h.session.DHCert, h.session.Blob, h.policy)
	must(t, err)
	m, err := h.guest.Measure(h.digest, rand.Reader)
	must(t, err)
	h.measured = wire.MeasurementRequest{Measurement: m.Encode(), APIMajor: h.api.Major, APIMinor: h.api.Minor, Build: h.api.Build}
}

// finish brings the measurement.
func (h *launch) finish(ctx context.Context, c *client.Client) (wire.Packet, error) {
	return c.Measurement(ctx, h.session.ID, h.measured)
}

// unlocked says whether the packet puts the right secrets into the guest's memory.
func (h *launch) unlocked(t testing.TB, p wire.Packet) {
	t.Helper()
	plain, err := h.guest.OpenSecret(p.Header, p.Secret)
	must(t, err)
	table, err := sev.ParseSecretTable(plain)
	must(t, err)
	passphrase, ok := table.Find(sev.DiskPassphrase)
	if !ok || !bytes.Equal(passphrase, testPassphrase) {
		t.Fatalf("guest found the passphrase %q", passphrase)
	}
	want := testRecord().Disk.HeaderPin
	pin, ok := table.Find(sev.HeaderPin)
	if !ok || !bytes.Equal(pin, want[:]) {
		t.Fatalf("guest found the header pin %x", pin)
	}
}

// run goes the whole way; an error is the server's.
func (h *launch) run(t testing.TB, c *client.Client) (wire.Packet, error) {
	t.Helper()
	if err := h.begin(t.Context(), c); err != nil {
		return wire.Packet{}, err
	}
	h.measure(t)
	return h.finish(t.Context(), c)
}

// good proves that the lab releases at all.
func (l *lab) good(image string) {
	l.t.Helper()
	h := newLaunch(platforms()[0], image)
	packet, err := h.run(l.t, l.client)
	must(l.t, err)
	h.unlocked(l.t, packet)
}

// rows gives the audit, which must hold.
func (l *lab) rows() []Row {
	l.t.Helper()
	var rows []Row
	must(l.t, l.store.Audit(context.Background(), func(r Row) error { rows = append(rows, r); return nil }))
	return rows
}

// lastCause gives the cause of the last refusal in the audit, and the reason that is behind it.
func (l *lab) lastCause() string {
	l.t.Helper()
	rows := l.rows()
	for _, r := range slices.Backward(rows) {
		if r.Class != "" {
			return r.Cause + ": " + r.Reason
		}
	}
	l.t.Fatal("no refusal in the audit")
	return ""
}

// refusedAs checks that err is the server's refusal of a class.
func refusedAs(t testing.TB, err error, class wire.Class) {
	t.Helper()
	refused := (*client.Refused)(nil)
	if !errors.As(err, &refused) || refused.Class != class {
		t.Fatalf("got %v, want a refusal of class %s", err, class)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// raw posts a body as it is, and gives status, type of problem, and the answer.
func (l *lab) raw(method, path, media string, body io.Reader) (int, http.Header, string) {
	l.t.Helper()
	r, err := http.NewRequestWithContext(l.t.Context(), method, l.url+path, body)
	must(l.t, err)
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	answer, err := http.DefaultClient.Do(r)
	must(l.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(l.t, err)
	return answer.StatusCode, answer.Header, string(text)
}
