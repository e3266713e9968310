package keyserver

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// TestHundredThousandSessions opens as many sessions as the server may have, and then more: each newer one ends the oldest,
// whoever has a newer one gets its release, memory does not grow with the table, and time empties it.
func TestHundredThousandSessions(t *testing.T) {
	const bound, more = 100_000, 30
	l := newLab(t, func(c *Config) { c.MaxSessions = bound })
	l.register("web")
	l.good("web")
	first := newLaunch(platforms()[0], "web")
	must(t, first.begin(t.Context(), l.client))
	first.measure(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	l.fillSessions(bound - 1)
	count := func(where string) (n int) {
		t.Helper()
		must(t, l.store.read.row(t.Context(), `SELECT count(*) FROM sessions WHERE `+where).Scan(&n))
		return n
	}
	if n := count(`state = 'open'`); n != bound {
		t.Fatalf("%d sessions are open", n)
	}
	var launches []*launch
	for range more {
		h := newLaunch(platforms()[0], "web")
		must(t, h.begin(t.Context(), l.client))
		h.measure(t)
		launches = append(launches, h)
	}
	// The first gave way, then the others in the order of their making.
	if n := count(`state = 'open'`); n != bound {
		t.Errorf("%d sessions are open, the bound is %d", n, bound)
	}
	_, err := first.finish(t.Context(), l.client)
	if refused := (*client.Refused)(nil); !errors.As(err, &refused) || refused.Class != wire.Expired && refused.Class != wire.UnknownSession {
		t.Errorf("the first: %v", err) // unknown once a sweep has come by: there are 100,000 newer ones
	}
	if n := count(`state = 'open' AND id IN ('filler1', 'filler29')`); n != 0 {
		t.Errorf("%d of the oldest are open", n)
	}
	if n := count(`state = 'open' AND id IN ('filler30', 'filler99999')`); n != 2 {
		t.Errorf("%d of two newer ones are open", n)
	}
	for _, h := range launches {
		packet, err := h.finish(t.Context(), l.client)
		must(t, err)
		h.unlocked(t, packet)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("%d bytes more in use with %d sessions", grown, bound)
	}

	l.wait(DefaultSessionTTL + time.Second)
	must(t, l.server.Expire(t.Context()))
	var known int
	must(t, l.store.read.row(t.Context(), `SELECT n FROM open_sessions`).Scan(&known))
	if n := count(`state = 'open' OR sealed IS NOT NULL`); n != 0 || known != 0 {
		t.Errorf("%d sessions are open after their time, the store counts %d", n, known)
	}
	if n := count(`true`); n > maxEnded {
		t.Errorf("%d ended sessions are remembered", n)
	}
	l.wait(keepEnded)
	must(t, l.server.Expire(t.Context()))
	if n := count(`true`); n != 0 {
		t.Errorf("%d sessions are remembered after an hour", n)
	}
	l.good("web")
	l.rows()
}
