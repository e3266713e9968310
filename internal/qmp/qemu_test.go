package qmp

import (
	"bufio"
	"io"
	"os/exec"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/testtool"
)

// TestQEMURefusesAlike asks a real QEMU what TestServerRefusals asks our server.
func TestQEMURefusesAlike(t *testing.T) {
	qemu := testtool.Program(t, "qemu-system-x86_64")
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), qemu, "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio")
			to, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			from, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			late := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
			defer func() {
				late.Stop()
				cmd.Process.Kill()
				io.Copy(io.Discard, from)
				cmd.Wait()
			}()
			in := bufio.NewReader(from)
			if _, err := readLine(in, MaxReply); err != nil {
				t.Fatal(err)
			}
			checkRefusal(t, in, to, c)
		})
	}
}
