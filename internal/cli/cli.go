// Package cli is what sealboot's programs have in common: exit codes, errors of usage, how a tree of commands
// is run, and the files that several of them take. It defines no flag and reads no environment.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Exit codes, listed in README.md.
const (
	ExitYes    = 0 // done; the answer is yes
	ExitBroken = 1 // it could not be done
	ExitUsage  = 2 // wrong use of the command
	ExitNo     = 3 // a clear no: refused, or does not match
)

// ExitError is an error with an exit code of its own.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }
func (e *ExitError) Unwrap() error { return e.Err }

// Usagef is an error in how the command was called (exit code 2).
func Usagef(format string, args ...any) error {
	return &ExitError{ExitUsage, fmt.Errorf(format, args...)}
}

// Refusef is a clear no (exit code 3).
func Refusef(format string, args ...any) error {
	return &ExitError{ExitNo, fmt.Errorf(format, args...)}
}

// OneLine keeps an error that joins several on one line of a terminal.
func OneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// Main runs a program until it ends or is told to, and exits with its code. A signal ends the commands named in brief
// at once: they write nothing but whole files, and are over in less time than it takes to listen for signals.
func Main(run func(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int, brief ...string) {
	if len(os.Args) > 1 && slices.Contains(brief, os.Args[1]) {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A signal a second after the first ends what the first could not, as a read of standard input. Not at
	// once: timeout(1) and terminals often send two, and the first one's tidying up must not be cut short.
	context.AfterFunc(ctx, func() {
		time.Sleep(time.Second)
		stop()
	})
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Run runs the command of the tree that the arguments name, and returns the exit code.
func Run(ctx context.Context, root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root.Version = Version()
	root.SilenceUsage, root.SilenceErrors, root.DisableAutoGenTag = true, true, true
	started := false
	onStart(root, func() { started = true })
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitYes
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("interrupted: %w", err)
	}
	fmt.Fprintf(stderr, "%s: %v\n", root.Name(), err)
	if coded := (*ExitError)(nil); errors.As(err, &coded) {
		return coded.Code
	}
	if !started { // cobra found the arguments wrong
		return ExitUsage
	}
	return ExitBroken
}

// onStart calls f when a command's own work begins: an error before that is one of usage.
func onStart(cmd *cobra.Command, f func()) {
	if work := cmd.RunE; work != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			f()
			return work(cmd, args)
		}
	} else if cmd.Run == nil {
		// A group of commands called with none of them, or with an unknown one.
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return Usagef("%s has no command %q: see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
			}
			return cmd.Help()
		}
	}
	for _, sub := range cmd.Commands() {
		onStart(sub, f)
	}
}

// Version names the build: the module's version, or the commit that it was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}
