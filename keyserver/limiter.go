package keyserver

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limiter bounds the requests of each source: a host, or for IPv6 a network of 64 bits, which one host has for
// itself. It remembers a bounded number of sources: when a generation is full, the sources that the one before had and this one has
// not seen are forgotten.
type limiter struct {
	perSecond rate.Limit
	burst     int

	mu         sync.Mutex
	young, old map[netip.Prefix]*rate.Limiter
}

// maxSources is the size of a generation.
const maxSources = 4096

func newLimiter(perSecond int) *limiter {
	return &limiter{perSecond: rate.Limit(perSecond), burst: burstSeconds * perSecond, young: make(map[netip.Prefix]*rate.Limiter)}
}

// burstSeconds of the rate may come at once.
const burstSeconds = 5

// allow counts one request.
func (l *limiter) allow(address string, now time.Time) bool {
	source := sourceOf(address)
	l.mu.Lock()
	bucket := l.young[source]
	if bucket == nil {
		bucket = l.old[source]
		if bucket == nil {
			bucket = rate.NewLimiter(l.perSecond, l.burst)
		}
		if len(l.young) == maxSources {
			l.old, l.young = l.young, make(map[netip.Prefix]*rate.Limiter)
		}
		l.young[source] = bucket
	}
	l.mu.Unlock()
	return bucket.AllowN(now, 1)
}

// sourceOf gives the network that counts as one source; all addresses that do not read are one.
func sourceOf(address string) netip.Prefix {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	source, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return source
}
