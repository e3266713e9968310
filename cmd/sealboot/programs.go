package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// Programs that stand beside sealboot. Each machine needs its own: who holds the keys needs no builder, and
// neither does the host. And what they link (a database, TLS, decompressors) takes time at the start of every command.
const (
	builder   = "sealboot-builder"
	client    = "sealboot-client"
	keyserver = "sealboot-keyserver"
)

// program is a command that is in one of them, under the same name or, if it has none, as the program itself.
type program struct{ name, file, short string }

// command hands all of its arguments, and the questions of shell completion, to the program.
func (p program) command(a *app) *cobra.Command {
	use := p.name
	if use == "" {
		use = p.file[len("sealboot-"):]
	}
	cmd := &cobra.Command{
		Use:                use,
		Short:              p.short,
		Long:               use + " is a command of " + p.file + ", which stands beside sealboot or in PATH.",
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return p.become(nil, args...) },
		ValidArgsFunction: func(cmd *cobra.Command, args []string, last string) ([]cobra.Completion, cobra.ShellCompDirective) {
			asked := []string{cobra.ShellCompRequestCmd}
			if len(os.Args) > 1 && os.Args[1] == cobra.ShellCompNoDescRequestCmd {
				asked[0] = cobra.ShellCompNoDescRequestCmd
			}
			err := p.become(asked, append(args, last)...)
			cobra.CompErrorln(err.Error())
			return nil, cobra.ShellCompDirectiveError
		},
	}
	help := cmd.HelpFunc()
	cmd.SetHelpFunc(func(cmd *cobra.Command, args []string) { // of "sealboot help build"
		fmt.Fprintln(a.stderr, "sealboot:", p.become(nil, "--help"))
		help(cmd, args)
	})
	return cmd
}

// become replaces this process by the program, as git does with its commands: its signals, streams and exit code are then
// the program's own. It returns only if that fails. What is asked of the program comes before the command's name.
func (p program) become(asked []string, args ...string) error {
	path, err := p.find()
	if err != nil {
		return err
	}
	all := append([]string{path}, asked...)
	if p.name != "" {
		all = append(all, p.name)
	}
	return fmt.Errorf("run %s: %w", path, syscall.Exec(path, append(all, args...), os.Environ()))
}

// find looks beside sealboot first: what was installed together belongs together.
func (p program) find() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", p.file, err)
	}
	if path, err := exec.LookPath(filepath.Join(filepath.Dir(self), p.file)); err == nil {
		return path, nil
	}
	path, err := exec.LookPath(p.file)
	if err != nil {
		return "", fmt.Errorf("%w, nor is it beside %s: install it there (make build makes all)", err, self)
	}
	return path, nil
}
