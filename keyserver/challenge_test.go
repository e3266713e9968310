package keyserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-sev-guest/proto/sevsnp"

	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
	"github.com/sealboot/sealboot/keyserver/snp/seal"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

var (
	testAMD   = sync.OnceValue(func() *fake.AMD { return fake.New(snp.Milan) })
	snpDigest = snp.Digest{1, 2, 3, 4}
)

// newSNPLab has a server that serves both ways in, and an image that opens both.
func newSNPLab(t testing.TB, change ...func(*Config)) *lab {
	t.Helper()
	l := newLab(t, append([]func(*Config){func(c *Config) { c.SNP = testVerifier(t, nil) }}, change...)...)
	l.wait(fake.Made.AddDate(0, 3, 0).Sub(l.clock()))
	l.registerSNP("web")
	return l
}

func testVerifier(t testing.TB, source snp.Source) *snp.Verifier {
	t.Helper()
	v, err := snp.NewVerifier(testAMD().Roots(), source)
	must(t, err)
	return v
}

func (l *lab) registerSNP(name string, change ...func(*Registration)) {
	l.t.Helper()
	l.register(name, append([]func(*Registration){openSNP}, change...)...)
}

// openSNP opens the way in at run time too.
func openSNP(r *Registration) {
	r.Record.Digests = append(r.Record.Digests, measure.LaunchDigest{Launch: measure.Launch{Mode: measure.SNP, VCPUs: 2, VCPUType: "EPYC-v4"}, Digest: snpDigest[:]})
	p := snp.DefaultPolicy()
	p.Revocation = snp.Revocation{}
	r.Policy.SNP = &p
}

// snpGuest is one guest on its way through the protocol. Tests spoil a field between its steps.
type snpGuest struct {
	image        string
	amd          *fake.AMD
	key          *seal.Key
	challenge    wire.Challenge
	spoil        func(*sevsnp.Report)
	certificates []byte
	request      wire.ReportRequest
}

func newGuest(t testing.TB, image string) *snpGuest {
	t.Helper()
	key, err := seal.NewKey(rand.Reader)
	must(t, err)
	return &snpGuest{image: image, amd: testAMD(), key: key, certificates: testAMD().Table()}
}

func (g *snpGuest) begin(ctx context.Context, c *client.Client) (err error) {
	g.challenge, err = c.Challenge(ctx, wire.ChallengeRequest{Image: g.image})
	return err
}

// report has the firmware make the report.
func (g *snpGuest) report(t testing.TB) {
	t.Helper()
	data, err := seal.ReportData(g.challenge.Nonce, g.key.Public(), g.image)
	must(t, err)
	r := g.amd.Report(3, snpDigest, data)
	if g.spoil != nil {
		g.spoil(r)
	}
	g.request = wire.ReportRequest{Image: g.image, Report: g.amd.Sign(r), Certificates: g.certificates, PublicKey: g.key.Public()}
}

func (g *snpGuest) finish(ctx context.Context, c *client.Client) (wire.SealedSecret, error) {
	return c.Report(ctx, g.challenge.ID, g.request)
}

func (g *snpGuest) run(t testing.TB, c *client.Client) (wire.SealedSecret, error) {
	t.Helper()
	must(t, g.begin(t.Context(), c))
	g.report(t)
	return g.finish(t.Context(), c)
}

// unlocked says whether the guest gets the right secrets out of the answer.
func (g *snpGuest) unlocked(t testing.TB, s wire.SealedSecret) {
	t.Helper()
	plain, err := g.key.Open(s.Encapsulated, s.Secret, g.challenge.ID, g.image)
	must(t, err)
	table, err := sev.ParseSecretTable(plain)
	must(t, err)
	if passphrase, ok := table.Find(sev.DiskPassphrase); !ok || !bytes.Equal(passphrase, testPassphrase) {
		t.Fatalf("guest found the passphrase %q", passphrase)
	}
}

// TestChallenge goes the whole way, and says in the audit what was learned.
func TestChallenge(t *testing.T) {
	l := newSNPLab(t)
	g := newGuest(t, "web")
	s, err := g.run(t, l.client)
	must(t, err)
	g.unlocked(t, s)
	rows := l.rows()
	released := rows[len(rows)-1]
	if released.Event != EventRelease || released.Class != "" || released.Digest != fmt.Sprintf("%x", snpDigest) || released.Session != g.challenge.ID[:32] || released.Version != 1 ||
		released.Chip != testAMD().Chip.String() || released.Platform != fmt.Sprintf("Milan/%x", testAMD().Chip[:8]) || released.API != "1.55.39" ||
		released.TCB != fake.MilanTCB.String() || released.Policy != "0x30000" || released.PolicyVersion != 1 || released.Kind != "snp" {
		t.Errorf("release's row: %+v", released)
	}
	h := newLaunch(platforms()[0], "web")
	p, err := h.run(t, l.client)
	must(t, err)
	h.unlocked(t, p) // the other way in is open too
}

