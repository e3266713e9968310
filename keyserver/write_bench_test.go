package keyserver

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/sev"
)

// BenchmarkWrites is the store's part of an exchange: a session's insertion and its release, with their audit rows, by that many
// at once. Nothing is computed for the host. With a full table each session ends an older one.
// SEALBOOT_TEST_STORE=postgres runs it on PostgreSQL.
func BenchmarkWrites(b *testing.B) {
	for _, at := range []struct {
		clients, open int
	}{{1, 0}, {16, 0}, {128, 0}, {16, 100_000}} {
		b.Run(fmt.Sprintf("clients=%d/open=%d", at.clients, at.open), func(b *testing.B) {
			l := newLab(b)
			l.register("web")
			keys, _, err := sev.NewSession(platforms()[0].Chain.PDH, DefaultPolicy().SEV.Session(), rand.Reader)
			must(b, err)
			bound := DefaultMaxSessions
			if at.open > 0 {
				bound = at.open
				l.fillSessions(at.open)
			}
			tickets := make(chan struct{}, b.N)
			for range b.N {
				tickets <- struct{}{}
			}
			close(tickets)
			var commits atomic.Int64
			l.store.Observe(Observer{Batch: func() func(int, int) { return func(int, int) { commits.Add(1) } }})
			cpu := cpuTime(b)
			b.ResetTimer()
			done := make(chan error)
			var mu sync.Mutex
			var took []time.Duration
			for range at.clients {
				go func() {
					var err error
					for range tickets {
						if err == nil {
							began := time.Now()
							err = l.exchange(b, keys, bound)
							mu.Lock()
							took = append(took, time.Since(began))
							mu.Unlock()
						}
					}
					done <- err
				}()
			}
			for range at.clients {
				must(b, <-done)
			}
			writes := float64(2 * b.N)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/writes, "ns/write")
			b.ReportMetric(float64(cpuTime(b)-cpu)/writes, "cpu-ns/write")
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(writes/float64(commits.Load()), "writes/commit")
		})
	}
}

// cpuTime is this process's so far: not the database's, where that is another.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// exchange writes what OpenSession and Release write.
func (l *lab) exchange(t testing.TB, keys *sev.Session, bound int) error {
	id := make([]byte, 16)
	rand.Read(id)
	now := l.clock()
	kept := &session{id: hex.EncodeToString(id), kind: kindSEV, image: "web", version: 1, platform: "Milan/0123456789abcdef",
		created: now, expires: now.Add(DefaultSessionTTL), state: open}
	var err error
	if kept.sealed, err = l.key.seal(rand.Reader, keys.Encode(), kept.purpose()...); err != nil {
		return err
	}
	entry := Entry{Time: now, Image: "web", Version: 1, Session: kept.id, Request: "0123456789abcdef", Source: "192.0.2.1",
		Platform: kept.platform, Policy: "0xf", API: "1.55.21"}
	err = l.store.write(t.Context(), func(tx *transaction) error {
		if _, err := tx.makeRoom(bound, now); err != nil {
			return err
		}
		if err := tx.insertSession(kept); err != nil {
			return err
		}
		e := entry
		e.Event = EventSession
		return tx.audit(e)
	})
	if err != nil {
		return err
	}
	for {
		read, err := readSession(t.Context(), l.store.read, kept.id)
		if err != nil {
			return err
		}
		if _, err := l.key.open(read.sealed, read.purpose()...); err != nil {
			return err
		}
		f, err := l.store.find(t.Context(), "web")
		if err != nil {
			return err
		}
		_, secrets, err := f.open(l.key)
		if err != nil {
			return err
		}
		secrets.wipe()
		err = l.store.write(t.Context(), func(tx *transaction) error {
			if err := tx.endSession(kept, released); err != nil {
				return err
			}
			if err := tx.countRelease(f); err != nil {
				return err
			}
			e := entry
			e.Event = EventRelease
			e.Digest = hex.EncodeToString(goodDigest[:])
			return tx.audit(e)
		})
		if !errors.Is(err, errStale) {
			return err
		}
	}
}

// fillSessions puts open sessions into the table, which nobody will ever finish.
func (l *lab) fillSessions(n int) {
	l.t.Helper()
	now := l.clock()
	must(l.t, l.store.write(l.t.Context(), func(tx *transaction) error {
		_, err := tx.exec(`INSERT INTO sessions (id, image, image_version, platform, created, expires, state, sealed)
			SELECT 'filler' || i, 'web', 1, 'Milan/0123456789abcdef', ?, ?, 'open', ? FROM (
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT i FROM n) AS numbers`,
			now.Add(-time.Second).Unix(), now.Add(DefaultSessionTTL).Unix(), make([]byte, 80), n)
		return err
	}))
}
