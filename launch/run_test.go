package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/qmp"

	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
)

const testPolicy = 0xb

var testMeasurement = bytes.Repeat([]byte{0x5e}, 48)

// testServer is a key server that answers as told.
type testServer struct {
	session, measurement error
	busy                 int // times that it is busy before it answers
	asked                []string
	request              wire.SessionRequest
	measured             wire.MeasurementRequest
}

func (s *testServer) Session(_ context.Context, r wire.SessionRequest) (wire.Session, error) {
	s.asked = append(s.asked, "session")
	s.request = r
	if s.busy > 0 {
		s.busy--
		return wire.Session{}, &client.Refused{Class: wire.Busy}
	}
	if s.session != nil {
		return wire.Session{}, s.session
	}
	return wire.Session{ID: strings.Repeat("a", 32), Policy: testPolicy, DHCert: []byte("owner's certificate"), Blob: []byte("session blob")}, nil
}

func (s *testServer) Measurement(_ context.Context, id string, r wire.MeasurementRequest) (wire.Packet, error) {
	s.asked = append(s.asked, "measurement of "+id)
	s.measured = r
	if s.measurement != nil {
		return wire.Packet{}, s.measurement
	}
	return wire.Packet{Header: []byte("packet header"), Secret: []byte("sealed secret")}, nil
}

// bench is a launch with a fake QEMU and key server.
type bench struct {
	dir    string
	server testServer
	spec   Spec
	stdout bytes.Buffer
	stages []Stage
}

func newBench(t *testing.T, fault string) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir()}
	t.Setenv(fakeQEMU, b.dir)
	t.Setenv("TMPDIR", t.TempDir())
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"fault": fault, "firmware.fd": "", "a,disk": ""} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.spec = Spec{
		Image: "web", QEMU: program, Firmware: filepath.Join(b.dir, "firmware.fd"), Disk: filepath.Join(b.dir, "a,disk"), DiskFormat: "qcow2",
		Memory: "1G", CPUs: 2, CPUModel: "EPYC-v4", CA: []byte("ASK ARK"), Serial: "stdio",
	}
	return b
}

func (b *bench) run(ctx context.Context) error {
	l := Launcher{Server: &b.server, Stdout: &b.stdout, Now: time.Now, Done: func(s Stage, _ time.Duration, err error) {
		if err == nil {
			b.stages = append(b.stages, s)
		}
	}}
	return l.Run(ctx, b.spec)
}

func (b *bench) read(name string) string {
	content, _ := os.ReadFile(filepath.Join(b.dir, name))
	return string(content)
}

