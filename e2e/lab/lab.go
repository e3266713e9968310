package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Lab is a place to build and boot in.
type Lab struct {
	Bin   string    // folder of sealboot, the programs that it runs, sealboot-agent and qemu-sev
	Deps  string    // what deps/deps.sh fetched
	Dir   string    // everything that is made goes here
	Log   io.Writer // the commands that are run
	Store Store     // of the key server; default: a folder of the lab
}

// Output is what a command left behind.
type Output struct {
	Stdout, Stderr string
	Code           int // exit code
	Spent          time.Duration
}

// Sealboot runs a command to its end. A non-zero exit code is not an error here: see Output.Code.
func (l *Lab) Sealboot(ctx context.Context, args ...string) (Output, error) {
	return l.run(ctx, nil, filepath.Join(l.Bin, "sealboot"), args...)
}

// Must runs a command that has to succeed and gives its standard output.
func (l *Lab) Must(ctx context.Context, args ...string) (string, error) {
	out, err := l.Sealboot(ctx, args...)
	if err == nil && out.Code != 0 {
		err = fmt.Errorf("sealboot %s: exit code %d\n%s", strings.Join(args, " "), out.Code, out.Stderr)
	}
	return out.Stdout, err
}

func (l *Lab) run(ctx context.Context, env []string, program string, args ...string) (Output, error) {
	fmt.Fprintf(l.Log, "$ %s %s\n", filepath.Base(program), strings.Join(args, " "))
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	begun := time.Now()
	err := cmd.Run()
	o := Output{Stdout: out.String(), Stderr: errs.String(), Spent: time.Since(begun)}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		o.Code = exit.ExitCode()
		return o, nil
	}
	if err != nil {
		return o, fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), args[0], err, tail(o.Stderr, 2000))
	}
	return o, nil
}

// Path is a file's place in the lab.
func (l *Lab) Path(name string) string { return filepath.Join(l.Dir, name) }

// buffer is a bytes.Buffer that may be read while it is being written.
type buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
