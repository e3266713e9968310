package main

import "github.com/spf13/cobra"

// commands lists sealboot's commands, each in a file of its own.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.luksCommand(),
		a.imageCommand(),
		a.buildCommand(),
		a.grubCommand(),
		a.ovmfCommand(),
		a.measureCommand(),
		a.explainCommand(),
		a.keyserverCommand(),
		a.launchCommand(),
		a.confirmCommand(),
		a.sevCommand(),
	}
}
