package ovmf

import (
	"os"
	"slices"
	"testing"
)

// microvmBuilds are where distributions put edk2's build for QEMU's microvm: Fedora, Arch, QEMU's own installation. No package of
// Debian or Ubuntu has one: measure/testdata/measure-microvm.json says how one is built from their sources.
var microvmBuilds = []string{
	os.Getenv("SEALBOOT_MICROVM"), "/usr/share/edk2/ovmf/MICROVM.fd", "/usr/share/edk2/x64/MICROVM.4m.fd",
	"/usr/share/qemu/edk2-x86_64-microvm.fd", "/usr/local/share/qemu/edk2-x86_64-microvm.fd",
}

// unfitFor gives the names of the checks that a firmware fails, each once.
func unfitFor(r *LintReport) (names []string) {
	for _, f := range r.Findings {
		if f.Level == Unfit && !slices.Contains(names, f.Check) {
			names = append(names, f.Check)
		}
	}
	return names
}

// TestMicrovmTail reads the tables of a build for microvm, whose metadata has sections of no bytes.
func TestMicrovmTail(t *testing.T) {
	tail, err := os.ReadFile("../measure/testdata/microvm-4k.fd")
	if err != nil {
		t.Fatal(err)
	}
	img, err := Parse(tail)
	if err != nil {
		t.Fatal(err)
	}
	if eip, ok := img.ResetEIP(); !ok || eip != 0x80b004 || len(img.Metadata()) != 5 {
		t.Errorf("reset vector %#x, %d sections", eip, len(img.Metadata()))
	}
	for name, of := range map[string]func() (Area, bool){"secret": img.SecretArea, "hashes": img.HashesArea} {
		if a, ok := of(); ok {
			t.Errorf("%s area %+v", name, a)
		}
	}
	if names := unfitFor(Lint(tail, LintOptions{})); !slices.Contains(names, "secret-area") || !slices.Contains(names, "snp-metadata") {
		t.Errorf("unfit for %q", names)
	}
}

// TestMicrovm looks at a whole one.
func TestMicrovm(t *testing.T) {
	var firmware []byte
	for _, name := range microvmBuilds {
		if name != "" && firmware == nil {
			firmware, _ = os.ReadFile(name)
		}
	}
	if firmware == nil {
		t.Skip("no build for microvm on this machine (SEALBOOT_MICROVM names one)")
	}
	r := Lint(firmware, LintOptions{})
	names := unfitFor(r)
	for _, want := range []string{"secret-area", "boot-manager", "kernel-loader", "grub"} {
		if !slices.Contains(names, want) {
			t.Errorf("not unfit for %s: %q", want, names)
		}
	}
	if r.Fit || slices.Contains(names, "malformed") {
		t.Errorf("fit %v, unfit for %q", r.Fit, names)
	}
	report, err := Inspect(firmware)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Volumes) == 0 || len(report.Problems) == 0 {
		t.Errorf("%d volumes, problems %q", len(report.Volumes), report.Problems)
	}
}
