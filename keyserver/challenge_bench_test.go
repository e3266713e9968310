package keyserver

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp/seal"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// BenchmarkChallenge runs whole exchanges at run time over loopback HTTP, the guest's side included, 16 at a time, with the report's
// certificates verified each time. "client only" is the guest's share: key, report's signature, opening.
func BenchmarkChallenge(b *testing.B) {
	b.Run("exchange", func(b *testing.B) {
		l := newSNPLab(b, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
		var mu sync.Mutex
		var took []time.Duration
		b.SetParallelism(8)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				began := time.Now()
				g := newGuest(b, "web")
				s, err := g.run(b, l.client)
				if err != nil {
					b.Error(err)
					return
				}
				g.unlocked(b, s)
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	})
	b.Run("client only", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				g := newGuest(b, "web")
				g.challenge = wire.Challenge{ID: strings.Repeat("0", 80), Nonce: make([]byte, seal.NonceSize)}
				g.report(b)
				encapsulated, box, err := seal.Seal(g.key.Public(), g.challenge.ID, "web", make([]byte, 200)) // as much as the server's
				if err != nil {
					b.Error(err)
					return
				}
				if _, err := g.key.Open(encapsulated, box, g.challenge.ID, "web"); err != nil {
					b.Error(err)
					return
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
	})
}
