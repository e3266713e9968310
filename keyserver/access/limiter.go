package access

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limiter bounds what is asked in the name of each key: a source, or an image's name as it was asked for, known or
// not. It remembers the keys of between 4096 and 8192 of the last ones, and is safe for concurrent use.
type Limiter[K comparable] struct {
	perSecond rate.Limit
	burst     int

	mu      sync.Mutex
	buckets recent[K, *rate.Limiter]
}

// NewLimiter makes a Limiter of so many a second for each key, of which burst may come at once.
func NewLimiter[K comparable](perSecond float64, burst int) *Limiter[K] {
	return &Limiter[K]{perSecond: rate.Limit(perSecond), burst: burst}
}

// Allow counts one.
func (l *Limiter[K]) Allow(k K, now time.Time) bool {
	l.mu.Lock()
	bucket, ok := l.buckets.get(k)
	if !ok {
		bucket = rate.NewLimiter(l.perSecond, l.burst)
		l.buckets.set(k, bucket)
	}
	l.mu.Unlock()
	return bucket.AllowN(now, 1)
}

// SourceOf gives the network that counts as one source: an IPv4 address, or for IPv6 a network of 64 bits, which one
// host has for itself. All addresses that do not read are one.
func SourceOf(address string) netip.Prefix {
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
