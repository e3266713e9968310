package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/e2e/lab"
	"github.com/sealboot/sealboot/internal/qmp"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/luks"
)

const headerAt = 1 << 20 // of the disk: the beginning of the root partition

// TestHeaderSwap is a host that changes the LUKS header once GRUB has read it and unlocked the
// disk, so that the kernel finds another one. It does so while the machine stands still.
func TestHeaderSwap(t *testing.T) {
	s := theStage(t)
	original := s.readHeader(t)

	t.Run("the same header", func(t *testing.T) { // shows that the swap itself stops no machine
		s.wantBoot(t, s.swapHeader(t, original))
	})
	t.Run("null cipher", func(t *testing.T) { // CVE-2025-59054: Linux would open this with any passphrase
		changed := bytes.Clone(original)
		if editJSON(t, changed, `"encryption":"aes-xts-plain64"`, `"encryption":"cipher_null-ecb"`) == 0 {
			t.Fatal("nothing was edited")
		}
		s.wantStopped(t, s.swapHeader(t, changed), "cipher")
	})
	t.Run("volume key of the host's", func(t *testing.T) {
		header, key, err := luks.Format(luks.Spec{UUID: diskUUID(t, s.image), KDF: luks.MinimalPBKDF2}, []byte("the host's"), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key.Wipe()
		changed, err := header.Encode()
		if err != nil {
			t.Fatal(err)
		}
		s.wantStopped(t, s.swapHeader(t, changed), "not the one that was recorded")
	})
}

// swapHeader launches the machine and writes a header over the disk's as soon as GRUB says that it unlocked the disk.
func (s *stage) swapHeader(t *testing.T, header []byte) lab.Outcome {
	t.Helper()
	file, disk := s.Path("header"), s.Path("swapped.qcow2")
	if err := os.WriteFile(file, header, 0o600); err != nil {
		t.Fatal(err)
	}
	copyFile(t, s.image.Disk(), disk)
	swapped := false
	o := s.launch(t, lab.Machine{Disk: disk, OnConsole: func(line, control string) {
		if !swapped && strings.Contains(line, "sealboot: disk unlocked") {
			swapped = true
			tellMonitor(t, control, "stop",
				fmt.Sprintf(`qemu-io disk0 "write -s %s %d %d"`, file, headerAt, len(header)), "cont")
		}
	}})
	if !swapped {
		t.Errorf("GRUB never unlocked the disk; console:\n%s%s", o.Console, o.Stderr)
	}
	return o
}

// tellMonitor gives commands to QEMU's monitor, through QMP.
func tellMonitor(t *testing.T, socket string, commands ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client, err := qmp.Dial(ctx, "unix", socket)
	if err != nil {
		t.Error(err)
		return
	}
	defer client.Close()
	for _, command := range commands {
		var said string
		if err := client.Execute(ctx, "human-monitor-command", map[string]string{"command-line": command}, &said); err != nil || said != "" {
			t.Errorf("%s: %v, %q", command, err, said)
		}
	}
}

// readHeader gives what the disk has at the beginning of its root partition: both copies and the key slots.
func (s *stage) readHeader(t *testing.T) []byte {
	t.Helper()
	head := s.Path("head")
	testtool.Output(t, testtool.Program(t, "qemu-img"), "dd", "-f", "qcow2", "-O", "raw", "bs=1M", "count=2", "if="+s.image.Disk(), "of="+head)
	data, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	data = data[headerAt:]
	if !bytes.HasPrefix(data, []byte("LUKS\xba\xbe")) {
		t.Fatalf("no LUKS header at %d", headerAt)
	}
	return data
}

// editJSON replaces text in the metadata of both copies of a LUKS2 header and makes their checksums right
// again (LUKS2 On-Disk Format Specification, 2.1: SHA-256 at 448, over the header with that field zero). It
// returns the number of replacements.
func editJSON(t *testing.T, header []byte, from, to string) int {
	t.Helper()
	const binarySize, checksumAt, checksumSize = 4096, 448, 64
	size := int(binary.BigEndian.Uint64(header[8:]))
	edited := 0
	for _, start := range []int{0, size} {
		one := header[start : start+size]
		text := strings.TrimRight(string(one[binarySize:]), "\x00")
		edited += strings.Count(text, from)
		text = strings.ReplaceAll(text, from, to)
		clear(one[binarySize:])
		copy(one[binarySize:], text)
		clear(one[checksumAt : checksumAt+checksumSize])
		sum := sha256.Sum256(one)
		copy(one[checksumAt:], sum[:])
	}
	return edited
}
