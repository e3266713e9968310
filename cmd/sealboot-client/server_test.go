package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/cli"
)

// TestCredentials gives launch a good token, which gets as far as the next mistake, and then what is wrong with credentials.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	token := file("token", "sbt1_"+strings.Repeat("A", 48)+"\n", 0o600)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--token-file", token}, cli.ExitUsage, "no certificates of AMD's"},
		{[]string{"--token-file", file("open", "sbt1_x\n", 0o644)}, cli.ExitBroken, "others may read"},
		{[]string{"--token-file", file("two", "sbt1_x\nsbt1_y\n", 0o600)}, cli.ExitBroken, "not one line with a token"},
		{[]string{"--token-file", file("empty", "", 0o600)}, cli.ExitBroken, "not one line with a token"},
		{[]string{"--token-file", filepath.Join(dir, "none")}, cli.ExitBroken, "no such file"},
		{[]string{"--token-file", token, "--server", "http://keys.example"}, cli.ExitUsage, "a token goes over https alone"},
		{[]string{"--client-cert", token}, cli.ExitUsage, "belong together"},
		{[]string{"--client-cert", token, "--client-key", token}, cli.ExitBroken, "read this host's certificate"},
		{[]string{"--client-cert", token, "--client-key", filepath.Join(dir, "open")}, cli.ExitBroken, "others may read"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"launch", "--server", "https://keys.example"}, c.args...), nil, &stdout, &stderr)
		if code != c.code || !strings.Contains(stderr.String(), c.says) || strings.Contains(stderr.String(), "sbt1_") {
			t.Errorf("%q: exit code %d, want %d; %q does not say %q", c.args, code, c.code, &stderr, c.says)
		}
	}
}
