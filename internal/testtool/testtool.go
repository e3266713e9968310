// Package testtool finds the programs and data files that tests compare with. What is
// missing skips the test on a laptop and fails it where SEALBOOT_STRICT=1 is set (CI).
package testtool

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Missing skips the test, or fails it under SEALBOOT_STRICT=1.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("SEALBOOT_STRICT") == "1" {
		t.Fatalf("%s is missing and SEALBOOT_STRICT=1: run make deps", what)
	}
	t.Skipf("%s is missing: run make deps", what)
}

// Project gives the project's top folder.
func Project() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Deps gives the folder that deps/deps.sh fills.
func Deps() string {
	if dir := os.Getenv("SEALBOOT_DEPS"); dir != "" {
		return dir
	}
	return filepath.Join(Project(), ".cache", "deps")
}

// Program gives the path of a program: one that was fetched, or the machine's.
func Program(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range []string{"usr/bin", "usr/sbin", "bin", "sbin"} {
		if path := filepath.Join(Deps(), "root", dir, name); exists(path) {
			return path
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path := filepath.Join(dir, name); exists(path) {
			return path
		}
	}
	Missing(t, name)
	return ""
}

// File gives the path of the first of the files that exists, each named from the root of a
// file system (usr/share/ovmf/OVMF.amdsev.fd), fetched or the machine's.
func File(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		for _, root := range []string{filepath.Join(Deps(), "root"), "/"} {
			if path := filepath.Join(root, name); exists(path) {
				return path
			}
		}
	}
	Missing(t, names[0])
	return ""
}

// AmdSevFirmware gives the distribution's OVMF image for AMD SEV.
func AmdSevFirmware(t testing.TB) string {
	t.Helper()
	return File(t, "usr/share/ovmf/OVMF.amdsev.fd", "usr/share/OVMF/OVMF.amdsev.fd")
}

// Deb gives a fetched package whose name matches the pattern.
func Deb(t testing.TB, pattern string) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(Deps(), "debs", pattern+".deb"))
	if len(found) == 0 {
		Missing(t, "package "+pattern)
		return ""
	}
	return found[0]
}

// Output runs a program and gives its standard output; a failure ends the test with all that it said.
func Output(t testing.TB, program string, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", program, args, err, out.String(), errs.String())
	}
	return out.String()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
