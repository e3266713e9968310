package tool

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	var out bytes.Buffer
	if err := Run(t.Context(), Command{Path: "sh", Args: []string{"-c", "echo $A; cat"}, Env: []string{"A=b"}, Stdin: strings.NewReader("in"), Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if out.String() != "b\nin" {
		t.Errorf("stdout %q", out.String())
	}
	err := Run(t.Context(), Command{Path: "sh", Args: []string{"-c", "echo no such thing >&2; exit 4"}})
	var failed *Error
	var exit *exec.ExitError
	if !errors.As(err, &failed) || failed.Stderr != "no such thing" || !errors.As(err, &exit) || exit.ExitCode() != 4 {
		t.Errorf("failure reported as %v", err)
	}
	if err := Run(t.Context(), Command{Path: "sealboot-no-such-program"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("missing program reported as %v", err)
	}
}
