// Package e2e boots machines in QEMU, through sealboot's own commands. Each way to tamper has a
// test that shows what stopped it: no key came out, or the guest refused what it was
// given, for the right reason. The good boot comes first: without it the refusals prove nothing.
package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/e2e/lab"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

func TestGoodBoot(t *testing.T) {
	s := theStage(t)
	o := s.launch(t, lab.Machine{})
	s.wantBoot(t, o)
	s.wantDecision(t, "release", "", "")
	if !contains(o.Console, "sealboot: disk unlocked, starting ") {
		t.Error("GRUB did not say that it unlocked the disk")
	}
}

// TestEncryptedState is a guest under a policy of SEV-ES: its digest holds the first state of its processor, so that a
// host that gives it another kind of processor gets nothing.
func TestEncryptedState(t *testing.T) {
	s := theStage(t)
	es := lab.Image{Name: "encrypted-state", Dir: s.image.Dir}
	if err := s.Register(t.Context(), es, "--require-es"); err != nil {
		t.Fatal(err)
	}
	s.wantBoot(t, s.launch(t, lab.Machine{Image: es}))
	s.wantDecision(t, "release", "", "")
	o := s.launch(t, lab.Machine{Image: es, QEMU: s.wrapper(t, "s/^EPYC-v4$/EPYC-Rome/")})
	s.wantRefused(t, o, "release", "refused", "measurement does not match")
}

func TestChangedFirmwareByte(t *testing.T) {
	s := theStage(t)
	firmware := s.Path("changed-firmware.fd")
	if err := lab.FlipByte(s.image.Firmware(), firmware, 0x1000); err != nil {
		t.Fatal(err)
	}
	o := s.launch(t, lab.Machine{Firmware: firmware})
	s.wantRefused(t, o, "release", "refused", "measurement does not match")
}

// TestChangedGRUBConfiguration is a host that builds its own GRUB, with one more word for the kernel.
func TestChangedGRUBConfiguration(t *testing.T) {
	s := theStage(t)
	efi, firmware := s.Path("changed-grub.efi"), s.Path("changed-grub.fd")
	for _, args := range [][]string{
		{"grub", "build", "--tools", filepath.Join(s.Deps, "root"), "--append", "console=ttyS0 init=/bin/busybox", "--output", efi},
		{"ovmf", "bundle", "--firmware", s.image.Firmware(), "--grub", efi, "--output", firmware},
	} {
		if _, err := s.Must(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	o := s.launch(t, lab.Machine{Firmware: firmware})
	s.wantRefused(t, o, "release", "refused", "measurement does not match")
}

// TestWrongPolicy is a host that starts the guest with debugging allowed. The platform sees that this
// is not the policy that the owner's session was made for.
func TestWrongPolicy(t *testing.T) {
	s := theStage(t)
	qemu := s.wrapper(t, `s/policy=0x[0-9a-f]*/policy=0x0/`)
	before := s.decisions(t)
	o := s.launch(t, lab.Machine{QEMU: qemu})
	if o.Code != 1 || o.Console != "" || o.Proof != "" {
		t.Errorf("exit code %d, console:\n%s", o.Code, o.Console)
	}
	if !contains(o.Stderr, "LAUNCH_START") {
		t.Errorf("launch said %q: want the platform's refusal of LAUNCH_START", o.Stderr)
	}
	for _, d := range s.decisions(t)[len(before):] {
		if d.Event != "session" {
			t.Errorf("after the session there is a decision %+v", d)
		}
	}
}

// TestNoSecret is a host that lets the machine run without its secret.
func TestNoSecret(t *testing.T) {
	s := theStage(t)
	o := s.runWithoutSecret(t)
	s.wantStopped(t, o, "secret")
}

// TestWrongPassphrase is an owner who registered another passphrase than the disk's.
func TestWrongPassphrase(t *testing.T) {
	s := theStage(t)
	other := lab.Image{Name: "wrong-passphrase", Dir: s.Path("wrong-passphrase")}
	if err := os.Mkdir(other.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	copyFile(t, s.image.Record(), other.Record())
	if err := os.WriteFile(other.Passphrase(), []byte(strings.Repeat("0", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Register(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	o := s.launch(t, lab.Machine{Image: other, Firmware: s.image.Firmware(), Disk: s.image.Disk()})
	s.wantDecision(t, "release", "", "")
	s.wantStopped(t, o, "passphrase")
}

// TestOtherDisk is a host that attaches the disk of another image.
func TestOtherDisk(t *testing.T) {
	s := theStage(t)
	other, _, err := s.Build(t.Context(), "other", s.rootfs(), "512M")
	if err != nil {
		t.Fatal(err)
	}
	o := s.launch(t, lab.Machine{Disk: other.Disk()})
	s.wantStopped(t, o, "disk")
}

// TestTruncatedDisk is a disk whose end is missing, once the image file's and once the disk's own.
func TestTruncatedDisk(t *testing.T) {
	s := theStage(t)
	t.Run("image file", func(t *testing.T) {
		disk := s.Path("truncated.qcow2")
		copyFile(t, s.image.Disk(), disk)
		truncate(t, disk, 2)
		o := s.launch(t, lab.Machine{Disk: disk})
		s.wantStopped(t, o, "no disk")
	})
	t.Run("disk", func(t *testing.T) {
		disk := s.Path("truncated.raw")
		s.toRaw(t, s.image.Disk(), disk)
		truncate(t, disk, 2)
		o := s.launch(t, lab.Machine{Disk: s.toQCOW2(t, disk)})
		s.wantStopped(t, o, "")
	})
}

func (s *stage) decisions(t *testing.T) []lab.Decision {
	t.Helper()
	rows, err := s.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// wrapper makes a program that runs qemu-sev after editing its arguments with sed: a host that does
// not do what launch told it to.
func (s *stage) wrapper(t *testing.T, edit string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	script := fmt.Sprintf(`#!/bin/bash
args=()
for a in "$@"; do args+=("$(printf '%%s' "$a" | sed '%s')"); done
exec %s "${args[@]}"
`, edit, filepath.Join(s.Bin, "qemu-sev"))
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// truncate cuts a file to a part of its length.
func truncate(t *testing.T, path string, part int64) {
	t.Helper()
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()/part)
	}
	if err != nil {
		t.Fatal(err)
	}
}
