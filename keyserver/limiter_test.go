package keyserver

import (
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/wire"
)

// TestRateLimit asks until a source has asked enough; time gives it back what it may ask.
func TestRateLimit(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Rate = 1 })
	for i := range burstSeconds + 3 {
		status, header, body := l.raw("POST", "/v1/sessions", wire.MediaType, strings.NewReader("{}"))
		p, err := wire.DecodeProblem(strings.NewReader(body), status)
		must(t, err)
		want := wire.Malformed
		if i >= burstSeconds {
			want = wire.TooManyRequests
		}
		if p.Class != want || want == wire.TooManyRequests && header.Get("Retry-After") == "" {
			t.Errorf("request %d: class %s, want %s; %v", i, p.Class, want, header)
		}
	}
	if status, _, _ := l.raw("GET", "/v1/health", "", nil); status != 200 {
		t.Errorf("health: status %d", status)
	}
	l.register("web")
	l.wait(2 * time.Second)
	l.good("web")
	refusedAs(t, newLaunch(platforms()[0], "web").begin(t.Context(), l.client), wire.TooManyRequests)
}

// TestImageRate asks in the name of one image until that was enough, by both ways in; another name, known or not, is another.
func TestImageRate(t *testing.T) {
	l := newSNPLab(t, func(c *Config) { c.ImageRate = 1 })
	l.register("other")
	for range burstSeconds - 2 {
		must(t, newLaunch(platforms()[0], "web").begin(t.Context(), l.client))
	}
	l.good("web")
	must(t, newGuest(t, "web").begin(t.Context(), l.client))
	refusedAs(t, newLaunch(platforms()[1], "web").begin(t.Context(), l.client), wire.TooManyRequests)
	refusedAs(t, newGuest(t, "web").begin(t.Context(), l.client), wire.TooManyRequests)
	l.good("other")
	for range burstSeconds {
		must(t, newLaunch(platforms()[0], "nobody").begin(t.Context(), l.client))
	}
	refusedAs(t, newLaunch(platforms()[0], "nobody").begin(t.Context(), l.client), wire.TooManyRequests)
	l.wait(time.Second)
	l.good("web")
}
