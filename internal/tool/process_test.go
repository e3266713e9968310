package tool

import (
	"bytes"
	"errors"
	"os/exec"
	"syscall"
	"testing"
)

func TestStart(t *testing.T) {
	var out, errs bytes.Buffer
	p, err := Start(Command{Path: "sh", Args: []string{"-c", "echo out; echo last words >&2; exit 3"}, Stdout: &out}, &errs)
	if err != nil {
		t.Fatal(err)
	}
	err = p.Wait()
	var failed *Error
	var exit *exec.ExitError
	if !errors.As(err, &failed) || failed.Stderr != "last words" || !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("failure reported as %v", err)
	}
	if out.String() != "out\n" || errs.String() != "last words\n" {
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signal after the end: %v", err)
	}
	if _, err := Start(Command{Path: "sealboot-no-such-program"}, &errs); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("missing program reported as %v", err)
	}
}

func TestSignal(t *testing.T) {
	p, err := Start(Command{Path: "sleep", Args: []string{"60"}}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil {
		t.Error("a killed program ended well")
	}
}
