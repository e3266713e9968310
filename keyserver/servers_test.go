package keyserver

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	cryptorand "crypto/rand"

	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// fleet is several servers, each a process of its own, on one store. Any of them may be killed and come back.
type fleet struct {
	location string
	key      []byte
	mu       sync.Mutex
	servers  []*child
}

// any gives some server's client.
func (f *fleet) any() *client.Client {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.servers[rand.IntN(len(f.servers))].client
}

// replace kills a server, and puts a new one in its place.
func (f *fleet) replace(t *testing.T, i int) {
	f.mu.Lock()
	old := f.servers[i]
	f.mu.Unlock()
	old.kill(t)
	fresh := startChild(t, f.location, f.key)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.servers[i] = fresh
}

// tally is what the clients saw.
type tally struct {
	mu                 sync.Mutex
	sessions           map[string]*launch // that were answered
	packets            map[string]int     // that came out, by session
	used, cut, refused int
}

// race makes a session at one server and brings its measurement to several at once.
func (f *fleet) race(t *testing.T, ctx context.Context, seen *tally) {
	h := newLaunch(platforms()[0], "web")
	if err := h.begin(ctx, f.any()); err != nil {
		seen.count(t, h, err)
		time.Sleep(50 * time.Millisecond) // the database may be away: leave it the processors
		return
	}
	h.measure(t)
	seen.mu.Lock()
	seen.sessions[h.session.ID] = h
	seen.mu.Unlock()
	var all sync.WaitGroup
	var packets [3]wire.Packet
	for i := range packets {
		all.Go(func() {
			var err error
			packets[i], err = h.finish(ctx, f.any())
			seen.count(t, h, err)
		})
	}
	all.Wait()
	for _, p := range packets {
		if p.Secret != nil {
			h.unlocked(t, p)
		}
	}
}

func (s *tally) count(t *testing.T, h *launch, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refused := (*client.Refused)(nil)
	switch {
	case err == nil:
		s.packets[h.session.ID]++
	case !errors.As(err, &refused):
		s.cut++ // the server was killed
	case refused.Class == wire.Used:
		s.used++
	case refused.Class == wire.Busy || refused.Class == wire.Internal: // SQLite's lock, or PostgreSQL's, was not to be had
		s.refused++
	default:
		t.Errorf("session %s: %v", h.session.ID, err)
	}
}

// TestServersOnOneStore lets many clients race at several servers, which are killed in the middle and come back, as is PostgreSQL:
// nothing is released twice, nothing that was answered is lost, and the audit's chain holds.
func TestServersOnOneStore(t *testing.T) {
	const servers, clients, kills = 3, 8, 15
	raw, key := newKey(t)
	f := &fleet{key: raw}
	var database *testtool.Postgres // of its own, for it is killed too
	if onPostgres() {
		database = testtool.StartPostgres(t)
		defer database.Stop()
		f.location = database.Database(t, "keys")
	} else {
		f.location = newLocation(t)
	}
	must(t, CreateStore(t.Context(), f.location, key, time.Now()))
	s, err := OpenStore(t.Context(), f.location, key, cryptorand.Reader, time.Now())
	must(t, err)
	defer s.Close()
	_, err = s.Register(t.Context(), Registration{Name: "web", Record: testRecord(), Policy: DefaultPolicy(), Passphrase: testPassphrase}, time.Now())
	must(t, err)
	for range servers {
		f.servers = append(f.servers, startChild(t, f.location, raw))
	}
	defer func() {
		for _, c := range f.servers {
			c.kill(t)
		}
	}()

	seen := &tally{sessions: make(map[string]*launch), packets: make(map[string]int)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for ctx.Err() == nil {
				f.race(t, t.Context(), seen)
			}
		})
	}
	for i := range kills {
		for before := seen.released(); seen.released() < before+10; { // the kill falls between releases
			if t.Failed() {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
		if database != nil && i%3 == 2 {
			database.Kill()
			database.Start(t)
			continue
		}
		f.replace(t, i%servers)
	}
	stop()
	all.Wait()
	for _, h := range seen.sessions { // whoever lost an answer asks again
		_, err := h.finish(t.Context(), f.any())
		seen.count(t, h, err)
	}

	sessions, releases := make(map[string]int), make(map[string]int)
	must(t, s.Audit(t.Context(), func(r Row) error {
		switch {
		case r.Event == EventSession:
			sessions[r.Session]++
		case r.Event == EventRelease && r.Class == "":
			releases[r.Session]++
		}
		return nil
	}))
	for id := range seen.sessions {
		if sessions[id] != 1 {
			t.Errorf("session %s was answered, and has %d audit rows", id, sessions[id])
		}
	}
	for id, n := range seen.packets {
		if n != 1 || releases[id] != 1 {
			t.Errorf("session %s: %d packets came out, the audit knows of %d", id, n, releases[id])
		}
	}
	for id, n := range releases {
		var state string
		must(t, s.read.row(t.Context(), `SELECT state FROM sessions WHERE id = ?`, id).Scan(&state))
		if n != 1 || state != "released" {
			t.Errorf("session %s is %s, the audit knows of %d releases", id, state, n)
		}
	}
	t.Logf("%d servers, %d kills: %d sessions, %d released, %d answers lost after it, %d told used, %d requests cut off, %d told to come later",
		servers, kills, len(sessions), len(seen.packets), len(releases)-len(seen.packets), seen.used, seen.cut, seen.refused)
	if len(seen.packets) == 0 || seen.used == 0 || seen.cut == 0 {
		t.Error("the races or the kills came at no time that matters")
	}
}

func (s *tally) released() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.packets)
}

// TestCreateOnce lets several servers make the store at the same time: one does.
func TestCreateOnce(t *testing.T) {
	const servers = 8
	key := testKey(t)
	location := newLocation(t)
	var all sync.WaitGroup
	results := make([]error, servers)
	for i := range servers {
		all.Go(func() { results[i] = CreateStore(t.Context(), location, key, time.Now()) })
	}
	all.Wait()
	made := 0
	for _, err := range results {
		switch {
		case err == nil:
			made++
		case !errors.Is(err, ErrStoreThere):
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("%d of %d made the store", made, servers)
	}
	s, err := OpenStore(t.Context(), location, key, cryptorand.Reader, time.Now())
	must(t, err)
	must(t, s.Close())
}
