package sealboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Exit codes of sealboot's commands, listed in sealboot's README.md.
const (
	exitUsage = 2
	exitNo    = 3
)

// RunError is a sealboot that failed. It passes on what sealboot said.
type RunError struct {
	Code int    // its exit code, or -1 if a signal ended it
	Said string // the end of its standard error
	Err  error
}

func (e *RunError) Error() string {
	why := fmt.Sprintf("sealboot build failed (%v)", e.Err)
	switch e.Code {
	case exitUsage:
		why = "sealboot build was called wrongly (exit code 2): correct the post-processor's fields"
	case exitNo:
		why = "sealboot build refuses (exit code 3)"
	}
	if e.Said == "" {
		return why
	}
	return why + ": " + e.Said
}

func (e *RunError) Unwrap() error { return e.Err }

const (
	mostPrinted = 1 << 20 // bytes that sealboot may print; a build prints some kilobytes
	saidKept    = 2048    // bytes of its last words
)

// program is a sealboot to run.
type program struct {
	path  string
	grace time.Duration     // from asking it to stop to killing it
	line  func(line string) // gets what it says on standard error
}

// run runs it to its end and gives what it printed. When the context ends, its process group is asked to stop, so that it
// removes what it was making, and is killed when that takes longer than the grace. It does not outlive this process either.
func (p program) run(ctx context.Context, args []string, stdin io.Reader) ([]byte, error) {
	path, err := exec.LookPath(p.path)
	if err != nil {
		return nil, fmt.Errorf("find sealboot: %w: install it, or set the field sealboot to its path", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	printed, said := &bounded{most: mostPrinted}, &lines{line: p.line}
	cmd := exec.Command(path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, printed, said
	cmd.WaitDelay = p.grace
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // Pdeathsig is the death of the thread that started the program
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start sealboot: %w", err)
	}
	group := -cmd.Process.Pid
	select {
	case err = <-ended:
	case <-ctx.Done():
		syscall.Kill(group, syscall.SIGINT)
		select {
		case err = <-ended:
		case <-time.After(p.grace):
			syscall.Kill(group, syscall.SIGKILL)
			err = <-ended
		}
		// What it had started may still be there: only then is the group.
		syscall.Kill(group, syscall.SIGKILL)
		said.flush()
		return nil, fmt.Errorf("sealboot build was stopped: %w", ctx.Err())
	}
	if errors.Is(err, exec.ErrWaitDelay) { // it ended well, but something that it started keeps its streams open
		syscall.Kill(group, syscall.SIGKILL)
	}
	said.flush()
	if printed.over {
		return nil, fmt.Errorf("sealboot printed more than %d bytes: is it another program?", mostPrinted)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, &RunError{Code: exit.ExitCode(), Said: said.last(), Err: err}
	} else if err != nil {
		return nil, &RunError{Code: -1, Said: said.last(), Err: err}
	}
	return printed.kept, nil
}

// bounded keeps what is written to it, up to a limit.
type bounded struct {
	most int
	kept []byte
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.most-len(b.kept) {
		b.over = true
		return 0, io.ErrShortBuffer
	}
	b.kept = append(b.kept, p...)
	return len(p), nil
}

// lines hands on whole lines, and keeps the end of all.
type lines struct {
	line func(string)
	part []byte
	kept []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.kept = append(l.kept, p...)
	l.kept = l.kept[max(0, len(l.kept)-saidKept):]
	l.part = append(l.part, p...)
	for {
		line, rest, whole := bytes.Cut(l.part, []byte("\n"))
		if !whole && len(l.part) < saidKept {
			return len(p), nil
		}
		if text := strings.TrimRight(string(line), " \r"); text != "" {
			l.line(text)
		}
		l.part = rest
	}
}

func (l *lines) flush() {
	if text := strings.TrimSpace(string(l.part)); text != "" {
		l.line(text)
	}
	l.part = nil
}

func (l *lines) last() string { return strings.TrimSpace(string(l.kept)) }
