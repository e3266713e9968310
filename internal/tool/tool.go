// Package tool is the one place that runs external programs. A failure names the
// program, its version and the end of what it said.
package tool

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Command is a program to run. Arguments and environment must hold no secret.
type Command struct {
	Path   string // the program: a path, or a name to be found in PATH
	Args   []string
	Dir    string
	Env    []string // added to the environment
	Stdin  io.Reader
	Stdout io.Writer
	Files  []*os.File // become descriptors 3, 4, …
}

// Error is a program that could not be run, or that failed.
type Error struct {
	Path    string
	Version string // first line of PATH --version, where there is one
	Stderr  string // the last lines
	Err     error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %v", e.Path, e.Err)
	if e.Version != "" {
		text = fmt.Sprintf("%s (%s): %v", e.Path, e.Version, e.Err)
	}
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

const stderrKept = 2048 // bytes of a program's last words

// Run runs the command to its end. On a failure the error is an *Error.
func Run(ctx context.Context, c Command) error {
	path, err := exec.LookPath(c.Path)
	if err != nil {
		return &Error{Path: c.Path, Err: err}
	}
	var said tail
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = c.Dir, c.Stdin, c.Stdout, &said, c.Files
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return &Error{Path: path, Version: version(path), Stderr: said.String(), Err: err}
	}
	return nil
}

func version(path string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// tail keeps the last bytes written to it.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if len(t.kept) > stderrKept {
		t.kept = bytes.Clone(t.kept[len(t.kept)-stderrKept:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(t.kept), "?")), " ")
}
