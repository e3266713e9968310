package psp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/qmp"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

const ownerPolicy = sev.NoDebug | sev.NoKeySharing | sev.NoSend

var newPlatform = sync.OnceValues(func() (*sev.Platform, error) { return sev.NewPlatform(rand.Reader, firmwareAPI) })

// bench is a machine under test: how it is started, and what its owner knows.
type bench struct {
	t        *testing.T
	platform *sev.Platform
	session  *sev.Session
	dh, blob string // files
	firmware string
	policy   sev.Policy // said to QEMU
	args     []string   // beside the usual
}

func newBench(t *testing.T, policy sev.Policy) *bench {
	t.Helper()
	platform, err := newPlatform()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, platform: platform, policy: policy, firmware: testtool.AmdSevFirmware(t)}
	session, start, err := sev.NewSession(platform.Chain.PDH, policy, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b.session = session
	dir := t.TempDir()
	b.dh, b.blob = filepath.Join(dir, "dh"), filepath.Join(dir, "session")
	for name, data := range map[string][]byte{b.dh: start.GODH[:], b.blob: start.Session[:]} {
		if err := os.WriteFile(name, []byte(base64.StdEncoding.EncodeToString(data)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// running is a stand-in under way.
type running struct {
	t      *testing.T
	client *qmp.Client
	status chan int
	stderr *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (b *bench) commandLine() []string {
	return append([]string{
		"-machine", "q35,confidential-guest-support=sev0", "-accel", "kvm", "-cpu", "EPYC-v4", "-m", "256M",
		"-object", fmt.Sprintf("sev-guest,id=sev0,policy=%#x,cbitpos=51,reduced-phys-bits=1,dh-cert-file=%s,session-file=%s", uint32(b.policy), b.dh, b.blob),
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + b.firmware,
		"-display", "none", "-nodefaults", "-vga", "none", "-net", "none",
	}, b.args...)
}

// start runs the machine, with a monitor.
func (b *bench) start(args ...string) *running {
	b.t.Helper()
	r, err := b.try(args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bench) try(args ...string) (*running, error) {
	b.t.Helper()
	return b.tryLine(append(b.commandLine(), args...))
}

// startArgs runs a machine with these arguments alone, and a monitor.
func startArgs(t *testing.T, b *bench, args []string) *running {
	t.Helper()
	own := *b
	own.t = t
	r, err := own.tryLine(args)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (b *bench) tryLine(args []string) (*running, error) {
	b.t.Helper()
	qemu := testtool.Program(b.t, "qemu-system-x86_64")
	socket := filepath.Join(b.t.TempDir(), "qmp")
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{t: b.t, status: make(chan int, 1), stderr: &safeBuffer{}}
	ended := make(chan struct{})
	go func() {
		r.status <- Run(ctx, Config{
			Name: "qemu-sev", QEMU: qemu, Platform: b.platform, Random: rand.Reader,
			Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: r.stderr,
		}, append(args, "-qmp", "unix:"+socket+",server=on,wait=off"))
		close(ended)
		cancel()
	}()
	b.t.Cleanup(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			b.t.Error("the stand-in did not end within 20 s")
		}
		if _, err := os.Lstat(socket); err == nil {
			b.t.Errorf("%s is left", socket)
		}
	})
	dial, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	var err error
	if r.client, err = qmp.Dial(dial, "unix", socket); err != nil {
		select {
		case status := <-r.status:
			return r, fmt.Errorf("status %d: %s", status, r.stderr)
		case <-time.After(10 * time.Second):
			return r, err
		}
	}
	return r, nil
}

func (r *running) execute(command string, args, result any) error {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	return r.client.Execute(ctx, command, args, result)
}

func (r *running) must(command string, args, result any) {
	r.t.Helper()
	if err := r.execute(command, args, result); err != nil {
		r.t.Fatalf("%v\n%s", err, r.stderr)
	}
}

// refused expects QEMU's words.
func (r *running) refused(want, command string, args any) {
	r.t.Helper()
	var refusal *qmp.Error
	if err := r.execute(command, args, nil); !errors.As(err, &refusal) || refusal.Class != qmp.GenericError || refusal.Desc != want {
		r.t.Errorf("%s: %v, want %q", command, err, want)
	}
}

func (r *running) measurement() sev.Measurement {
	r.t.Helper()
	var answer struct{ Data string }
	r.must("query-sev-launch-measure", nil, &answer)
	raw, err := base64.StdEncoding.DecodeString(answer.Data)
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := sev.ParseMeasurement(raw)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *running) state() string {
	r.t.Helper()
	var info struct{ State string }
	r.must("query-sev", nil, &info)
	return info.State
}

// memory reads guest memory the way anybody can.
func (r *running) memory(address uint64, size int) []byte {
	r.t.Helper()
	name := filepath.Join(r.t.TempDir(), "memory")
	r.must("pmemsave", map[string]any{"val": address, "size": size, "filename": name}, nil)
	data, err := os.ReadFile(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return data
}

func (r *running) quit() int {
	r.t.Helper()
	r.must("quit", nil, nil)
	select {
	case status := <-r.status:
		return status
	case <-time.After(20 * time.Second):
		r.t.Fatal("no end within 20 s of quit")
		return -1
	}
}

func (b *bench) digest(spec measure.Spec) sev.Digest {
	b.t.Helper()
	var err error
	if spec.Firmware, err = os.ReadFile(b.firmware); err != nil {
		b.t.Fatal(err)
	}
	sum, err := measure.Digest(spec)
	if err != nil {
		b.t.Fatal(err)
	}
	return sev.Digest(sum)
}

func (b *bench) secretArea() ovmf.Area {
	b.t.Helper()
	data, err := os.ReadFile(b.firmware)
	if err != nil {
		b.t.Fatal(err)
	}
	image, err := ovmf.Parse(data)
	if err != nil {
		b.t.Fatal(err)
	}
	area, ok := image.SecretArea()
	if !ok {
		b.t.Fatal("no secret area")
	}
	return area
}

func packetArguments(p sev.Packet) map[string]any {
	encode := base64.StdEncoding.EncodeToString
	return map[string]any{"packet-header": encode(p.Header[:]), "secret": encode(p.Secret)}
}

// TestLaunch is a whole launch: session, measurement, secret into the guest's memory, start.
func TestLaunch(t *testing.T) {
	b := newBench(t, ownerPolicy)
	r := b.start("-S")

	var info struct {
		Enabled  bool
		APIMajor int `json:"api-major"`
		APIMinor int `json:"api-minor"`
		BuildID  int `json:"build-id"`
		Policy   uint32
		State    string
		Handle   int
	}
	r.must("query-sev", nil, &info)
	if !info.Enabled || info.Policy != uint32(ownerPolicy) || info.State != "launch-secret" || info.Handle != 1 ||
		info.APIMajor != 1 || info.APIMinor != 55 || info.BuildID != 21 {
		t.Errorf("query-sev gives %+v", info)
	}
	m := r.measurement()
	digest := b.digest(measure.Spec{Mode: measure.SEV})
	if err := b.session.VerifyMeasurement(m, b.platform.API, digest); err != nil {
		t.Fatal(err)
	}
	area := b.secretArea()
	table, err := sev.SecretTable{
		{GUID: sev.DiskPassphrase, Data: []byte("a passphrase of odd length.")}, {GUID: sev.HeaderPin, Data: make([]byte, 32)},
	}.Encode(int(area.Size))
	if err != nil {
		t.Fatal(err)
	}
	packet, err := b.session.SealSecret(table, m, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	before := r.memory(uint64(area.Base), int(area.Size))
	good := packetArguments(packet)

	// Each refusal, before the good one: none may change the guest's memory.
	spoilt := packet
	spoilt.Secret = bytes.Clone(packet.Secret)
	spoilt.Secret[7] ^= 1
	r.refused("SEV: failed to inject secret ret=-5 fw_error=11 'Bad measurement'", "sev-inject-launch-secret", packetArguments(spoilt))
	spoilt = packet
	spoilt.Header[5] ^= 1
	r.refused("SEV: failed to inject secret ret=-5 fw_error=11 'Bad measurement'", "sev-inject-launch-secret", packetArguments(spoilt))
	with := func(key string, value any) map[string]any {
		out := map[string]any{key: value}
		for k, v := range good {
			if k != key {
				out[k] = v
			}
		}
		return out
	}
	inject := "sev-inject-launch-secret"
	r.refused("SEV: failed to inject secret ret=-5 fw_error=4 'Buffer too small'", inject, with("packet-header", "AAAA"))
	r.refused("SEV: Failed to decode sequence header", inject, with("packet-header", ""))
	r.refused("SEV: Failed to decode sequence header", inject, with("packet-header", "?"))
	r.refused("SEV: Failed to decode data", inject, with("secret", ""))
	r.refused("SEV: Failed to calculate guest address: No memory is mapped at address 0x7000000000", inject, with("gpa", uint64(0x7000000000)))
	r.refused("SEV: Failed to calculate guest address: Memory at address 0xffc00000is not RAM", inject, with("gpa", uint64(0xffc00000)))
	r.refused("SEV: Failed to calculate guest address: Size of memory region at 0xffffff8 exceeded.", inject, with("gpa", uint64(0xffffff8)))
	r.refused("Parameter 'gpa' expects uint64", inject, with("gpa", "x"))
	r.refused("Parameter 'x' is unexpected", inject, with("x", 1))
	r.refused("Parameter 'secret' is missing", inject, map[string]any{"packet-header": "AAAA"})
	r.refused("Invalid parameter type for 'secret', expected: string", inject, with("secret", 1))
	r.refused("Parameter 'a' is unexpected", "query-sev", map[string]any{"a": 1})
	if !bytes.Equal(before, r.memory(uint64(area.Base), int(area.Size))) {
		t.Fatal("a refused secret changed the guest's memory")
	}

	r.must("sev-inject-launch-secret", good, nil)
	got := r.memory(uint64(area.Base), int(area.Size))
	if !bytes.Equal(got[:len(table)], table) {
		t.Fatalf("the secret area holds %x, want %x", got[:len(table)], table)
	}
	var words string
	r.must("human-monitor-command", map[string]any{"command-line": fmt.Sprintf("xp /4xb %#x", area.Base)}, &words)
	if want := fmt.Sprintf("0x%02x 0x%02x 0x%02x 0x%02x", table[0], table[1], table[2], table[3]); !strings.Contains(words, want) {
		t.Errorf("xp shows %q, want %q", words, want)
	}

	r.must("cont", nil, nil)
	if state := r.state(); state != "running" {
		t.Errorf("state after cont: %s", state)
	}
	r.refused("SEV: Not in correct state. (LSECRET) 3", inject, good)
	if again := r.measurement(); again != m {
		t.Error("the measurement is another after cont")
	}
	if status := r.quit(); status != 0 {
		t.Errorf("status %d: %s", status, r.stderr)
	}
}
