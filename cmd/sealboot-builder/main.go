// Command sealboot-builder makes encrypted disks and the firmware that unlocks them. `sealboot build`, `sealboot image`,
// `sealboot luks` and `sealboot grub` run it.
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

// run runs sealboot-builder with the given arguments and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:   "sealboot-builder",
		Short: "Make encrypted disks and the firmware that unlocks them",
		Long: `sealboot-builder makes encrypted disks and the firmware that unlocks them. Where sealboot is installed
beside it, "sealboot build" is the same as "sealboot-builder build", and so on.

Exit codes: 0 yes, 1 broken, 2 wrong use, 3 a clear no (refused, does not match).`,
	}
	root.AddCommand(a.buildCommand(), a.imageCommand(), a.luksCommand(), a.grubCommand())
	return cli.Run(ctx, root, args, stdin, stdout, stderr)
}