// checkGone says whether every QEMU of the launch has ended and nothing of the session is left.
func (b *bench) checkGone(t *testing.T) {
	t.Helper()
	for _, role := range []string{"probe", "guest"} {
		pid, err := strconv.Atoi(b.read(role + ".pid"))
		if err != nil {
			continue // was never started
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("the %s (process %d) is still there: %v", role, pid, err)
		}
	}
	left, err := os.ReadDir(os.TempDir())
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

func TestLaunch(t *testing.T) {
	b := newBench(t, "")
	b.server.busy = 1
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.checkGone(t)
	if got := b.stdout.String(); got != "console of the guest\n" {
		t.Errorf("standard output %q", got)
	}
	if want := []Stage{Platform, Session, Start, Measure, Release, Inject, Guest}; !slices.Equal(b.stages, want) {
		t.Errorf("stages %v", b.stages)
	}
	if want := []string{"session", "session", "measurement of " + strings.Repeat("a", 32)}; !slices.Equal(b.server.asked, want) {
		t.Errorf("the key server was asked %v", b.server.asked)
	}
	r := b.server.request
	if r.Image != "web" || !bytes.Equal(r.PDH, testPDH) || !bytes.Equal(r.CertChain, testChain) || string(r.CA) != "ASK ARK" {
		t.Errorf("session request %+v", r)
	}
	if m := b.server.measured; !bytes.Equal(m.Measurement, testMeasurement) || m.APIMajor != 1 || m.APIMinor != 55 || m.Build != 21 {
		t.Errorf("measurement request %+v", m)
	}
	const commands = "query-sev-capabilities \nquit \nquery-sev \nquery-sev-launch-measure \n" +
		`sev-inject-launch-secret {"packet-header":"cGFja2V0IGhlYWRlcg==","secret":"c2VhbGVkIHNlY3JldA=="}` + "\ncont \n"
	if got := strings.TrimSuffix(b.read("commands"), "quit \n"); got != commands {
		t.Errorf("commands to QEMU:\n%swant:\n%s", got, commands)
	}
	if got := b.read("dh-cert-file") + " | " + b.read("session-file"); got !=
		"drwx------ -rw------- "+encode([]byte("owner's certificate"))+" | drwx------ -rw------- "+encode([]byte("session blob")) {
		t.Errorf("session files: %s", got)
	}
	args := b.read("guest.args")
	for _, want := range []string{
		"-machine\nq35,confidential-guest-support=sev0\n", "-accel\nkvm\n", "-cpu\nEPYC-v4\n", "-smp\n2\n", "-m\n1G\n", "-S\n", "-no-reboot\n",
		"-object\nsev-guest,id=sev0,policy=0xb,cbitpos=51,reduced-phys-bits=1,dh-cert-file=",
		"if=pflash,unit=0,format=raw,readonly=on,file=" + b.spec.Firmware + "\n",
		"format=qcow2,file=" + filepath.Join(b.dir, "a,,disk") + "\n", "disable-legacy=on,iommu_platform=on",
	} {
		if !strings.Contains(args+"\n", want) {
			t.Errorf("the command line has no %q:\n%s", want, args)
		}
	}
}

func TestOwnCertChain(t *testing.T) {
	b := newBench(t, "")
	b.spec.CertChain = []byte("with AMD's signature")
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if string(b.server.request.CertChain) != "with AMD's signature" {
		t.Errorf("the session request has the chain %q", b.server.request.CertChain)
	}
}

// TestEveryFailure: whatever goes wrong, no QEMU and no file stays, and no secret and no "cont" reach a guest
// that is not to have them.
func TestEveryFailure(t *testing.T) {
	lost := errors.New("connection reset")
	for _, c := range []struct {
		name      string
		fault     string
		spoil     func(*bench)
		want      error // nil: any error
		notWant   error
		text      string
		lastStage Stage
	}{
		{name: "no SEV", fault: noSEV, want: ErrNoSEV},
		{name: "no QEMU", spoil: func(b *bench) { b.spec.QEMU = "sealboot-no-such-qemu" }, text: "executable file not found"},
		{name: "no disk", spoil: func(b *bench) { b.spec.Disk += "x" }, want: os.ErrNotExist},
		{name: "platform refused", spoil: func(b *bench) { b.server.session = &client.Refused{Class: wire.UntrustedPlatform} }, want: ErrRefused, lastStage: Platform},
		{name: "server gone", spoil: func(b *bench) { b.server.session = lost }, want: lost, notWant: ErrRefused, lastStage: Platform},
		{name: "policy refused by the processor", fault: diesAtStart, text: "Policy is not allowed", lastStage: Session},
		{name: "other policy", fault: otherPolicy, want: ErrPlatform, lastStage: Start},
		{name: "no measurement", fault: noMeasurement, text: "not available", lastStage: Start},
		{name: "QEMU dies when measured", fault: diesAtMeasure, text: "exit status 1", lastStage: Start},
		{name: "measurement refused", spoil: func(b *bench) { b.server.measurement = &client.Refused{Class: wire.Refused} }, want: ErrRefused, lastStage: Measure},
		{name: "measurement replayed", spoil: func(b *bench) { b.server.measurement = &client.Refused{Class: wire.Used} }, want: ErrRefused, lastStage: Measure},
		{name: "session expired", spoil: func(b *bench) { b.server.measurement = &client.Refused{Class: wire.Expired} }, want: ErrRefused, lastStage: Measure},
		{name: "server's own trouble", spoil: func(b *bench) { b.server.measurement = &client.Refused{Class: wire.Internal} }, text: "failed", notWant: ErrRefused, lastStage: Measure},
		{name: "secret not taken", fault: noInjection, text: "Failed to inject", lastStage: Release},
		{name: "guest restarts", fault: restarts, want: ErrRestart, lastStage: Inject},
		{name: "guest fails", fault: failsRunning, text: "exit status 3", lastStage: Inject},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.fault)
			if c.spoil != nil {
				c.spoil(b)
			}
			err := b.run(t.Context())
			if err == nil || c.want != nil && !errors.Is(err, c.want) || c.notWant != nil && errors.Is(err, c.notWant) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want %v with %q", err, c.want, c.text)
			}
			b.checkGone(t)
			if last := append([]Stage{""}, b.stages...)[len(b.stages)]; last != c.lastStage {
				t.Errorf("last good stage %q, want %q", last, c.lastStage)
			}
			commands := b.read("commands")
			if slices.Index(b.stages, Release) < 0 && strings.Contains(commands, "inject") || slices.Index(b.stages, Inject) < 0 && strings.Contains(commands, "cont ") {
				t.Errorf("commands to QEMU:\n%s", commands)
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	for _, fault := range []string{silent, runsOn} {
		t.Run(fault, func(t *testing.T) {
			b := newBench(t, fault)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				for b.read("guest.pid") == "" || fault == runsOn && !strings.Contains(b.read("commands"), "cont ") {
					time.Sleep(10 * time.Millisecond)
				}
				cancel()
			}()
			if err := b.run(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			b.checkGone(t)
		})
	}
}

func TestValidate(t *testing.T) {
	good := newBench(t, "").spec
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Spec){
		"image": func(s *Spec) { s.Image = "../x" }, "memory": func(s *Spec) { s.Memory = "1G,slots=4" }, "cpus": func(s *Spec) { s.CPUs = 0 },
		"format": func(s *Spec) { s.DiskFormat = "" }, "ca": func(s *Spec) { s.CA = nil }, "serial": func(s *Spec) { s.Serial = "" },
	} {
		s := good
		spoil(&s)
		if err := s.Validate(); !errors.Is(err, ErrSpec) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if err := (Spec{}).Validate(); strings.Count(err.Error(), "\n") < 5 {
		t.Errorf("an empty Spec gives only: %v", err)
	}
}

// TestAnswers takes QEMUs whose answers about SEV make no sense.
func TestAnswers(t *testing.T) {
	for name, answer := range map[string]map[string]any{
		"good":         {"pdh": "QQ==", "cert-chain": "QQ==", "cbitpos": 47, "reduced-phys-bits": 5},
		"no PDH":       {"cert-chain": "QQ==", "cbitpos": 47, "reduced-phys-bits": 5},
		"not base64":   {"pdh": "?", "cert-chain": "QQ==", "cbitpos": 47, "reduced-phys-bits": 5},
		"C-bit 64":     {"pdh": "QQ==", "cert-chain": "QQ==", "cbitpos": 64, "reduced-phys-bits": 5},
		"C-bit absent": {"pdh": "QQ==", "cert-chain": "QQ==", "reduced-phys-bits": 5},
		"reduced -1":   {"pdh": "QQ==", "cert-chain": "QQ==", "cbitpos": 47, "reduced-phys-bits": -1},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := capabilities(t.Context(), peer(t, answer))
			if name == "good" {
				if err != nil || p.cBit != 47 || p.reducedBits != 5 {
					t.Errorf("got %+v, %v", p, err)
				}
			} else if !errors.Is(err, ErrPlatform) || p != nil {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
}

// peer is a client of a QMP server in this process that answers everything alike.
func peer(t *testing.T, answer any) *qmp.Client {
	t.Helper()
	here, there := net.Pipe()
	server := &qmp.Server{Handle: func(context.Context, string, json.RawMessage) (any, error) { return answer, nil }}
	go server.Serve(t.Context(), there)
	q, err := qmp.Config{}.New(t.Context(), here)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}
