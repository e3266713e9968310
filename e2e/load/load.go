// Package load puts a server under load and tells how fast it answered. The same code measures every server that
// is compared, so that what differs is the server.
package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Result is what a run saw.
type Result struct {
	Count   int
	Elapsed time.Duration
	P50     time.Duration // of one exchange; of an Open run, counted from when it was due
	P99     time.Duration
	Max     time.Duration
}

// Rate is in exchanges a second.
func (r Result) Rate() float64 { return float64(r.Count) / r.Elapsed.Seconds() }

// Exchange is one whole exchange by a worker, numbered from 0; each has its own connection and state.
type Exchange func(ctx context.Context, worker int) error

// errNothing says that a run measured nothing.
var errNothing = errors.New("no exchange was made")

// Closed has each worker begin its next exchange when the one before is over, for the given time: the most that
// the server does. The first failure ends the run.
func Closed(ctx context.Context, workers int, span time.Duration, one Exchange) (Result, error) {
	end := time.Now().Add(span)
	return run(ctx, workers, func(ctx context.Context, worker int, note func(time.Duration)) error {
		for begun := time.Now(); begun.Before(end); {
			if err := one(ctx, worker); err != nil {
				return err
			}
			now := time.Now()
			note(now.Sub(begun))
			begun = now
		}
		return nil
	})
}

// Open has exchanges begin at a steady rate a second, whether or not those before are over, as long as a worker is
// free. An exchange that began late counts from the time at which it was due.
func Open(ctx context.Context, workers int, rate float64, span time.Duration, one Exchange) (Result, error) {
	begun := time.Now()
	due := make(chan time.Time, workers)
	return run(ctx, workers, func(ctx context.Context, worker int, note func(time.Duration)) error {
		if worker == 0 {
			go func() {
				defer close(due)
				for i := range int(rate * span.Seconds()) {
					at := begun.Add(time.Duration(float64(i) / rate * float64(time.Second)))
					time.Sleep(time.Until(at))
					select {
					case due <- at:
					case <-ctx.Done():
						return
					}
				}
			}()
		}
		for at := range due {
			if err := one(ctx, worker); err != nil {
				return err
			}
			note(time.Since(at))
		}
		return nil
	})
}

func run(ctx context.Context, workers int, work func(context.Context, int, func(time.Duration)) error) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	took := make([][]time.Duration, workers)
	var group sync.WaitGroup
	begun := time.Now()
	for worker := range workers {
		group.Go(func() {
			err := work(ctx, worker, func(d time.Duration) { took[worker] = append(took[worker], d) })
			if err != nil {
				cancel(fmt.Errorf("worker %d: %w", worker, err))
			}
		})
	}
	group.Wait()
	elapsed := time.Since(begun)
	if err := context.Cause(ctx); err != nil {
		return Result{}, err
	}
	all := slices.Concat(took...)
	if len(all) == 0 {
		return Result{}, errNothing
	}
	slices.Sort(all)
	return Result{Count: len(all), Elapsed: elapsed, P50: all[len(all)/2], P99: all[len(all)*99/100], Max: all[len(all)-1]}, nil
}
