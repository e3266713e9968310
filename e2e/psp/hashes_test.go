package psp

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

// debianKernel unpacks the kernel of the fetched package.
func debianKernel(t *testing.T) string {
	t.Helper()
	deb := testtool.Deb(t, "linux-image-6.1*-cloud-amd64")
	cmd := exec.CommandContext(t.Context(), testtool.Program(t, "dpkg-deb"), "--fsys-tarfile", deb)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { // the rest of the package is not needed
		cmd.Process.Kill()
		cmd.Wait()
	}()
	for files := tar.NewReader(out); ; {
		h, err := files.Next()
		if err != nil {
			t.Fatalf("no kernel in %s: %v", deb, err)
		}
		if !strings.HasPrefix(h.Name, "./boot/vmlinuz-") {
			continue
		}
		data, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "vmlinuz")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
}

// waitConsole waits for a line on the console, and fails at what must not be there.
func waitConsole(t *testing.T, r *running, name, want, never string) {
	t.Helper()
	var text string
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		data, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		text = string(data)
		switch {
		case strings.Contains(text, never):
			t.Fatalf("%q on the console", never)
		case strings.Contains(text, want):
			return
		}
	}
	t.Fatalf("no %q on the console within 60 s; its end: %q\n%s", want, text[max(0, len(text)-500):], r.stderr)
}

// TestKernelHashes boots a kernel that the firmware checks against the table which was measured.
// Its twin without a table is refused by the same firmware: so the check is one.
func TestKernelHashes(t *testing.T) {
	kernel := debianKernel(t)
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(initrd, bytes.Repeat([]byte("initrd\n\x00"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	const cmdline = "console=ttyS0 panic=-1"
	const linux, refused = "Linux version", "No bootable option was found"
	start := func(t *testing.T, hashes string, more ...string) (*bench, *running, string) {
		b := newBench(t, ownerPolicy)
		console := filepath.Join(t.TempDir(), "console")
		b.args = []string{"-kernel", kernel, "-initrd", initrd, "-append", cmdline, "-serial", "file:" + console, "-no-reboot"}
		b.args = append(b.args, more...)
		line := b.commandLine()
		for i, arg := range line {
			if strings.HasPrefix(arg, "sev-guest") {
				line[i] += ",kernel-hashes=" + hashes
			}
		}
		return b, startArgs(t, b, append(line, "-S")), console
	}
	t.Run("on", func(t *testing.T) {
		b, r, console := start(t, "on")
		kernelData, err := os.ReadFile(kernel)
		if err != nil {
			t.Fatal(err)
		}
		initrdData, err := os.ReadFile(initrd)
		if err != nil {
			t.Fatal(err)
		}
		spec := measure.Spec{Mode: measure.SEV, HashKernel: true, Kernel: kernelData, HasInitrd: true, Initrd: initrdData, Append: cmdline}
		m := r.measurement()
		if err := b.session.VerifyMeasurement(m, b.platform.API, b.digest(spec)); err != nil {
			t.Error(err)
		}
		for name, spoil := range map[string]func(*measure.Spec){
			"command line": func(s *measure.Spec) { s.Append += " init=/bin/sh" },
			"no initrd":    func(s *measure.Spec) { s.HasInitrd, s.Initrd = false, nil },
			"kernel":       func(s *measure.Spec) { s.Kernel = append([]byte{0}, s.Kernel...) },
		} {
			other := spec
			spoil(&other)
			if err := b.session.VerifyMeasurement(m, b.platform.API, b.digest(other)); !errors.Is(err, sev.ErrMeasurement) {
				t.Errorf("%s: %v", name, err)
			}
		}
		firmware, err := os.ReadFile(b.firmware)
		if err != nil {
			t.Fatal(err)
		}
		image, err := ovmf.Parse(firmware)
		if err != nil {
			t.Fatal(err)
		}
		area, ok := image.HashesArea()
		if !ok {
			t.Fatal("the firmware has no place for hashes")
		}
		// All of the table but the kernel's hash, which is of what QEMU hands over, stands last.
		table := measure.KernelHashes(kernelData, initrdData, cmdline)
		if got := r.memory(uint64(area.Base), len(table)); !bytes.Equal(got[:136], table[:136]) {
			t.Errorf("memory holds %x, want %x", got, table)
		}
		if scratch := r.memory(fwCfgScratch, 4096); !bytes.Equal(scratch, make([]byte, 4096)) {
			t.Error("something is left in the guest's memory")
		}
		r.must("cont", nil, nil)
		waitConsole(t, r, console, linux, refused)
	})
	// QEMU 10 hands the kernel over as a file too. Older ones do when told to.
	t.Run("as a file", func(t *testing.T) {
		var major int
		if _, err := fmt.Sscanf(testtool.Output(t, testtool.Program(t, "qemu-system-x86_64"), "--version"), "QEMU emulator version %d.", &major); err != nil {
			t.Fatal(err)
		}
		if major >= 10 {
			return // the case above is this one
		}
		_, r, console := start(t, "on", "-fw_cfg", "name="+unpatched+",file="+kernel)
		r.must("cont", nil, nil)
		waitConsole(t, r, console, linux, refused)
	})
	t.Run("off", func(t *testing.T) {
		b, r, console := start(t, "off")
		if err := b.session.VerifyMeasurement(r.measurement(), b.platform.API, b.digest(measure.Spec{Mode: measure.SEV})); err != nil {
			t.Error(err)
		}
		r.must("cont", nil, nil)
		waitConsole(t, r, console, refused, linux)
	})
}

func TestFileLimits(t *testing.T) {
	name := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(fileLimit + 1); err != nil {
		t.Fatal(err)
	}
	if _, err := readBase64(name); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a session file without end: %v", err)
	}
	if _, err := readBootFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
