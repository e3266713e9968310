package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sealboot/sealboot/internal/testtool"
)

// status runs a command and checks its exit code: status 3 sealboot luks open …
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE COMMAND [ARG ...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%v: exit code %d, want %d", args[1:], got, want)
	}
}

// scriptSetup tells scripts where the fetched tools and files are: $DEPS, and $PROJECT.
func scriptSetup(env *testscript.Env) error {
	env.Setenv("DEPS", filepath.Join(testtool.Deps(), "root"))
	env.Setenv("PROJECT", testtool.Project())
	env.Setenv("PATH", env.Getenv("PATH")+":/usr/sbin:/sbin")
	return nil
}
