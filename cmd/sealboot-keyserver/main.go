// Command sealboot-keyserver keeps disks' passphrases and releases them to measured machines alone. It is a
// program of its own because the machine that holds the keys needs no builder; `sealboot keyserver` runs it.
package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
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
	return cli.Run(keyserver.WithActor(ctx, keyserver.Actor{Name: localActor()}), a.root(), args, stdin, stdout, stderr)
}

// root is the tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sealboot-keyserver",
		Short: "Keep disks' passphrases and release them to measured machines alone",
		Long: `sealboot-keyserver keeps images with their secrets and policies in a store, and releases the secrets to
machines whose launch measurement or attestation report fits. Where sealboot is installed beside it,
"sealboot keyserver" is the same.

A store is a folder (--store DIR, an SQLite database) or a PostgreSQL database (--store and its connection
string); the commands work on it whether a server runs or not, and a server sees every change at once. Its secrets are
encrypted under a store key, which lies outside of it: where --store-key says, or in the file DIR.key. The
first register makes both. Keep a copy of the key apart from the store: neither is of use without the other.
--config FILE, the server's configuration, stands for both flags.

Exit codes: 0 yes, 1 broken, 2 wrong use, 3 a clear no (refused, does not match).`,
	}
	for _, group := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Images:", []*cobra.Command{a.registerCommand(), a.listCommand(), a.policyCommand(), a.secretCommand(), a.revokeCommand(), a.unrevokeCommand(), a.revocationsCommand()}},
		{"The server:", []*cobra.Command{a.serveCommand(), a.configCommand(), a.auditCommand(), a.backupCommand(), a.restoreCommand()}},
		{"Keys and people:", []*cobra.Command{a.keyCommand(), a.caCommand(), a.tokenCommand(), a.adminCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title})
		for _, cmd := range group.commands {
			cmd.GroupID = group.title
			root.AddCommand(cmd)
		}
	}
	return root
}

// localActor names in the audit who changes something by a command on the store's machine. No principal's name has a colon.
func localActor() string {
	id := strconv.Itoa(os.Getuid())
	if u, err := user.LookupId(id); err == nil {
		return "local:" + u.Username
	}
	return "local:" + id
}

func (a *app) printJSON(v any) error { return json.NewEncoder(a.stdout).Encode(v) }
