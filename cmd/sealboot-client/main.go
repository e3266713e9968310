// Command sealboot-client speaks with the key server: on the host for a launch, in the guest to confirm a change of
// passphrase. `sealboot launch` and `sealboot confirm` run it.
package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
)

func main() { cli.Main(run) }

// app is what the commands share: the streams of this run.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// run runs sealboot-client with the given arguments and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:   "sealboot-client",
		Short: "Launch machines, and confirm, with the key server",
		Long: `sealboot-client speaks with the key server: launch on the host, confirm in the guest. Where sealboot is
installed beside it, "sealboot launch" is the same as "sealboot-client launch".

Exit codes: 0 yes, 1 broken, 2 wrong use, 3 a clear no (refused, does not match).`,
	}
	root.AddCommand(a.launchCommand(), a.confirmCommand())
	return cli.Run(ctx, root, args, stdin, stdout, stderr)
}