// TestChallengeOnce: a challenge releases once, not after its time, and is no launch session.
func TestChallengeOnce(t *testing.T) {
	l := newSNPLab(t)
	g := newGuest(t, "web")
	s, err := g.run(t, l.client)
	must(t, err)
	g.unlocked(t, s)
	_, err = g.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Used)

	replay := newGuest(t, "web")
	must(t, replay.begin(t.Context(), l.client))
	replay.request = g.request
	_, err = replay.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Refused)
	if cause := l.lastCause(); !strings.Contains(cause, snp.ErrReportData.Error()) {
		t.Errorf("replayed: cause is %q", cause)
	}

	late := newGuest(t, "web")
	must(t, late.begin(t.Context(), l.client))
	l.wait(DefaultSessionTTL)
	late.report(t)
	_, err = late.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Expired)

	early := newGuest(t, "web") // its report will be judged by what is registered then
	must(t, early.begin(t.Context(), l.client))
	l.registerSNP("web", func(r *Registration) { r.Replace = true })
	early.report(t)
	s, err = early.finish(t.Context(), l.client)
	must(t, err)
	early.unlocked(t, s)

	gone := newGuest(t, "web")
	must(t, gone.begin(t.Context(), l.client))
	must(t, l.store.Revoke(t.Context(), Revocation{RevokedChip, testAMD().Chip.String(), "stolen", l.clock()}))
	gone.report(t)
	_, err = gone.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Refused)

	other := newGuest(t, "web")
	must(t, other.begin(t.Context(), l.client))
	_, err = l.client.Measurement(t.Context(), other.challenge.ID[:32], wire.MeasurementRequest{Measurement: make([]byte, 48)})
	refusedAs(t, err, wire.UnknownSession)
	_, err = l.client.Measurement(t.Context(), g.challenge.ID[:32], wire.MeasurementRequest{Measurement: make([]byte, 48)}) // of its session
	refusedAs(t, err, wire.UnknownSession)
}

// TestChallengeForged: a challenge is known by its id, every bit of it, and for its image alone.
func TestChallengeForged(t *testing.T) {
	l := newSNPLab(t)
	l.registerSNP("other")
	g := newGuest(t, "web")
	must(t, g.begin(t.Context(), l.client))
	g.report(t)
	good := g.challenge.ID
	rows := len(l.rows())
	for i := range good {
		forged := []byte(good)
		forged[i] = "0123456789abcdef0"[strings.IndexByte("0123456789abcdef", forged[i])+1]
		g.challenge.ID = string(forged)
		_, err := g.finish(t.Context(), l.client)
		refusedAs(t, err, wire.UnknownSession)
	}
	g.challenge.ID, g.request.Image = good, "other"
	_, err := g.finish(t.Context(), l.client)
	refusedAs(t, err, wire.UnknownSession)
	elsewhere := newSNPLab(t) // with a key of its own
	elsewhere.wait(l.clock().Sub(elsewhere.clock()))
	g.request.Image = "web"
	_, err = g.finish(t.Context(), elsewhere.client)
	refusedAs(t, err, wire.UnknownSession)
	if n := len(l.rows()); n != rows {
		t.Errorf("made-up challenges added %d rows to the audit", n-rows)
	}
	s, err := g.finish(t.Context(), l.client)
	must(t, err)
	g.unlocked(t, s)
}

// TestChallengesCostNothing: asking writes nothing, and the first of very many challenges is as good as the last.
func TestChallengesCostNothing(t *testing.T) {
	l := newSNPLab(t, func(c *Config) { c.MaxSessions = 3 })
	count := func() (n int) {
		must(t, l.store.read.row(t.Context(), `SELECT count(*) FROM sessions`).Scan(&n))
		return n
	}
	rows, sessions := len(l.rows()), count()
	first := newGuest(t, "web")
	must(t, first.begin(t.Context(), l.client))
	for range 1000 {
		_, err := l.server.OpenChallenge(wire.ChallengeRequest{Image: "web"})
		must(t, err)
	}
	if n, m := len(l.rows()), count(); n != rows || m != sessions {
		t.Errorf("challenges added %d rows to the audit, %d sessions", n-rows, m-sessions)
	}
	first.report(t)
	s, err := first.finish(t.Context(), l.client)
	must(t, err)
	first.unlocked(t, s)
}

