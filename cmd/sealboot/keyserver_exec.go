package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// keyserverProgram is the key server, which is no part of this program: the machine that holds the keys
// needs no builder, and no other command should carry its database.
const keyserverProgram = "sealboot-keyserver"

// keyserverCommand hands all of its arguments, and the questions of shell completion, to the key server's program.
func (a *app) keyserverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:                "keyserver",
		Short:              "Keep disks' passphrases and release them to measured machines alone",
		Long:               "keyserver runs " + keyserverProgram + ", which stands beside sealboot or in PATH.",
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return becomeKeyserver(args...) },
		ValidArgsFunction: func(cmd *cobra.Command, args []string, last string) ([]cobra.Completion, cobra.ShellCompDirective) {
			asked := cobra.ShellCompRequestCmd
			if len(os.Args) > 1 && os.Args[1] == cobra.ShellCompNoDescRequestCmd {
				asked = cobra.ShellCompNoDescRequestCmd
			}
			err := becomeKeyserver(append(append([]string{asked}, args...), last)...)
			cobra.CompErrorln(err.Error())
			return nil, cobra.ShellCompDirectiveError
		},
	}
	help := cmd.HelpFunc()
	cmd.SetHelpFunc(func(cmd *cobra.Command, args []string) { // of "sealboot help keyserver"
		fmt.Fprintln(a.stderr, "sealboot:", becomeKeyserver("--help"))
		help(cmd, args)
	})
	return cmd
}

// becomeKeyserver replaces this process by the key server's, as git does with its commands: its signals, streams and
// exit code are then the key server's own. It returns only if that fails.
func becomeKeyserver(args ...string) error {
	program, err := findKeyserver()
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", program, syscall.Exec(program, append([]string{program}, args...), os.Environ()))
}

// findKeyserver looks beside this program first: what was installed together belongs together.
func findKeyserver() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", keyserverProgram, err)
	}
	beside := filepath.Join(filepath.Dir(self), keyserverProgram)
	if program, err := exec.LookPath(beside); err == nil {
		return program, nil
	}
	program, err := exec.LookPath(keyserverProgram)
	if err != nil {
		return "", fmt.Errorf("%w, nor is it beside %s: install it there (make build makes both)", err, self)
	}
	return program, nil
}
