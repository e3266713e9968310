package keyserver

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// bearer sends a token with each request.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if r = r.Clone(r.Context()); b != "" {
		r.Header.Set("Authorization", "Bearer "+string(b))
	}
	return http.DefaultTransport.RoundTrip(r)
}

// TestKnownHosts lets those hosts launch that have the role release, and nobody else; a running guest needs none.
func TestKnownHosts(t *testing.T) {
	l := newSNPLab(t)
	l.stop()
	l.config.Hosts = access.NewAuthenticator(lateStore{l: l}, l.clock)
	l.start()
	as := func(name string, roles access.Roles) *client.Client {
		token := "sbt1_" + strings.Repeat("A", 48)
		if roles != 0 {
			p, text, err := access.NewTokenPrincipal(name, roles, time.Hour, rand.Reader, l.clock())
			must(t, err)
			must(t, l.store.Principals(l.clock).Add(t.Context(), p))
			token = string(text)
		} else if name == "" {
			token = ""
		}
		c, err := client.New(l.url, &http.Client{Transport: bearer(token)})
		must(t, err)
		return c
	}
	host := as("host1", access.Release)
	h := newLaunch(platforms()[0], "web")
	packet, err := h.run(t, host)
	must(t, err)
	h.unlocked(t, packet)
	for _, row := range l.rows()[len(l.rows())-2:] {
		if row.Principal != "host1" || row.Class != "" {
			t.Errorf("audit says %+v", row)
		}
	}
	audit := len(l.rows())
	refusedAs(t, newLaunch(platforms()[0], "web").begin(t.Context(), as("", 0)), wire.Unauthenticated)
	if n := len(l.rows()); n != audit {
		t.Errorf("who brings nothing fills the audit: %d rows, %d before", n, audit)
	}
	refusedAs(t, newLaunch(platforms()[0], "web").begin(t.Context(), as("anna", access.Admin|access.Register|access.Audit)), wire.Forbidden)
	rows := l.rows()
	if row := rows[len(rows)-1]; row.Event != EventSession || row.Class != wire.Forbidden || row.Principal != "anna" || !strings.Contains(row.Cause, "roles register,audit,admin do not allow it") {
		t.Errorf("audit says %+v", row)
	}

	h = newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), host))
	h.measure(t)
	_, err = h.finish(t.Context(), as("", 0))
	refusedAs(t, err, wire.Unauthenticated)
	wrong := as("unknown", 0)
	_, err = h.finish(t.Context(), wrong)
	refusedAs(t, err, wire.Unauthenticated)
	rows = l.rows()
	if row := rows[len(rows)-1]; row.Event != EventRelease || row.Class != wire.Unauthenticated || row.Session != h.session.ID {
		t.Errorf("audit says %+v", row)
	}
	packet, err = h.finish(t.Context(), host) // what others tried has not used it up
	must(t, err)
	h.unlocked(t, packet)

	g := newGuest(t, "web")
	sealed, err := g.run(t, l.client)
	must(t, err)
	g.unlocked(t, sealed)

	must(t, l.store.Principals(l.clock).Remove(t.Context(), "host1"))
	refusedAs(t, newLaunch(platforms()[0], "web").begin(t.Context(), host), wire.Unauthenticated)
	for range 20 {
		err = newLaunch(platforms()[0], "web").begin(t.Context(), wrong)
	}
	refusedAs(t, err, wire.BackOff)
	refusedAs(t, newLaunch(platforms()[0], "web").begin(t.Context(), as("host2", access.Release)), wire.BackOff) // from the same source
	l.wait(time.Hour)
	must(t, newLaunch(platforms()[0], "web").begin(t.Context(), as("host3", access.Release)))
}

// lateStore looks principals up in the lab's store, whichever that is.
type lateStore struct {
	access.Principals
	l *lab
}

func (s lateStore) Lookup(ctx context.Context, k access.Kind, d access.Digest) (access.Principal, error) {
	return s.l.store.Principals(s.l.clock).Lookup(ctx, k, d)
}