// TestChallengeForgotten: a session that a challenge has made is forgotten in the end, and the challenge is not taken again for that, even if
// the clock is set back to when it was good; neither by a server that starts anew. One whose time is not over is not forgotten.
func TestChallengeForgotten(t *testing.T) {
	l := newSNPLab(t)
	g, unused, later := newGuest(t, "web"), newGuest(t, "web"), newGuest(t, "web")
	must(t, unused.begin(t.Context(), l.client))
	unused.report(t)
	s, err := g.run(t, l.client)
	must(t, err)
	g.unlocked(t, s)
	l.wait(DefaultSessionTTL + keepEnded)
	must(t, later.begin(t.Context(), l.client))
	later.report(t)
	must(t, l.server.Expire(t.Context()))
	if _, err := readSession(t.Context(), l.store.read, g.challenge.ID[:32]); !errors.Is(err, errNoSession) {
		t.Fatalf("session is still known: %v", err)
	}
	l.wait(-DefaultSessionTTL - keepEnded)
	for range 2 {
		for _, g := range []*snpGuest{g, unused} {
			_, err = g.finish(t.Context(), l.client)
			refusedAs(t, err, wire.Expired)
		}
		l.stop()
		l.start()
	}
	l.wait(DefaultSessionTTL + keepEnded)
	s, err = later.finish(t.Context(), l.client)
	must(t, err)
	later.unlocked(t, s)
	must(t, l.store.write(t.Context(), func(tx *transaction) error {
		n, err := tx.forget(`(kind <> 'snp' OR expires <= ?) ORDER BY seq`, l.clock().Unix())
		if n != 0 {
			t.Errorf("%d sessions are forgotten whose challenges are not over", n)
		}
		return err
	}))
	_, err = later.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Used)
}

// TestChallengeRace: of many requests with one good report, one gets the secret.
func TestChallengeRace(t *testing.T) {
	l := newSNPLab(t)
	g := newGuest(t, "web")
	must(t, g.begin(t.Context(), l.client))
	g.report(t)
	var mu sync.Mutex
	var released, used int
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			s, err := g.finish(context.Background(), l.client)
			mu.Lock()
			defer mu.Unlock()
			refused := (*client.Refused)(nil)
			switch {
			case err == nil:
				g.unlocked(t, s)
				released++
			case errors.As(err, &refused) && refused.Class == wire.Used:
				used++
			default:
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	if released != 1 || used != 31 {
		t.Errorf("%d released, %d used", released, used)
	}
}

// laterSource is a source that has nothing now, and AMD's certificates once it is ready.
type laterSource struct {
	mu    sync.Mutex
	ready bool
	now   time.Time
}

func (s *laterSource) get(b []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready {
		return nil, fmt.Errorf("%w: not yet", snp.ErrUnavailable)
	}
	return b, nil
}

func (s *laterSource) arrive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = true
}

func (s *laterSource) VCEK(context.Context, snp.Product, snp.ChipID, snp.TCB) ([]byte, error) {
	return s.get(testAMD().VCEK().Raw)
}

func (s *laterSource) Issuers(context.Context, snp.Product, snp.Signer) ([]byte, error) {
	return s.get(fake.PEM(testAMD().ASK(), testAMD().ARK()))
}

func (s *laterSource) Revocations(context.Context, snp.Product) ([]byte, error) {
	return s.get(testAMD().List(s.now.Add(-time.Hour), s.now.AddDate(0, 1, 0)))
}

// TestReportLater: while AMD's key service has not answered, the challenge stays open; the same report is taken afterwards. Another
// complaint beside it ends the challenge all the same.
func TestReportLater(t *testing.T) {
	for name, certificates := range map[string][]byte{"VCEK and list": nil, "list": testAMD().Table()} {
		source := &laterSource{now: fake.Made.AddDate(0, 3, 0)}
		l := newSNPLab(t, func(c *Config) { c.SNP = testVerifier(t, source) })
		l.registerSNP("strict", func(r *Registration) { r.Policy.SNP.Revocation = snp.DefaultPolicy().Revocation })
		g, wrong := newGuest(t, "strict"), newGuest(t, "strict")
		g.certificates = certificates
		_, err := g.run(t, l.client)
		refusedAs(t, err, wire.Busy)
		wrong.spoil = func(r *sevsnp.Report) { r.Measurement[0]++ }
		_, err = wrong.run(t, l.client)
		refusedAs(t, err, wire.Refused)
		source.arrive()
		s, err := g.finish(t.Context(), l.client)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		g.unlocked(t, s)
	}
}

