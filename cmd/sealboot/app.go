package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
)

// app is what the commands share: the streams of this run.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// run runs sealboot with the given arguments and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:   "sealboot",
		Short: "Boot an encrypted disk on a machine that you do not trust",
		Long: `sealboot builds an encrypted disk and the firmware that unlocks it, serves the
disk's passphrase to that firmware alone, and starts the machine.

Exit codes: 0 yes, 1 broken, 2 wrong use, 3 a clear no (refused, does not match).`,
	}
	a.addCommands(root, args)
	return cli.Run(ctx, root, args, stdin, stdout, stderr)
}

// usagef is an error in how the command was called, refusef a clear no.
func usagef(format string, args ...any) error  { return cli.Usagef(format, args...) }
func refusef(format string, args ...any) error { return cli.Refusef(format, args...) }

// readKeyFile reads a passphrase from the file, or from standard input for "-".
func (a *app) readKeyFile(path string) ([]byte, error) { return cli.ReadKeyFile(path, a.stdin) }
