package keyserver

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// TestOneReleaseForMany lets many clients bring the same session's good measurement at once, to two servers on one
// store: exactly one gets the packet, all others are told that the session is used.
func TestOneReleaseForMany(t *testing.T) {
	const rounds, clients = 5, 40
	l := newLab(t)
	l.register("web")
	other := newLab(t)
	other.stop()
	other.dir, other.key = l.dir, l.key
	other.start()
	t.Cleanup(func() { other.stop() })
	for round := range rounds {
		h := newLaunch(platforms()[0], "web")
		must(t, h.begin(t.Context(), l.client))
		h.measure(t)
		var granted, used atomic.Int64
		var packet wire.Packet
		begin := make(chan struct{})
		var all sync.WaitGroup
		for i := range clients {
			c := l.client
			if i%2 == 1 {
				c = other.client
			}
			all.Go(func() {
				<-begin
				p, err := h.finish(t.Context(), c)
				refused := (*client.Refused)(nil)
				switch {
				case err == nil:
					granted.Add(1)
					packet = p
				case errors.As(err, &refused) && refused.Class == wire.Used:
					used.Add(1)
				default:
					t.Errorf("client %d: %v", i, err)
				}
			})
		}
		close(begin)
		all.Wait()
		if granted.Load() != 1 || used.Load() != clients-1 {
			t.Fatalf("round %d: %d released, %d told that it is used; %d asked", round, granted.Load(), used.Load(), clients)
		}
		h.unlocked(t, packet)
	}
	releases := 0
	for _, r := range l.rows() {
		if r.Event == EventRelease && r.Class == "" {
			releases++
		}
	}
	if releases != rounds {
		t.Errorf("audit knows of %d releases, not %d", releases, rounds)
	}
}

// TestManyAtOnce runs whole exchanges side by side: each gets its own.
func TestManyAtOnce(t *testing.T) {
	l := newLab(t)
	l.register("web")
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			h := newLaunch(platforms()[i%2], "web")
			if err := h.begin(t.Context(), l.client); err != nil {
				t.Error(err)
				return
			}
			guest, err := h.platform.LaunchStart(h.session.DHCert, h.session.Blob, h.policy)
			if err != nil {
				t.Error(err)
				return
			}
			m, err := guest.Measure(h.digest, l.config.Random)
			if err != nil {
				t.Error(err)
				return
			}
			p, err := l.client.Measurement(t.Context(), h.session.ID, wire.MeasurementRequest{Measurement: m.Encode(),
				APIMajor: h.api.Major, APIMinor: h.api.Minor, Build: h.api.Build})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := guest.OpenSecret(p.Header, p.Secret); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(l.rows()); n != 1+2*32 {
		t.Errorf("%d audit rows for 32 exchanges", n)
	}
}

// TestOldestGiveWay fills the table of open sessions: the newest stay, and the bound holds.
func TestOldestGiveWay(t *testing.T) {
	const bound = 3
	l := newLab(t, func(c *Config) { c.MaxSessions = bound })
	l.register("web")
	var launches []*launch
	for range bound + 2 {
		h := newLaunch(platforms()[0], "web")
		must(t, h.begin(t.Context(), l.client))
		h.measure(t)
		launches = append(launches, h)
	}
	var kept int
	must(t, l.store.db.QueryRow(`SELECT count(*) FROM sessions WHERE sealed IS NOT NULL`).Scan(&kept))
	if kept != bound {
		t.Errorf("%d sessions keep their keys, the bound is %d", kept, bound)
	}
	for i, h := range launches {
		packet, err := h.finish(t.Context(), l.client)
		if i < len(launches)-bound {
			refusedAs(t, err, wire.Expired)
			continue
		}
		if err != nil {
			t.Fatal(fmt.Errorf("session %d: %w", i, err))
		}
		h.unlocked(t, packet)
	}
}

// TestExpireForgetsKeys lets time pass: the sweep drops the keys, then the sessions.
func TestExpireForgetsKeys(t *testing.T) {
	l := newLab(t)
	l.register("web")
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	count := func(where string) (n int) {
		t.Helper()
		must(t, l.store.db.QueryRow(`SELECT count(*) FROM sessions WHERE `+where).Scan(&n))
		return n
	}
	must(t, l.server.Expire(t.Context()))
	if count(`state = 'open' AND sealed IS NOT NULL`) != 1 {
		t.Fatal("an open session was ended")
	}
	l.wait(DefaultSessionTTL)
	must(t, l.server.Expire(t.Context()))
	if count(`state = 'expired' AND sealed IS NULL`) != 1 {
		t.Error("an expired session keeps its keys")
	}
	_, err := h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Expired)
	l.wait(keepEnded)
	must(t, l.server.Expire(t.Context()))
	if count(`true`) != 0 {
		t.Error("an old session is kept")
	}
	_, err = h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.UnknownSession)
}

// TestNumberOfReleases lets two servers on one store race for the last of an image's releases: there are exactly as many as
// the policy allows, and the store counts them.
func TestNumberOfReleases(t *testing.T) {
	const allowed, clients = 7, 30
	l := newLab(t)
	l.register("web", func(r *Registration) { r.Policy.Releases = Only(int64(allowed)) })
	other := newLab(t)
	other.stop()
	other.dir, other.key = l.dir, l.key
	other.start()
	t.Cleanup(func() { other.stop() })
	var launches []*launch
	for range clients {
		h := newLaunch(platforms()[0], "web")
		must(t, h.begin(t.Context(), l.client))
		h.measure(t)
		launches = append(launches, h)
	}
	var granted, refused atomic.Int64
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i, h := range launches {
		c := l.client
		if i%2 == 1 {
			c = other.client
		}
		all.Go(func() {
			<-begin
			_, err := h.finish(t.Context(), c)
			no := (*client.Refused)(nil)
			switch {
			case err == nil:
				granted.Add(1)
			case errors.As(err, &no) && no.Class == wire.Refused:
				refused.Add(1)
			default:
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	close(begin)
	all.Wait()
	if granted.Load() != allowed || refused.Load() != clients-allowed {
		t.Errorf("%d released, %d refused; %d are allowed", granted.Load(), refused.Load(), allowed)
	}
	images, err := l.store.Images(t.Context())
	must(t, err)
	if images[0].Released != allowed {
		t.Errorf("the store counts %d releases", images[0].Released)
	}
	l.register("web", func(r *Registration) { r.Replace = true; r.Policy.Releases = Only(int64(1)) }) // counts anew
	l.good("web")
	_, err = newLaunch(platforms()[0], "web").run(t, l.client)
	refusedAs(t, err, wire.Refused)
}
