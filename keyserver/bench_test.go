package keyserver

import (
	"crypto/rand"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

// BenchmarkExchange runs whole exchanges over loopback HTTP, the platform's side included, 16 at a time: with the
// platform's chain remembered, and verified each time. "client only" is the platform's share of it.
func BenchmarkExchange(b *testing.B) {
	for _, bench := range []struct {
		name   string
		forget bool
	}{{"known chain", false}, {"chain verified", true}} {
		b.Run(bench.name, func(b *testing.B) {
			l := newLab(b, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
			l.register("web")
			l.good("web")
			var mu sync.Mutex
			var took []time.Duration
			b.SetParallelism(8)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					began := time.Now()
					if bench.forget {
						l.server.chains.forget()
					}
					h := newLaunch(platforms()[0], "web")
					if err := h.begin(b.Context(), l.client); err != nil {
						b.Error(err)
						return
					}
					h.measure(b)
					if _, err := h.finish(b.Context(), l.client); err != nil {
						b.Error(err)
						return
					}
					mu.Lock()
					took = append(took, time.Since(began))
					mu.Unlock()
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
	b.Run("client only", func(b *testing.B) {
		p := platforms()[0]
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, start, err := sev.NewSession(p.Chain.PDH, DefaultPolicy().SEV.Session(), rand.Reader) // as much as the server's
				if err != nil {
					b.Error(err)
					return
				}
				h := newLaunch(p, "web")
				h.session = wire.Session{DHCert: start.GODH[:], Blob: start.Session[:]}
				h.policy = DefaultPolicy().SEV.Session()
				h.measure(b)
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "exchanges/s")
	})
}

// forget drops what was verified.
func (c *chains) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.known)
	c.order = nil
}
