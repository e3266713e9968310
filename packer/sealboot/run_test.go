package sealboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCancel cancels a build: sealboot gets to tidy up, what it started ends too, and so does one that does not listen.
func TestCancel(t *testing.T) {
	for name, script := range map[string]string{
		"listens": "#!/bin/sh\ntrap 'echo tidied >\"$0.tidied\"; exit 1' INT\nsleep 60 &\necho $! >\"$0.child\"\necho ready >&2\nwait\n",
		"deaf":    "#!/bin/sh\ntrap '' INT\nsleep 60 &\necho $! >\"$0.child\"\necho ready >&2\nwait\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, script)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p := program{path: b.program, grace: 200 * time.Millisecond, line: func(line string) {
				if line == "ready" {
					cancel()
				}
			}}
			if _, err := p.run(ctx, nil, nil); !errors.Is(err, context.Canceled) {
				t.Fatalf("%v", err)
			}
			if _, err := os.Stat(b.program + ".tidied"); (err == nil) != (name == "listens") {
				t.Errorf("tidied up: %v", err)
			}
			child, err := strconv.Atoi(strings.TrimSpace(b.read(t, b.program+".child")))
			if err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Second); syscall.Kill(child, 0) == nil && !zombie(child); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("process %d is still there", child)
				}
			}
		})
	}
	// All the way, before sealboot runs and in the middle of its work: nothing is left.
	const half = "#!/bin/sh\nfor arg; do case $arg in --output=*) echo half >${arg#--output=}/.disk.qcow2.tmp ;; esac; done\necho ready >&2\nexec sleep 60\n"
	for _, when := range []string{"before", "ready"} {
		b := newBench(t, half)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b.heard = func(line string) {
			if line == when {
				cancel()
			}
		}
		b.heard("before")
		if _, _, _, err := b.run(ctx, t); !errors.Is(err, context.Canceled) || len(b.left(t)) > 0 {
			t.Errorf("%s: %v, left behind: %q", when, err, b.left(t))
		}
	}
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}
