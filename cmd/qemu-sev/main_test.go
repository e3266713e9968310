package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/testtool"
)

// asQEMU makes the test binary behave as qemu-sev.
const asQEMU = "QEMU_SEV_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asQEMU) == "1" {
		main()
	}
	os.Exit(m.Run())
}

// command is a run of qemu-sev with an identity folder.
func command(t *testing.T, folder string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asQEMU+"=1", "QEMU_SEV_PLATFORM="+folder)
	return cmd
}

func output(t *testing.T, folder string, args ...string) string {
	t.Helper()
	var errs bytes.Buffer
	cmd := command(t, folder, args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, errs.String())
	}
	return string(out)
}

func TestIdentity(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "deep", "platform")
	var wait sync.WaitGroup
	roots := make([]string, 4)
	for i := range roots {
		wait.Go(func() { roots[i] = output(t, folder, "--sev-trust-root") })
	}
	wait.Wait()
	for _, root := range roots {
		if len(root) != 65 || root != roots[0] {
			t.Fatalf("first users find the roots %q", roots)
		}
	}
	if ca := output(t, folder, "--sev-ca-file"); len(ca) != 2*(64+3*256) {
		t.Errorf("certificates of %d bytes", len(ca))
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	file, err := entries[0].Info()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Stat(folder)
	if err != nil {
		t.Fatal(err)
	}
	if file.Mode().Perm() != 0o600 || dir.Mode().Perm() != 0o700 {
		t.Errorf("modes %v, %v", file.Mode(), dir.Mode())
	}
	if err := os.WriteFile(filepath.Join(folder, entries[0].Name()), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, folder, "--sev-trust-root").CombinedOutput(); err == nil {
		t.Errorf("a damaged identity is replaced: %s", out)
	}
	if text := output(t, folder, "--sev-help"); !strings.Contains(text, "QEMU_SEV_PLATFORM") {
		t.Errorf("help says %q", text)
	}
}

// TestStdio: QMP on standard input and output, as scripts use it.
func TestStdio(t *testing.T) {
	testtool.Program(t, "qemu-system-x86_64")
	cmd := command(t, t.TempDir(), "-machine", "none", "-nodefaults", "-display", "none", "-accel", "kvm", "-qmp", "stdio")
	cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"} {"execute":"query-status","id":7} {"execute":"query-sev-capabilities"} {"execute":"quit"}`)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	text := string(out)
	for _, want := range []string{`{"QMP":`, `"id":7`, `"cbitpos":51`, `"SHUTDOWN"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

// TestInterruptedWait: a machine that waits for its monitor's first client can be ended.
func TestInterruptedWait(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "qmp")
	cmd := command(t, t.TempDir(), "-machine", "none", "-display", "none", "-nodefaults", "-qmp", "unix:"+socket+",server=on")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "it listens", func() bool { _, err := os.Lstat(socket); return err == nil })
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("ended with %v", err)
	}
	if _, err := os.Lstat(socket); err == nil {
		t.Error("its socket is left")
	}
}

// TestKilled: a stand-in that is killed takes QEMU and the guest's memory along.
func TestKilled(t *testing.T) {
	firmware := testtool.AmdSevFirmware(t)
	testtool.Program(t, "qemu-system-x86_64")
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			dir := t.TempDir()
			mark := fmt.Sprintf("guest=killed-%d-%d", os.Getpid(), signal)
			before := guestMemories(t)
			cmd := command(t, t.TempDir(), "-name", mark,
				"-machine", "q35,confidential-guest-support=sev0", "-accel", "kvm", "-m", "64M", "-S",
				"-object", "sev-guest,id=sev0,cbitpos=51,reduced-phys-bits=1", "-nodefaults", "-display", "none",
				"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+firmware,
				"-qmp", "unix:"+filepath.Join(dir, "qmp")+",server=on,wait=off")
			cmd.Env = append(cmd.Env, "TMPDIR="+dir)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			wait(t, "QEMU runs", func() bool { return len(processes(t, mark)) == 2 })
			cmd.Process.Signal(signal)
			cmd.Wait()
			wait(t, "QEMU is gone", func() bool { return len(processes(t, mark)) == 0 })
			left := names(t, dir)
			if signal == syscall.SIGKILL {
				delete(left, "qmp") // a killed QEMU leaves its socket too
			}
			if after := guestMemories(t); after > before || len(left) != 0 {
				t.Errorf("%d guests' memories in /dev/shm, %d before; in the folder for temporary files: %v", after, before, left)
			}
		})
	}
}

func names(t *testing.T, dir string) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, e := range entries {
		out[e.Name()] = true
	}
	return out
}

// guestMemories counts files of the guest's size in the folder for shared memory.
func guestMemories(t *testing.T) int {
	t.Helper()
	n := 0
	for name := range names(t, "/dev/shm") {
		if info, err := os.Stat(filepath.Join("/dev/shm", name)); err == nil && info.Size() == 64<<20 {
			n++
		}
	}
	return n
}

// processes lists who has the mark on its command line: the stand-in and its QEMU.
func processes(t *testing.T, mark string) []string {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(lines) == 0 {
		t.Fatalf("no processes in /proc: %v", err)
	}
	var out []string
	for _, name := range lines {
		if data, err := os.ReadFile(name); err == nil && bytes.Contains(data, []byte(mark)) {
			out = append(out, name)
		}
	}
	return out
}

func wait(t *testing.T, what string, there func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !there(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
