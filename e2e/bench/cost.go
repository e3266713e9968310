package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/sealboot/sealboot/e2e/load"
)

// measured is a run with the processor time that it took: the machine's other work slows a run down, but adds little to that.
type measured struct {
	load.Result
	server, load time.Duration // processor time of one exchange; the server's is 0 for raw operations
}

// cost is the processor time of one exchange.
func (m measured) cost() time.Duration { return m.server + m.load }

// closed is load.Closed with processor time. A server of 0 is none.
func closed(ctx context.Context, server, workers int, span time.Duration, one load.Exchange) (measured, error) {
	used := func() (theirs, ours time.Duration, err error) {
		if server != 0 {
			if theirs, err = processorTime(server); err != nil {
				return 0, 0, err
			}
		}
		ours, err = processorTime(os.Getpid())
		return theirs, ours, err
	}
	theirs, ours, err := used()
	if err != nil {
		return measured{}, err
	}
	r, err := load.Closed(ctx, workers, span, one)
	if err != nil {
		return measured{}, err
	}
	theirsLater, oursLater, err := used()
	if err != nil {
		return measured{}, err
	}
	n := time.Duration(r.Count)
	return measured{r, (theirsLater - theirs) / n, (oursLater - ours) / n}, nil
}

// raw runs operations without a server, on all processors.
func raw(ctx context.Context, one load.Exchange) (measured, error) {
	return closed(ctx, 0, runtime.NumCPU(), loadSpan/2, one)
}

// underLoad finds the most that a server does and how long its answers take at half of that, and prints both, beside the raw operations
// if there are any. A server of 0 has no one process to account for.
func underLoad(ctx context.Context, what string, server int, raw measured, one load.Exchange) error {
	if _, err := load.Closed(ctx, workers, loadSpan/8, one); err != nil { // connections, statements, caches
		return err
	}
	most, err := closed(ctx, server, workers, loadSpan, one)
	if err != nil {
		return err
	}
	half, err := load.Open(ctx, workers, most.Rate()/2, loadSpan, one)
	if err != nil {
		return err
	}
	fmt.Printf("%-58s %8.0f /s  at half load: p50 %.1f ms, p99 %.1f ms\n", what, most.Rate(), milliseconds(half.P50), milliseconds(half.P99))
	if server != 0 {
		fmt.Printf("%-58s %8.3f ms, %.3f ms the load's\n", "  processor time of one exchange: the server's", milliseconds(most.server), milliseconds(most.load))
	}
	if raw.Count > 0 {
		fmt.Printf("%-58s %8.2f of their %.0f /s; by processor time %.2f of their %.3f ms\n", "  beside the raw public-key operations",
			most.Rate()/raw.Rate(), raw.Rate(), raw.cost().Seconds()/most.cost().Seconds(), milliseconds(raw.cost()))
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// processorTime is what a process has used, in user and system mode, on all of its threads (proc(5), stat: fields 14 and 15 in ticks of
// 1/100 s, which is Linux's USER_HZ on x86-64).
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	_, behind, ok := bytes.Cut(text, []byte(") ")) // the program's name, which may hold blanks
	fields := bytes.Fields(behind)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has another form: %q", pid, text)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// residentMemory is what a process has in memory, in bytes (proc(5), statm).
func residentMemory(pid int) (int64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		return 0, err
	}
	return resident * int64(os.Getpagesize()), nil
}
