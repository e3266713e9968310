package psp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/qmp"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// TestLaunchStartRefuses: what KVM refuses, the stand-in refuses before QEMU runs, with KVM's words.
func TestLaunchStartRefuses(t *testing.T) {
	b := newBench(t, ownerPolicy)
	object := func(policy sev.Policy, more string) []string {
		return []string{"-object", fmt.Sprintf("sev-guest,id=sev0,policy=%d,%s", uint32(policy), more)}
	}
	files := ",dh-cert-file=" + b.dh + ",session-file=" + b.blob
	const host, kvm, machine = "cbitpos=51,reduced-phys-bits=1", "-accel kvm", "-machine q35,confidential-guest-support=sev0"
	other, err := sev.NewPlatform(rand.Reader, firmwareAPI)
	if err != nil {
		t.Fatal(err)
	}
	empty, garbage := filepath.Join(t.TempDir(), "empty"), filepath.Join(t.TempDir(), "garbage")
	for name, text := range map[string]string{empty: "", garbage: "no base64!"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const context0 = "\nqemu-sev: -accel kvm: sev_kvm_init: failed to create encryption context\n"
	for _, c := range []struct {
		name     string
		platform *sev.Platform
		args     []string
		want     string
	}{
		{"debug allowed", nil, object(ownerPolicy&^sev.NoDebug, host+files), "LAUNCH_START ret=1 fw_error=11 'Bad measurement'" + context0},
		{"ES added", nil, object(ownerPolicy|sev.ES, host+files), "LAUNCH_START ret=1 fw_error=11 'Bad measurement'" + context0},
		{"another platform", other, object(ownerPolicy, host+files), "LAUNCH_START ret=1 fw_error=11 'Bad measurement'" + context0},
		{"newer firmware wanted", nil, object(ownerPolicy.WithMinAPI(2, 0), host+files), "LAUNCH_START ret=1 fw_error=7 'Policy is not allowed'" + context0},
		{"certificate as session", nil, object(ownerPolicy, host+",dh-cert-file="+b.dh+",session-file="+b.dh), "LAUNCH_START ret=1 fw_error=4 'Buffer too small'" + context0},
		{"session as certificate", nil, object(ownerPolicy, host+",dh-cert-file="+b.blob+",session-file="+b.blob), "LAUNCH_START ret=1 fw_error=6 'Certificate is invalid'" + context0},
		{"empty session", nil, object(ownerPolicy, host+",dh-cert-file="+b.dh+",session-file="+empty), "LAUNCH_START ret=1 fw_error=4 'Buffer too small'" + context0},
		{"no session", nil, object(ownerPolicy, host+",dh-cert-file="+b.dh), "LAUNCH_START ret=1 fw_error=4 'Buffer too small'" + context0},
		{"session that is no base64", nil, object(ownerPolicy, host+",dh-cert-file="+b.dh+",session-file="+garbage), "illegal base64"},
		{"missing file", nil, object(ownerPolicy, host+",dh-cert-file=/no/such,session-file="+b.blob), "no such file"},
		{"C bit", nil, object(ownerPolicy, "cbitpos=47,reduced-phys-bits=1"+files), "sev_kvm_init: cbitpos check failed, host '51' requested '47'"},
		{"physical bits", nil, object(ownerPolicy, "cbitpos=51"+files), "reduced_phys_bits check failed"},
		{"unknown property", nil, object(ownerPolicy, host+",polciy=1"), "Property 'sev-guest.polciy' not found"},
		{"policy too long", nil, []string{"-object", "sev-guest,id=sev0,policy=0x100000001"}, "Parameter 'policy' expects uint32"},
		{"no such object", nil, []string{"-object", "sev-guest,id=sev1"}, "no sev-guest object has that id"},
		{"SNP", nil, []string{"-object", "sev-snp-guest,id=sev0"}, "knows sev-guest only"},
		{"daemonize", nil, []string{"-daemonize"}, "stays with its QEMU"},
	} {
		t.Run(c.name, func(t *testing.T) {
			platform := b.platform
			if c.platform != nil {
				platform = c.platform
			}
			var stderr safeBuffer
			status := Run(t.Context(), Config{Name: "qemu-sev", QEMU: "/no/such/qemu", Platform: platform, Random: rand.Reader, Stdout: io.Discard, Stderr: &stderr},
				append(strings.Fields(machine+" "+kvm), c.args...))
			if status != 1 || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("status %d, %q, want %q", status, stderr.String(), c.want)
			}
		})
	}
	t.Run("without KVM", func(t *testing.T) {
		var stderr safeBuffer
		status := Run(t.Context(), Config{Name: "qemu-sev", QEMU: "/no/such/qemu", Platform: b.platform, Random: rand.Reader, Stdout: io.Discard, Stderr: &stderr},
			append(strings.Fields(machine), object(ownerPolicy, host+files)...))
		if want := "accelerator does not support confidential guest sev-guest"; status != 1 || !strings.Contains(stderr.String(), want) {
			t.Errorf("status %d, %q", status, stderr.String())
		}
	})
}

