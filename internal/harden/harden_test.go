package harden

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// status gives a number of KiB from /proc/self/status.
func status(t *testing.T, field string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	must(t, err)
	found := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("no %s in %s", field, text)
	}
	n, err := strconv.Atoi(string(found[1]))
	must(t, err)
	return n
}

func TestNoDumps(t *testing.T) {
	must(t, NoDumps())
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); n != 0 || err != nil {
		t.Errorf("dumpable: %d, %v", n, err)
	}
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_CORE, &limit))
	if limit.Cur != 0 || limit.Max != 0 {
		t.Errorf("core dumps of %+v", limit)
	}
	// Its own descriptors stay within reach: key files may be pipes.
	f, err := os.Open("/dev/fd/0")
	must(t, err)
	f.Close()
}

func TestUnlimited(t *testing.T) {
	for _, c := range []struct {
		limit        uint64
		capabilities uint32
		want         bool
	}{{unix.RLIM_INFINITY, 0, true}, {8 << 20, 0, false}, {0, 1 << 14, true}, {8 << 20, ^uint32(1 << 14), false}} {
		if got := unlimited(c.limit, c.capabilities); got != c.want {
			t.Errorf("limit %d, capabilities %x: %v", c.limit, c.capabilities, got)
		}
	}
}

func TestLockMemory(t *testing.T) {
	err := LockMemory()
	defer unix.Munlockall()
	if errors.Is(err, ErrLimit) {
		if status(t, "VmLck") != 0 {
			t.Error("memory is locked under a limit")
		}
		t.Skip(err)
	}
	must(t, err)
	if status(t, "VmLck") == 0 {
		t.Fatal("nothing is locked")
	}
	// What is used later is locked, what is only reserved is not in memory, and what is free goes back to the system.
	const size = 64 << 10 // KiB
	small := status(t, "VmRSS")
	b := bytes.Repeat([]byte{1}, size<<10)
	if grown := status(t, "VmRSS") - small; grown < size || grown > 2*size {
		t.Errorf("grown by %d KiB", grown)
	}
	clear(b)
	b = nil
	_ = b
	debug.FreeOSMemory()
	if left := status(t, "VmRSS") - small; left > size/2 {
		t.Errorf("%d KiB are not given back", left)
	}
	t.Logf("%d KiB in memory, %d KiB may be locked", status(t, "VmRSS"), status(t, "VmLck"))
}

func TestProcess(t *testing.T) {
	defer unix.Munlockall()
	var log strings.Builder
	must(t, Process(slog.New(slog.NewTextHandler(&log, nil))))
	if got := strings.Contains(log.String(), "running as root"); got != (os.Geteuid() == 0) {
		t.Errorf("log: %s", &log)
	}
}
