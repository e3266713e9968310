package progress

import (
	"bytes"
	"testing"
	"time"
)

func TestDescribe(t *testing.T) {
	got := describe("encrypt", 512<<20, 2<<30, 2*time.Second)
	if want := "encrypt  512.0 MiB of 2.0 GiB (25%)  256.0 MiB/s  6s left"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNoTerminalNoOutput(t *testing.T) {
	var out bytes.Buffer
	l := New(&out)
	l.Stage("x")(1, 2)
	l.Clear()
	if out.Len() != 0 {
		t.Errorf("wrote %q", out.String())
	}
}