// TestChangedFirmware: what is measured is the firmware that runs.
func TestChangedFirmware(t *testing.T) {
	b := newBench(t, ownerPolicy)
	good := b.digest(measure.Spec{Mode: measure.SEV})
	data, err := os.ReadFile(b.firmware)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	b.firmware = filepath.Join(t.TempDir(), "changed.fd")
	if err := os.WriteFile(b.firmware, data, 0o600); err != nil {
		t.Fatal(err)
	}
	m := b.start("-S").measurement()
	if err := b.session.VerifyMeasurement(m, b.platform.API, good); !errors.Is(err, sev.ErrMeasurement) {
		t.Errorf("the good digest: %v", err)
	}
	if err := b.session.VerifyMeasurement(m, b.platform.API, b.digest(measure.Spec{Mode: measure.SEV})); err != nil {
		t.Errorf("the changed one's digest: %v", err)
	}
}

// TestFirmwareForms: firmware counts however QEMU is given it.
func TestFirmwareForms(t *testing.T) {
	b := newBench(t, ownerPolicy)
	digest := b.digest(measure.Spec{Mode: measure.SEV})
	forms := map[string][]string{
		"bios":     {"-bios", b.firmware},
		"blockdev": {"-blockdev", "driver=file,node-name=fw,read-only=on,filename=" + b.firmware, "-machine", "pflash0=fw"},
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			b := *b
			b.t = t
			line := b.commandLine()
			drive := slices.Index(line, "-drive")
			if drive < 0 {
				t.Fatal("no -drive to replace")
			}
			b.firmware = ""
			r := startArgs(t, &b, append(slices.Delete(line, drive, drive+2), append(form, "-S")...))
			if err := b.session.VerifyMeasurement(r.measurement(), b.platform.API, digest); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestES: the vCPUs' state is measured too, as many as there are.
func TestES(t *testing.T) {
	b := newBench(t, ownerPolicy|sev.ES)
	b.args = []string{"-smp", "2"}
	r := b.start("-S")
	m := r.measurement()
	spec := measure.Spec{Mode: measure.SEVES, VCPUs: 2, VCPUType: "EPYC-v4"}
	if err := b.session.VerifyMeasurement(m, b.platform.API, b.digest(spec)); err != nil {
		t.Error(err)
	}
	spec.VCPUs = 1
	if err := b.session.VerifyMeasurement(m, b.platform.API, b.digest(spec)); !errors.Is(err, sev.ErrMeasurement) {
		t.Errorf("one vCPU: %v", err)
	}
	if err := b.session.VerifyMeasurement(m, b.platform.API, b.digest(measure.Spec{Mode: measure.SEV})); !errors.Is(err, sev.ErrMeasurement) {
		t.Errorf("SEV's digest: %v", err)
	}
}

// TestMonitors: every form of monitor, all at once, on a machine with the user's own memory object.
func TestMonitors(t *testing.T) {
	b := newBench(t, ownerPolicy)
	dir := t.TempDir()
	// A comma in a name is written twice.
	named := filepath.Join(dir, "a,b")
	b.args = []string{
		"-object", "memory-backend-memfd,id=ram1,size=256M,share=on", "-machine", "memory-backend=ram1",
		"-chardev", "socket,id=mon1,path=" + strings.ReplaceAll(named, ",", ",,") + ",server=on,wait=off", "-mon", "chardev=mon1,mode=control",
	}
	r := b.start("-S")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var resumes int
	for round := range 2 { // a second client is greeted like the first
		second, err := qmp.Dial(ctx, "unix", named)
		if err != nil {
			t.Fatal(err)
		}
		var info struct{ State string }
		if err := second.Execute(ctx, "query-sev", nil, &info); err != nil || info.State != "launch-secret" && round == 0 {
			t.Errorf("round %d: state %q, %v", round, info.State, err)
		}
		if round == 1 {
			// The monitor for people starts it; both clients hear of it.
			var text string
			if err := second.Execute(ctx, "human-monitor-command", map[string]string{"command-line": "cont"}, &text); err != nil || text != "" {
				t.Errorf("cont: %q, %v", text, err)
			}
			for _, client := range []*qmp.Client{r.client, second} {
				if waitEvent(ctx, client, "RESUME") {
					resumes++
				}
			}
		}
		second.Close()
	}
	if resumes != 2 {
		t.Errorf("RESUME was heard %d times", resumes)
	}
	for r.state() != "running" { // the deadline of execute ends this
		time.Sleep(5 * time.Millisecond)
	}
	var refused *qmp.Error
	if err := r.execute("no-such-command", nil, nil); !errors.As(err, &refused) || refused.Class != qmp.CommandNotFound {
		t.Errorf("an unknown command: %v", err)
	}
	var memory struct {
		Base uint64 `json:"base-memory"`
	}
	if r.must("query-memory-size-summary", nil, &memory); memory.Base != 256<<20 {
		t.Errorf("%d bytes of memory", memory.Base)
	}
	r.refused("SEV: Failed to query the attestation report length ret=-5 fw_err=21 (Feature not supported)", "query-sev-attestation-report", map[string]any{"mnonce": "x"})
}

func waitEvent(ctx context.Context, c *qmp.Client, name string) bool {
	for {
		select {
		case e, ok := <-c.Events():
			if e.Name == name {
				return true
			}
			if !ok {
				return false
			}
		case <-ctx.Done():
			return false
		}
	}
}

// TestRunsAtOnce: without -S the launch ends before anybody could inject.
func TestRunsAtOnce(t *testing.T) {
	b := newBench(t, ownerPolicy)
	r := b.start()
	for deadline := time.Now().Add(10 * time.Second); r.state() != "running"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not running within 10 s")
		}
	}
	r.measurement()
	r.refused("SEV: Not in correct state. (LSECRET) 3", "sev-inject-launch-secret", map[string]any{"packet-header": "AAAA", "secret": "AAAA"})
}

