package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/guest"
	"github.com/sealboot/sealboot/initramfs"
)

func TestRun(t *testing.T) {
	root := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agent, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{guest.AgentPath: agent, "/usr/lib/modules/6.1/modules.builtin": []byte("kernel/drivers/md/dm-crypt.ko\n")} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	there := func() bool { _, err := os.Stat(filepath.Join(root, initramfs.Path("6.1"))); return err == nil }
	for _, c := range []struct {
		args  string
		code  int
		says  string
		there bool
	}{
		{"--help", 0, "initramfs VERSION", false}, {"", 2, "initramfs VERSION", false}, {"initramfs", 2, "", false}, {"x y", 2, "", false},
		{"initramfs 6.2", 1, "kernel 6.2 would not be started", false},
		{"initramfs 6.1", 0, "made the initramfs of kernel 6.1", true}, {"initramfs 6.1", 0, "", true},
		{"remove 6.1", 0, "", false}, {"remove 6.1", 0, "", false}, {"remove /", 1, "not a kernel's version", false},
		{"grow /proc", 0, "it is left as it is", false}, {"grow /does/not/exist", 1, "no such file", false},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), strings.Fields(c.args), root, &out, &out); code != c.code || !strings.Contains(out.String(), c.says) || there() != c.there {
			t.Errorf("%q: exit code %d, initramfs there: %v, said %q", c.args, code, there(), &out)
		}
	}
}
