package keyserver

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	cryptorand "crypto/rand"

	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// steps kills its own process, by SIGKILL, at the step of a given number: at whatever a release asks of the world outside of
// the database, in the order in which it does. A step is counted before it is taken, from the request that brings evidence on.
type steps struct {
	left  atomic.Int64
	armed atomic.Bool
}

// childKill names the step to a child, in its environment.
const childKill = "SEALBOOT_TEST_CHILD_KILL"

// newSteps counts down to the step that the environment names; 0 is never.
func newSteps() (*steps, error) {
	s := new(steps)
	text := os.Getenv(childKill)
	if text == "" {
		return s, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	s.left.Store(n)
	return s, err
}

func (s *steps) step() {
	if s.armed.Load() && s.left.Load() > 0 && s.left.Add(-1) == 0 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}

func (s *steps) now() time.Time { s.step(); return time.Now() }

func (s *steps) Read(b []byte) (int, error) { s.step(); return cryptorand.Read(b) }

// observer has steps when a batch begins, after its commit, and before those who wait are told.
func (s *steps) observer() Observer {
	return Observer{
		Batch:   func() func(int, int) { s.step(); return func(int, int) { s.step() } },
		Decided: func(Entry) { s.step() },
	}
}

type steppingListener struct {
	net.Listener
	*steps
}

func (l steppingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return steppingConn{c, l.steps}, err
}

// steppingConn has steps before and after each part of an answer leaves.
type steppingConn struct {
	net.Conn
	*steps
}

func (c steppingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if bytes.Contains(b[:n], []byte("/measurement HTTP")) || bytes.Contains(b[:n], []byte("/report HTTP")) {
		c.armed.Store(true)
		c.step()
	}
	return n, err
}

func (c steppingConn) Write(b []byte) (int, error) {
	c.step()
	n, err := c.Conn.Write(b)
	c.step()
	return n, err
}

// TestKilledAtEveryStep kills a server at one step of a release after the other, until a release goes through, for both ways in: what
// came out before and what comes out of a server that starts anew are never two secrets for one session, the store opens, and the chain holds.
func TestKilledAtEveryStep(t *testing.T) {
	for name, begin := range map[string]func(t *testing.T, c *client.Client) asking{
		"measurement": func(t *testing.T, c *client.Client) asking {
			h := newLaunch(platforms()[0], "web")
			must(t, h.begin(t.Context(), c))
			h.measure(t)
			return h.asking()
		},
		"report": func(t *testing.T, c *client.Client) asking {
			g := newGuest(t, "web")
			must(t, g.begin(t.Context(), c))
			g.report(t)
			return g.asking()
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw, key := newKey(t)
			dir := newKilledStore(t, key)
			before, after := 0, 0 // kills before and after the release's commit
			for step := 1; ; step++ {
				if step > 100 {
					t.Fatal("a release has no end")
				}
				c := startChild(t, dir, raw, fmt.Sprintf("%s=%d", childKill, step))
				a := begin(t, c.client)
				first := a.finish(t.Context(), c.client)
				c.kill(t)

				c = startChild(t, dir, raw)
				second := a.finish(t.Context(), c.client)
				third := a.finish(t.Context(), c.client)
				c.kill(t)
				used := func(err error) bool {
					refused := (*client.Refused)(nil)
					return errors.As(err, &refused) && refused.Class == wire.Used
				}
				switch {
				case first != nil && second == nil && used(third):
					before++
				case used(second) && used(third):
					after++
				default:
					t.Fatalf("killed at step %d: %v; then %v; then %v", step, first, second, third)
				}
				releases := 0
				s, err := OpenStore(t.Context(), dir, key, cryptorand.Reader, time.Now())
				must(t, err)
				must(t, s.Audit(t.Context(), func(r Row) error { // which checks the chain
					if r.Event == EventRelease && r.Class == "" && r.Session == a.id {
						releases++
					}
					return nil
				}))
				must(t, s.Close())
				if releases != 1 {
					t.Fatalf("killed at step %d: the audit knows of %d releases", step, releases)
				}
				if first == nil {
					break // it got through: that was the last step
				}
			}
			if before < 3 || after < 3 {
				t.Errorf("%d kills fell before the commit, %d after it", before, after)
			}
			t.Logf("%d kills before the commit, %d after it", before, after)
		})
	}
}

// newKilledStore makes a store with an image that opens both ways in, for servers in processes of their own.
func newKilledStore(t *testing.T, key *Key) (dir string) {
	t.Helper()
	dir = newLocation(t)
	must(t, CreateStore(t.Context(), dir, key, time.Now()))
	s, err := OpenStore(t.Context(), dir, key, cryptorand.Reader, time.Now())
	must(t, err)
	defer s.Close()
	r := Registration{Name: "web", Record: testRecord(), Policy: DefaultPolicy(), Passphrase: testPassphrase}
	openSNP(&r)
	_, err = s.Register(t.Context(), r, time.Now())
	must(t, err)
	return dir
}