// TestSecretElsewhere: gpa says where.
func TestSecretElsewhere(t *testing.T) {
	b := newBench(t, ownerPolicy)
	loaded := filepath.Join(t.TempDir(), "loaded")
	if err := os.WriteFile(loaded, []byte("by QEMU's loader"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Memory below and above the hole under 4 GiB; QEMU itself writes to it too.
	b.args = []string{"-m", "4G", "-device", "loader,addr=0xa00000,force-raw=on,file=" + loaded}
	r := b.start("-S")
	if got := r.memory(0xa00000, 16); string(got) != "by QEMU's loader" {
		t.Errorf("the loader's memory holds %q", got)
	}
	m := r.measurement()
	for _, address := range []uint64{0x900000, 1 << 32, 1<<32 + 1<<30} {
		packet, err := b.session.SealSecret([]byte("sixteen bytes ok"), m, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		args := packetArguments(packet)
		args["gpa"] = address
		r.must("sev-inject-launch-secret", args, nil)
		if got := r.memory(address, 16); string(got) != "sixteen bytes ok" {
			t.Errorf("memory at %#x holds %q", address, got)
		}
	}
}

// TestNoGuest: capabilities are to be had from a QEMU that was only started to ask.
func TestNoGuest(t *testing.T) {
	b := newBench(t, ownerPolicy)
	ask := strings.Fields("-machine none -nodefaults -no-user-config -display none -S")
	r := startArgs(t, b, append(ask, "-accel", "kvm"))
	var capabilities struct {
		PDH       []byte
		CertChain []byte `json:"cert-chain"`
		CPU0      []byte `json:"cpu0-id"`
		CBit      int    `json:"cbitpos"`
		Reduced   int    `json:"reduced-phys-bits"`
	}
	r.must("query-sev-capabilities", nil, &capabilities)
	chain, err := sev.ParseChain(capabilities.PDH, capabilities.CertChain, b.platform.Chain.EncodeCA())
	if err != nil {
		t.Fatal(err)
	}
	root, err := b.platform.Chain.ARK.KeyDigest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Verify(sev.RootSet{}.With("own", root)); err != nil || capabilities.CBit != 51 || capabilities.Reduced != 1 || len(capabilities.CPU0) != 64 {
		t.Errorf("%v, %+v", err, capabilities)
	}
	r.refused("SEV launch measurement is not available", "query-sev-launch-measure", nil)
	r.refused("SEV not enabled for guest", "sev-inject-launch-secret", map[string]any{"packet-header": "", "secret": ""})
	r.refused("Parameter 'a' is unexpected", "query-sev-capabilities", map[string]any{"a": 1})
	var info struct{ Enabled bool }
	if r.must("query-sev", nil, &info); info.Enabled {
		t.Error("a guest is enabled")
	}
	if status := r.quit(); status != 0 {
		t.Errorf("status %d", status)
	}
	r = startArgs(t, b, ask)
	r.refused("KVM not enabled", "query-sev-capabilities", nil)
}

// TestQEMUFails: a command line that QEMU refuses is refused with its words and status.
func TestQEMUFails(t *testing.T) {
	b := newBench(t, ownerPolicy)
	b.args = []string{"-device", "no-such-device"}
	if _, err := b.try("-S"); err == nil || !strings.Contains(err.Error(), "status 1") || !strings.Contains(err.Error(), "'no-such-device' is not a valid device model name") {
		t.Errorf("gives %v", err)
	}
	var out, errs safeBuffer
	qemu := testtool.Program(t, "qemu-system-x86_64")
	status := Run(t.Context(), Config{Name: "qemu-sev", QEMU: qemu, Platform: b.platform, Random: rand.Reader, Stdout: &out, Stderr: &errs}, []string{"--version"})
	if status != 0 || !strings.HasPrefix(out.String(), "QEMU emulator version") {
		t.Errorf("--version: %d, %q %q", status, out.String(), errs.String())
	}
}
