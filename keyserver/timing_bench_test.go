package keyserver

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/sealboot/sealboot/sev"
)

// BenchmarkOracle asks what a host could learn by a clock: how long a session and the refusal of its measurement take for a wrong
// digest, for an image that nobody registered and for one that was revoked. The kinds take turns, so that all meet the same machine. "decision" is what
// the server thinks, "answer" with the write to the disk, which dwarfs it. Two kinds can be told apart if their quantiles lie apart by more
// than those of one kind in two runs do: "wrong digest again" is there for that.
func BenchmarkOracle(b *testing.B) {
	l := newLab(b, func(c *Config) { c.Log = slog.New(slog.DiscardHandler) })
	l.register("web")
	l.register("gone")
	must(b, l.store.Revoke(b.Context(), Revocation{RevokedImage, "gone", "test", l.clock()}))
	l.good("web")
	kinds := []struct{ name, image string }{{"wrong digest", "web"}, {"unknown image", "nobody"}, {"revoked image", "gone"}, {"wrong digest again", "web"}}
	const steps = 3
	stepNames := [steps]string{"session", "decision", "answer"}
	took := make([][steps][]time.Duration, len(kinds))
	for round := 0; b.Loop(); round++ {
		for turn := range kinds {
			k := (turn + round) % len(kinds)
			h := newLaunch(platforms()[0], kinds[k].image)
			timed := func(step int, do func() error) {
				began := time.Now()
				err := do()
				took[k][step] = append(took[k][step], time.Since(began))
				if step == 2 == (err == nil) {
					b.Fatal(err)
				}
			}
			timed(0, func() (err error) {
				h.session, err = l.server.OpenSession(b.Context(), Source{Address: "127.0.0.1"}, h.request)
				return err
			})
			h.policy, h.digest = sev.Policy(h.session.Policy), sev.Digest{byte(round), byte(round >> 8)}
			h.measure(b)
			m, err := sev.ParseMeasurement(h.measured.Measurement)
			must(b, err)
			timed(1, func() error {
				_, err := l.server.decide(b.Context(), Source{Address: "127.0.0.1"}, h.session.ID, m, h.api)
				return err
			})
			timed(2, func() error {
				_, err := l.server.Release(b.Context(), Source{Address: "127.0.0.1"}, h.session.ID, h.measured)
				return err
			})
		}
	}
	for k, kind := range kinds {
		for step, list := range took[k] {
			slices.Sort(list)
			at := func(percent int) float64 { return float64(list[len(list)*percent/100].Nanoseconds()) / 1000 }
			b.Logf("%-18s %-8s p10 %7.1f  p25 %7.1f  p50 %7.1f  p75 %7.1f  p90 %7.1f us", kind.name, stepNames[step], at(10), at(25), at(50), at(75), at(90))
		}
	}
}
