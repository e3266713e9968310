package main

import (
	"context"
	"os"
	"os/exec"
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

// TestScripts runs testdata/script/*.txtar: what a user types, and what must come back, of sealboot and of the
// programs beside it. Beside testscript's own commands there is `status CODE COMMAND …`, which checks the exit code.
func TestScripts(t *testing.T) {
	programs := t.TempDir()
	build := exec.Command("go", "build", "-o", programs, "./"+builder, "./"+client, "./sealboot-guest")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build programs: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"status": testtool.Status},
		Setup:               func(env *testscript.Env) error { return scriptSetup(env, programs) },
	})
}

// scriptSetup tells scripts where the programs and the fetched tools and files are: $PROGRAMS, $DEPS, $PROJECT, and $SELF,
// which is sealboot when it is called so.
func scriptSetup(env *testscript.Env, programs string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	env.Setenv("DEPS", filepath.Join(testtool.Deps(), "root"))
	env.Setenv("PROJECT", testtool.Project())
	env.Setenv("SELF", self)
	env.Setenv("PROGRAMS", programs)
	env.Setenv("PATH", programs+":"+env.Getenv("PATH")+":/usr/sbin:/sbin")
	return nil
}
