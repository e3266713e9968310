package keyserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cryptorand "crypto/rand"

	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

// TestCrash takes copies of the store as a crash would leave it, before and after a release's commit. From neither is
// there a second release: in the first the packet had not left.
func TestCrash(t *testing.T) {
	l := newLab(t)
	l.register("web")
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	before := copyStore(t, l.dir)
	packet, err := h.finish(t.Context(), l.client)
	must(t, err)
	h.unlocked(t, packet)
	after := copyStore(t, l.dir)
	l.stop()

	l.dir = after
	l.start()
	_, err = h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Used)
	l.rows()
	l.stop()

	l.dir = before
	l.start()
	_, err = h.finish(t.Context(), l.client)
	must(t, err)
	_, err = h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Used)
	l.rows()
}

// copyStore copies the store as it stands, while servers use it: SQLite's files on the disk, PostgreSQL's by its own
// programs.
func copyStore(t *testing.T, dir string) string {
	t.Helper()
	if onPostgres() {
		return copyDatabase(t, dir)
	}
	to := filepath.Join(t.TempDir(), "store")
	must(t, os.CopyFS(to, os.DirFS(dir)))
	must(t, os.RemoveAll(filepath.Join(to, databaseName+"-shm"))) // memory that processes share: gone in a crash
	return to
}

// childStore tells this test's program to be a key server on that store, to be killed.
const childStore = "SEALBOOT_TEST_CHILD_STORE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childStore); dir != "" {
		slog.Error("ended", "error", serveChild(dir))
		os.Exit(1)
	}
	code := m.Run()
	if err := stopCluster(); err != nil {
		slog.Error("stop PostgreSQL", "error", err)
		code = 1
	}
	os.Exit(code)
}

// serveChild takes the store's key and the root's digest from standard input and serves until it is killed.
func serveChild(dir string) error {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	key, err := NewKey(in[:keySize])
	if err != nil {
		return err
	}
	root, err := sev.ParseRootDigest(string(in[keySize:]))
	if err != nil {
		return err
	}
	store, err := OpenStore(context.Background(), dir, key, cryptorand.Reader, time.Now())
	if err != nil {
		return err
	}
	steps, err := newSteps()
	if err != nil {
		return err
	}
	store.Observe(steps.observer())
	reports, err := snp.NewVerifier(testAMD().Roots(), nil)
	if err != nil {
		return err
	}
	s, err := NewServer(Config{Rate: maxRate, ImageRate: maxRate, SNP: reports, Store: store, Roots: sev.RootSet{root: "test"}, Random: steps, Now: steps.now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	os.Stdout.WriteString("http://" + l.Addr().String() + "\n")
	return s.Serve(context.Background(), steppingListener{l, steps})
}

// child is a key server in a process of its own.
type child struct {
	cmd    *exec.Cmd
	client *client.Client
}

func startChild(t *testing.T, dir string, key []byte, env ...string) *child {
	t.Helper()
	root, err := platforms()[0].Chain.ARK.KeyDigest()
	must(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childStore+"="+dir), env...)
	cmd.Stdin = strings.NewReader(string(key) + root.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	url, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	c, err := client.New(strings.TrimSpace(url), &http.Client{Transport: new(http.Transport), Timeout: 20 * time.Second})
	must(t, err)
	return &child{cmd, c}
}

// kill is kill -9, of the one process that startChild started.
func (c *child) kill(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		must(t, err)
	}
	c.cmd.Wait() // says "killed"
}

// asking is a launch or a guest that has its evidence and asks for the secrets.
type asking struct {
	id     string // of its session or challenge
	finish func(context.Context, *client.Client) error
}

func (h *launch) asking() asking {
	return asking{h.session.ID, func(ctx context.Context, c *client.Client) error { _, err := h.finish(ctx, c); return err }}
}

func (g *snpGuest) asking() asking {
	return asking{g.challenge.ID[:32], func(ctx context.Context, c *client.Client) error { _, err := g.finish(ctx, c); return err }}
}

// TestKilled kills servers in the middle of releases, of both ways in, over and over: no session releases twice, the store opens, the
// audit's chain holds, and each packet that came out is in it.
func TestKilled(t *testing.T) {
	const rounds, clients = 8, 12
	raw, key := newKey(t)
	dir := newKilledStore(t, key)
	released := make(map[string]int) // packets that came out, by session
	cut := 0
	for range rounds {
		c := startChild(t, dir, raw)
		var asking []asking
		for range clients / 2 {
			h, g := newLaunch(platforms()[0], "web"), newGuest(t, "web")
			must(t, h.begin(t.Context(), c.client))
			h.measure(t)
			must(t, g.begin(t.Context(), c.client))
			g.report(t)
			asking = append(asking, h.asking(), g.asking())
		}
		got := make([]error, clients)
		var all sync.WaitGroup
		var answered atomic.Int64
		for i, a := range asking {
			all.Go(func() {
				got[i] = a.finish(t.Context(), c.client)
				answered.Add(1)
			})
		}
		for enough := rand.Int64N(clients); answered.Load() < enough; { // the kill falls between the answers
			time.Sleep(20 * time.Microsecond)
		}
		c.kill(t)
		all.Wait()
		c = startChild(t, dir, raw)
		for i, a := range asking {
			if got[i] == nil {
				released[a.id]++
			} else {
				cut++
			}
			err := a.finish(t.Context(), c.client)
			refusal := (*client.Refused)(nil)
			switch {
			case err == nil:
				released[a.id]++
			case errors.As(err, &refusal) && refusal.Class == wire.Used:
			default:
				t.Fatal(err)
			}
		}
		c.kill(t)
	}
	if len(released) == 0 || cut == 0 {
		t.Fatalf("%d sessions released, %d requests cut off: the kills came at no time that matters", len(released), cut)
	}
	t.Logf("%d sessions released, %d requests cut off", len(released), cut)
	s, err := OpenStore(t.Context(), dir, key, cryptorand.Reader, time.Now())
	must(t, err)
	defer s.Close()
	inAudit := make(map[string]int)
	must(t, s.Audit(t.Context(), func(r Row) error {
		if r.Event == EventRelease && r.Class == "" {
			inAudit[r.Session]++
		}
		return nil
	}))
	for id, n := range released {
		if n != 1 || inAudit[id] != 1 {
			t.Errorf("session %s: %d packets came out, the audit knows of %d", id, n, inAudit[id])
		}
	}
}
