package tool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a program that runs beside its caller.
type Process struct {
	path string
	cmd  *exec.Cmd
	said tail
	done chan struct{}
	err  error
}

// Start starts the command and gives its standard error to stderr too. The program does not
// outlive its caller: the kernel kills it when the calling process ends, in whatever way.
func Start(c Command, stderr io.Writer) (*Process, error) {
	path, err := exec.LookPath(c.Path)
	if err != nil {
		return nil, &Error{Path: c.Path, Err: err}
	}
	p := &Process{path: path, cmd: exec.Command(path, c.Args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdin, p.cmd.Stdout, p.cmd.ExtraFiles = c.Dir, c.Stdin, c.Stdout, c.Files
	p.cmd.Stderr = io.MultiWriter(stderr, &p.said)
	p.cmd.Env = append(os.Environ(), c.Env...)
	p.cmd.WaitDelay = 5 * time.Second // for a descendant that keeps its stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The signal is tied to the thread that started the program: it must live as long.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, &Error{Path: path, Err: err}
	}
	return p, nil
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal; a program that has ended is no error.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.path, err)
	}
	return nil
}

// Wait waits for the program's end. On a failure the error is an *Error.
func (p *Process) Wait() error {
	<-p.done
	if p.err != nil {
		return &Error{Path: p.path, Version: version(p.path), Stderr: p.said.String(), Err: p.err}
	}
	return nil
}
