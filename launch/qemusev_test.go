package launch

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/e2e/psp"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// With this set, the test's own program is qemu-sev with the platform in that folder.
const standIn = "SEALBOOT_TEST_QEMU_SEV"

func playStandIn(folder string, args []string) int {
	platform, err := psp.OpenPlatform(folder, rand.Reader)
	if err != nil {
		return 1
	}
	return psp.Run(context.Background(), psp.Config{
		Name: "qemu-sev", QEMU: "qemu-system-x86_64", Platform: platform, Random: rand.Reader,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}, args)
}

// owner is a key server with nothing but the cryptography: it releases for one digest.
type owner struct {
	digest   sev.Digest
	session  *sev.Session
	released bool
}

func (o *owner) Session(_ context.Context, r wire.SessionRequest) (wire.Session, error) {
	chain, err := sev.ParseChain(r.PDH, r.CertChain, r.CA)
	if err != nil {
		return wire.Session{}, err
	}
	session, start, err := sev.NewSession(chain.PDH, testPolicy, rand.Reader)
	if err != nil {
		return wire.Session{}, err
	}
	o.session = session
	return wire.Session{ID: strings.Repeat("a", 32), Policy: testPolicy, DHCert: start.GODH[:], Blob: start.Session[:]}, nil
}

func (o *owner) Measurement(_ context.Context, _ string, r wire.MeasurementRequest) (wire.Packet, error) {
	m, err := sev.ParseMeasurement(r.Measurement)
	if err != nil {
		return wire.Packet{}, err
	}
	if err := o.session.VerifyMeasurement(m, sev.API{Major: r.APIMajor, Minor: r.APIMinor, Build: r.Build}, o.digest); err != nil {
		return wire.Packet{}, &client.Refused{Class: wire.Refused}
	}
	packet, err := o.session.SealSecret(make([]byte, 64), m, rand.Reader)
	o.released = err == nil
	return wire.Packet{Header: packet.Header[:], Secret: packet.Secret}, err
}

// TestStandIn launches a real QEMU behind qemu-sev: once with the firmware that the owner knows, once with
// a byte of it changed.
func TestStandIn(t *testing.T) {
	testtool.Program(t, "qemu-system-x86_64")
	firmware, err := os.ReadFile(testtool.AmdSevFirmware(t))
	if err != nil {
		t.Fatal(err)
	}
	digest, err := measure.Digest(measure.Spec{Mode: measure.SEV, Firmware: firmware})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, "")
	t.Setenv(fakeQEMU, "")
	folder := t.TempDir()
	t.Setenv(standIn, folder)
	platform, err := psp.OpenPlatform(folder, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b.spec.CA = platform.Chain.EncodeCA()
	b.spec.Memory, b.spec.DiskFormat, b.spec.CPUs = "128M", "raw", 1
	if err := os.WriteFile(b.spec.Disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(t *testing.T, o *owner, firmware []byte) ([]Stage, error) {
		b.spec.Firmware = filepath.Join(b.dir, "firmware.fd")
		if err := os.WriteFile(b.spec.Firmware, firmware, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var stages []Stage
		err := Launcher{Server: o, Stdout: &b.stdout, Now: time.Now, Done: func(s Stage, _ time.Duration, err error) {
			if err == nil {
				stages = append(stages, s)
			}
			if s == Inject { // it runs: that is all that is wanted of it
				cancel()
			}
		}}.Run(ctx, b.spec)
		noneLeft(t, b.dir)
		return stages, err
	}
	good := &owner{digest: sev.Digest(digest)}
	stages, err := run(t, good, firmware)
	if !errors.Is(err, context.Canceled) || !good.released || len(stages) != 6 {
		t.Fatalf("the good machine: stages %v, error %v", stages, err)
	}
	changed := bytes.Clone(firmware)
	changed[0x1000] ^= 1
	bad := &owner{digest: sev.Digest(digest)}
	stages, err = run(t, bad, changed)
	if !errors.Is(err, ErrRefused) || bad.released || len(stages) != 4 || stages[3] != Measure {
		t.Errorf("the changed machine: stages %v, error %v", stages, err)
	}
}

// noneLeft looks for processes whose command line names the folder, and for temporary files.
func noneLeft(t *testing.T, dir string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(lines) == 0 {
		t.Fatalf("no processes can be listed: %v", err)
	}
	for _, name := range lines {
		if line, _ := os.ReadFile(name); bytes.Contains(line, []byte(dir)) {
			t.Errorf("%s is left: %q", name, line)
		}
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) != 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}
