package load

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

func TestRuns(t *testing.T) {
	var n atomic.Int64
	one := func(context.Context, int) error { n.Add(1); time.Sleep(time.Millisecond); return nil }
	for name, run := range map[string]func() (Result, error){
		"closed": func() (Result, error) { return Closed(t.Context(), 4, 50*time.Millisecond, one) },
		"open":   func() (Result, error) { return Open(t.Context(), 4, 500, 50*time.Millisecond, one) },
	} {
		n.Store(0)
		r, err := run()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r.Count != int(n.Load()) || r.Count == 0 || r.P50 < time.Millisecond || r.P99 < r.P50 || r.Max < r.P99 || r.Rate() <= 0 {
			t.Errorf("%s: %+v after %d exchanges", name, r, n.Load())
		}
	}
}

func TestFailureEndsRun(t *testing.T) {
	broken := errors.New("broken")
	one := func(context.Context, int) error { return broken }
	if _, err := Closed(t.Context(), 4, time.Hour, one); !errors.Is(err, broken) {
		t.Errorf("closed: %v", err)
	}
	if _, err := Open(t.Context(), 4, 1000, time.Minute, one); !errors.Is(err, broken) {
		t.Errorf("open: %v", err)
	}
	if _, err := Closed(t.Context(), 4, 0, one); !errors.Is(err, errNothing) {
		t.Errorf("no time: %v", err)
	}
}
