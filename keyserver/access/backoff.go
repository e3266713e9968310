package access

import (
	"sync"
	"time"
)

// How failures slow down.
const (
	freeFailures = 5                // have no consequence
	firstWait    = time.Second      // after the next one; each further one doubles it
	longestWait  = 5 * time.Minute  //
	forgetAfter  = 15 * time.Minute // without a failure
)

// BackOff makes each key wait after failures, twice as long after each. A success takes nothing back: who has one credential
// could guess at others. It remembers the keys of between 4096 and 8192 of the last ones, and is safe for concurrent use.
type BackOff[K comparable] struct {
	mu     sync.Mutex
	failed recent[K, failures]
}

type failures struct {
	n    int
	last time.Time
}

// Wait says for how long nothing is taken from k.
func (b *BackOff[K]) Wait(k K, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.failed.get(k)
	if !ok || f.n <= freeFailures {
		return 0
	}
	wait := longestWait
	if doublings := f.n - freeFailures - 1; doublings < 16 {
		wait = min(firstWait<<doublings, longestWait)
	}
	// A clock that was set back makes nobody wait longer.
	return min(max(f.last.Add(wait).Sub(now), 0), wait)
}

// Fail counts a failure.
func (b *BackOff[K]) Fail(k K, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.failed.get(k)
	if ok && now.Sub(f.last) >= forgetAfter {
		f.n = 0
	}
	f.n, f.last = f.n+1, now
	b.failed.set(k, f)
}