// TestChallengeOfRestoredStore: a store that was made from a backup takes no challenge of the original, which may have released for it, though
// both have the same key.
func TestChallengeOfRestoredStore(t *testing.T) {
	l := newSNPLab(t)
	g := newGuest(t, "web")
	must(t, g.begin(t.Context(), l.client))
	g.report(t)
	file, location := l.backup(), newLocation(t)
	must(t, Restore(t.Context(), bytes.NewReader(file), location, l.key, rand.Reader, l.clock()))
	copied := &lab{t: t, dir: location, key: l.key, log: l.log, now: l.now, limits: l.limits, config: l.config}
	copied.config.Now = copied.clock
	copied.start()
	defer func() { copied.stop() }()
	_, err := g.finish(t.Context(), copied.client)
	refusedAs(t, err, wire.UnknownSession)
	_, err = newGuest(t, "web").run(t, copied.client)
	must(t, err)
	s, err := g.finish(t.Context(), l.client)
	must(t, err)
	g.unlocked(t, s)
}

// TestSecretsOfGuest goes the whole way with the client's one call, once without waiting and once after the server had to ask.
func TestSecretsOfGuest(t *testing.T) {
	source := &laterSource{now: fake.Made.AddDate(0, 3, 0)}
	l := newSNPLab(t, func(c *Config) { c.SNP = testVerifier(t, source) })
	asked := 0
	firmware := func(certificates []byte) client.Reporter {
		return func(_ context.Context, data [seal.ReportDataSize]byte) ([]byte, []byte, error) {
			asked++
			return testAMD().Sign(testAMD().Report(5, snpDigest, data)), certificates, nil
		}
	}
	for name, certificates := range map[string][]byte{"certificates given": testAMD().Table(), "certificates fetched": nil} {
		if certificates == nil {
			time.AfterFunc(100*time.Millisecond, source.arrive)
		}
		table, err := l.client.Secrets(t.Context(), "web", rand.Reader, l.clock, firmware(certificates))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		read, err := sev.ParseSecretTable(table)
		must(t, err)
		if passphrase, ok := read.Find(sev.DiskPassphrase); !ok || !bytes.Equal(passphrase, testPassphrase) {
			t.Errorf("%s: found %q", name, passphrase)
		}
	}
	if asked != 2 {
		t.Errorf("%d reports were made", asked)
	}
	_, err := l.client.Secrets(t.Context(), "unknown", rand.Reader, l.clock, firmware(nil))
	refusedAs(t, err, wire.Refused)
	broken := errors.New("no firmware")
	_, err = l.client.Secrets(t.Context(), "web", rand.Reader, l.clock, func(context.Context, [seal.ReportDataSize]byte) ([]byte, []byte, error) {
		return nil, nil, broken
	})
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	closed := newSNPLab(t, func(c *Config) { c.SNP = testVerifier(t, &laterSource{}) })
	_, err = closed.client.Secrets(t.Context(), "web", rand.Reader, func() time.Time { return closed.clock().Add(DefaultSessionTTL) }, firmware(nil))
	refusedAs(t, err, wire.Busy)
}

// TestReportOnTrial tries a policy on a report, without a challenge: nothing is written.
func TestReportOnTrial(t *testing.T) {
	l := newSNPLab(t)
	rows := len(l.rows())
	at, err := testVerifier(t, nil).Verify(t.Context(), snp.Evidence{Report: testAMD().Sign(testAMD().Report(5, snpDigest, snp.ReportData{1})),
		Certificates: testAMD().Table()}, l.clock())
	must(t, err)
	a := ReportAttempt(at, at.Data(), l.clock(), "127.0.0.1")
	v, err := l.store.TestPolicy(t.Context(), "web", nil, a)
	must(t, err)
	if v.Err() != nil || !bytes.Equal(v.Digest, snpDigest[:]) {
		t.Error(v.Err())
	}
	p := DefaultPolicy()
	guest := snp.DefaultPolicy()
	guest.Chips = snp.Only(snp.ChipID{1})
	p.SNP = &guest
	v, err = l.store.TestPolicy(t.Context(), "web", &p, a)
	must(t, err)
	if !errors.Is(v.Err(), snp.ErrChip) || !errors.Is(v.Err(), snp.ErrRevocationAge) {
		t.Error(v.Err())
	}
	if len(l.rows()) != rows {
		t.Error("a trial was written down")
	}
}

// TestChallengeClosed: without a verifier the way in is not there.
func TestChallengeClosed(t *testing.T) {
	l := newLab(t)
	_, err := l.client.Challenge(t.Context(), wire.ChallengeRequest{Image: "web"})
	refusedAs(t, err, wire.NotFound)
}
