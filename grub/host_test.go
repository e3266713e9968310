package grub_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// host is the module's code for bytes from outside, running on this machine under the
// address and undefined-behaviour sanitizers: testdata/host.c.
type host struct {
	mu   sync.Mutex
	in   io.Writer
	out  *bufio.Reader
	errs *lockedBuffer
}

// hostProgram is compiled once, into a folder that TestMain removes.
var hostProgram struct {
	sync.Once
	dir, path string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if hostProgram.dir != "" {
		os.RemoveAll(hostProgram.dir)
	}
	os.Exit(code)
}

func compileHost(t testing.TB) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sealboot-grub-test-")
	if err != nil {
		t.Fatal(err)
	}
	hostProgram.dir = dir
	program := filepath.Join(dir, "host")
	args := []string{"-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-discarded-qualifiers", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
		"-I", "module", "-o", program, filepath.Join("testdata", "host.c")}
	testtool.Output(t, testtool.Program(t, "gcc"), args...)
	hostProgram.path = program
}

func newHost(t testing.TB) *host {
	t.Helper()
	hostProgram.Do(func() { compileHost(t) })
	if hostProgram.path == "" {
		t.Fatal("the module's code was not compiled for the host: see the first failure")
	}
	cmd := exec.Command(hostProgram.path)
	// Address space of its own: leaks are not what is looked for.
	cmd.Env = append(os.Environ(), "ASAN_OPTIONS=detect_leaks=0")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h := &host{in: in, out: bufio.NewReaderSize(out, 1<<16), errs: &lockedBuffer{}}
	cmd.Stderr = h.errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the module's code on the host: %v\n%s", err, h.errs.String())
		}
	})
	return h
}

// ask gives the answer to one input.
func (h *host) ask(t testing.TB, kind byte, data []byte) string {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	frame := append(binary.LittleEndian.AppendUint32([]byte{kind}, uint32(len(data))), data...)
	_, err := h.in.Write(frame)
	var line string
	if err == nil {
		line, err = h.out.ReadString('\n')
	}
	if err != nil {
		t.Fatalf("the module's code on the host failed for %c %x: %v\n%s", kind, data, err, h.errs.String())
	}
	return strings.TrimSuffix(line, "\n")
}
