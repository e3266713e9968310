// Command sealboot-keyserver keeps disks' passphrases and releases them to measured machines alone. It is a
// program of its own because the machine that holds the keys needs no builder; `sealboot keyserver` runs it.
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

// run runs sealboot-keyserver with the given arguments and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:   "sealboot-keyserver",
		Short: "Keep disks' passphrases and release them to measured machines alone",
		Long: `sealboot-keyserver keeps images in a store (--store DIR, an SQLite database, or a
connection string of PostgreSQL, which several servers may share) and serves their secrets to machines whose launch measurement fits the image's boot record. Where sealboot is
installed beside it, "sealboot keyserver" is the same.

The store's secrets are encrypted under a store key, which lies outside of the folder: in the
file --store-key-file names, or DIR.key. The first register makes both. Keep a copy of the key
apart from the store: neither is of use without the other.

Exit codes: 0 yes, 1 broken, 2 wrong use, 3 a clear no (refused, does not match).`,
	}
	root.AddCommand(a.registerCommand(), a.revokeCommand(), a.serveCommand(), a.listCommand(), a.auditCommand(),
		a.backupCommand(), a.restoreCommand())
	return cli.Run(ctx, root, args, stdin, stdout, stderr)
}
