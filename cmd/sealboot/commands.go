package main

import "github.com/spf13/cobra"

// commands are sealboot's commands, each in a file of its own or a program of its own (programs.go).
var commands = []struct {
	name string
	make func(*app) *cobra.Command
}{
	{"luks", program{"luks", builder, "Make, look at and change the headers of encrypted disks"}.command},
	{"image", program{"image", builder, "Build, verify and inspect encrypted disks"}.command},
	{"build", program{"build", builder, "Make an encrypted disk, the firmware that unlocks it, and their boot record"}.command},
	{"grub", program{"grub", builder, "Build the GRUB that unlocks the disk"}.command},
	{"ovmf", (*app).ovmfCommand},
	{"measure", (*app).measureCommand},
	{"explain", (*app).explainCommand},
	{"keyserver", program{"", keyserver, "Keep disks' passphrases and release them to measured machines alone"}.command},
	{"launch", program{"launch", client, "Start a machine on this host and get it its secret"}.command},
	{"confirm", program{"confirm", client, "Tell the key server, from inside the guest, that the new passphrase opened the disk"}.command},
	{"sev", (*app).sevCommand},
}

// addCommands gives root the command that the arguments begin with, or all of them where they begin with none: for help,
// completion and wrong names. Making all of them takes as long as starting the program.
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
