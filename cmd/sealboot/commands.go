package main

import "github.com/spf13/cobra"

// commands are sealboot's commands, each in a file of its own.
var commands = []struct {
	name string
	make func(*app) *cobra.Command
}{
	{"luks", (*app).luksCommand},
	{"image", (*app).imageCommand},
	{"build", (*app).buildCommand},
	{"grub", (*app).grubCommand},
	{"ovmf", (*app).ovmfCommand},
	{"measure", (*app).measureCommand},
	{"explain", (*app).explainCommand},
	{"keyserver", (*app).keyserverCommand},
	{"launch", (*app).launchCommand},
	{"confirm", (*app).confirmCommand},
	{"sev", (*app).sevCommand},
}

// addCommands gives root the command that the arguments begin with, or all of them where they begin with none: for help,
// completion and wrong names. Making all of them takes longer than starting the program.
func (a *app) addCommands(root *cobra.Command, args []string) {
	for _, c := range commands {
		if len(args) > 0 && args[0] == c.name {
			root.AddCommand(c.make(a))
			root.CompletionOptions.DisableDefaultCmd = true
			return
		}
	}
	for _, c := range commands {
		root.AddCommand(c.make(a))
	}
}
