package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sealboot/sealboot/internal/testtool"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sealboot": func() {
			os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

// TestScripts runs testdata/script/*.txtar: what a user types, and what must come back.
// Beside testscript's own commands there is `status CODE COMMAND …`, which checks the exit code.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"status": testtool.Status},
		Setup:               scriptSetup,
	})
}

// scriptSetup tells scripts where the fetched tools and files are: $DEPS, $PROJECT, and $SELF, which is
// sealboot when it is called so.
func scriptSetup(env *testscript.Env) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	env.Setenv("DEPS", filepath.Join(testtool.Deps(), "root"))
	env.Setenv("PROJECT", testtool.Project())
	env.Setenv("SELF", self)
	env.Setenv("PATH", env.Getenv("PATH")+":/usr/sbin:/sbin")
	return nil
}
