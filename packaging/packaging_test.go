// Package packaging tests the files that the key server is installed with, and what a guest of its has.
package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const (
	unit    = "sealboot-keyserver.service"
	confirm = "sealboot-confirm.service" // in a guest
)

// TestUnits has systemd judge the units: every line is understood, and little is open.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is missing")
	}
	for unit, program := range map[string]string{unit: "/usr/bin/sealboot-keyserver", confirm: "/usr/bin/sealboot-client"} {
		t.Run(unit, func(t *testing.T) { testUnit(t, analyze, unit, program) })
	}
}

func testUnit(t *testing.T, analyze, unit, program string) {
	name := filepath.Join(t.TempDir(), unit)
	text := strings.ReplaceAll(read(t, unit), program, "/bin/true") // which must be there
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	verify := func() string {
		return testtool.Output(t, "sh", "-c", `"$1" verify "$2" 2>&1 || true`, "sh", analyze, name)
	}
	if said := verify(); strings.Contains(said, unit) {
		t.Errorf("systemd-analyze verify: %s", said)
	}
	// 20 stands for 2.0 of 10: below it systemd says OK. Version 252 says 1.1.
	testtool.Output(t, analyze, "security", "--offline=true", "--threshold=20", "--no-pager", name)

	if err := os.WriteFile(name, []byte(strings.Replace(text, "ProtectHome=yes", "ProtectHouse=yes", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if said := verify(); !strings.Contains(said, "ProtectHouse") {
		t.Errorf("a wrong line is not found: %s", said)
	}
}

// TestNames holds the files to each other.
func TestNames(t *testing.T) {
	service, config, container := read(t, unit), read(t, "keyserver.toml"), read(t, "Containerfile")
	for _, c := range []struct{ about, text, want string }{
		{"the unit's command", service, "ExecStart=/usr/bin/sealboot-keyserver serve --config /etc/sealboot/keyserver.toml\n"},
		{"the unit's readiness", service, "\nType=notify\n"},
		{"the unit's credential", service, "\nLoadCredential=store-key:"},
		{"the configuration's credential", config, "\nstore_key = \"credential:store-key\"\n"},
		{"the unit's folder", service, "\nStateDirectory=sealboot-keyserver\n"},
		{"the configuration's folder", config, "\nfolder = \"/var/lib/sealboot-keyserver/store\"\n"},
		{"the unit's credentials", config, "/run/credentials/" + unit + "/"},
		{"the unit's cache", service, "\nCacheDirectory=sealboot-keyserver\n"},
		{"the configuration's cache", config, "\"/var/cache/sealboot-keyserver\""},
		{"the user", read(t, "sealboot-keyserver.sysusers.conf"), "\nu sealboot-keyserver "},
		{"the unit's user", service, "\nUser=sealboot-keyserver\nGroup=sealboot-keyserver\n"},
		{"the guest's command", read(t, confirm), "\nExecStart=/usr/bin/sealboot-client confirm --server https://keys.example.org:8443 --server-ca /etc/sealboot/ca.crt\n"},
		{"the guest's receipt", read(t, confirm), "\nConditionPathExists=/run/sealboot/receipt\n"},
		{"the receipt's folder, to remove it", read(t, confirm), "\nReadWritePaths=/run/sealboot\n"},
		{"the container's command", container, `CMD ["serve", "--config", "/etc/sealboot/keyserver.toml"]`},
		{"the container's user", container, "\nUSER 65532:65532\n"},
		{"the container's base", container, "\nFROM scratch\n"},
	} {
		if !strings.Contains(c.text, c.want) {
			t.Errorf("%s: %q is not there", c.about, c.want)
		}
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	if version == nil || !strings.Contains(container, "FROM golang:"+version[1]+" AS build") {
		t.Errorf("the container is not built with go.mod's Go %v", version)
	}
}
