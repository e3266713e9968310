package keyserver

import (
	"fmt"
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

// TestSources counts addresses together that one host has, and keeps a bounded number of them.
func TestSources(t *testing.T) {
	l, now := newLimiter(1), time.Unix(0, 0)
	use := func(address string) (n int) {
		for l.allow(address, now) {
			n++
		}
		return n
	}
	for _, c := range []struct {
		address string
		want    int
	}{
		{"192.0.2.1", burstSeconds}, {"192.0.2.1", 0}, {"::ffff:192.0.2.1", 0}, {"192.0.2.2", burstSeconds},
		{"2001:db8::1", burstSeconds}, {"2001:db8::2", 0}, {"2001:db8:0:1::1", burstSeconds}, {"fe80::1%eth0", burstSeconds}, {"fe80::1%eth1", 0},
		{"unknown", burstSeconds}, {"other", 0},
	} {
		if n := use(c.address); n != c.want {
			t.Errorf("%s may ask %d times, want %d", c.address, n, c.want)
		}
	}
	for i := range 3 * maxSources {
		l.allow(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), now)
		l.allow("192.0.2.1", now)
	}
	if n := len(l.young) + len(l.old); n > 2*maxSources {
		t.Errorf("%d sources are remembered", n)
	}
	if n := use("192.0.2.1"); n != 0 {
		t.Errorf("a source that kept asking was forgotten: it may ask %d times", n)
	}
}
