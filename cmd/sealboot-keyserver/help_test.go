package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp reads every command's help: what it does in words, an example, and in the example no flag that is not there.
func TestHelp(t *testing.T) {
	root := new(app).root()
	commands, flags := 0, 0
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		if cmd.Short == "" || cmd.Long == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short %q, long %q", cmd.CommandPath(), cmd.Short, cmd.Long)
		}
		if cmd.HasSubCommands() {
			return
		}
		commands++
		example := strings.ReplaceAll(cmd.Example, "\\\n", " ")
		if example == "" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for line := range strings.Lines(example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " | ")
			args := strings.Fields(line)
			if len(args) < 2 || args[0] != "sealboot-keyserver" {
				t.Errorf("%s: example %q is no command of ours", cmd.CommandPath(), line)
				continue
			}
			found, _, err := root.Find(args[1:])
			if err != nil || found == root {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
				continue
			}
			for _, name := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(line, -1) {
				if flags++; found.Flags().Lookup(name[1]) == nil {
					t.Errorf("%s: example %q: there is no flag --%s", cmd.CommandPath(), line, name[1])
				}
			}
		}
	}
	walk(root)
	if commands < 30 || flags < 60 {
		t.Errorf("%d commands with %d flags in their examples were looked at", commands, flags)
	}
}
