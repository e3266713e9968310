package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Exit codes, listed in README.md.
const (
	exitYes    = 0 // done; the answer is yes
	exitBroken = 1 // it could not be done
	exitUsage  = 2 // wrong use of the command
	exitNo     = 3 // a clear no: refused, or does not match
)

// app is what the commands share: the streams of this run.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usagef is an error in how the command was called (exit code 2).
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// refusef is a clear no (exit code 3).
func refusef(format string, args ...any) error {
	return &exitError{exitNo, fmt.Errorf(format, args...)}
}

// run runs sealboot with the given arguments and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.rootCommand()
	started := false
	onStart(root, func() { started = true })
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitYes
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("interrupted: %w", err)
	}
	fmt.Fprintf(stderr, "sealboot: %v\n", err)
	if coded := (*exitError)(nil); errors.As(err, &coded) {
		return coded.code
	}
	if !started { // cobra found the arguments wrong
		return exitUsage
	}
	return exitBroken
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sealboot",
		Short: "Boot an encrypted disk on a machine that you do not trust",
		Long: `sealboot builds an encrypted disk and the firmware that unlocks it, serves the
disk's passphrase to that firmware alone, and starts the machine.

Exit codes: 0 yes, 1 broken, 2 wrong use, 3 a clear no (refused, does not match).`,
		Version:           version(),
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
	}
	root.AddCommand(a.commands()...)
	return root
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
				return usagef("%s has no command %q: see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
			}
			return cmd.Help()
		}
	}
	for _, sub := range cmd.Commands() {
		onStart(sub, f)
	}
}

// version names the build: the module's version, or the commit that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

const maxKeyFile = 4096 // bytes; far above any passphrase that GRUB takes

// readKeyFile reads a passphrase: the exact bytes of the file, or of standard input for "-".
func (a *app) readKeyFile(path string) ([]byte, error) {
	if path == "" {
		return nil, usagef("no passphrase: give --key-file FILE, or - for standard input")
	}
	in := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		defer f.Close()
		in = f
	}
	key, err := io.ReadAll(io.LimitReader(in, maxKeyFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read passphrase: %w", err)
	case len(key) == 0:
		return nil, fmt.Errorf("read passphrase: %s is empty", path)
	case len(key) > maxKeyFile:
		return nil, fmt.Errorf("read passphrase: %s has more than %d bytes", path, maxKeyFile)
	}
	return key, nil
}
