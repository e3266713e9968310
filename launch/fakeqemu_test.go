package launch

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/qmp"
)

// The test's own program plays QEMU when this is set, and writes down what was asked of it in
// the folder that the variable names. The file "fault" there says what goes wrong.
const fakeQEMU = "SEALBOOT_TEST_FAKE_QEMU"

func TestMain(m *testing.M) {
	if dir := os.Getenv(fakeQEMU); dir != "" {
		os.Exit(playQEMU(dir, os.Args[1:]))
	}
	if folder := os.Getenv(standIn); folder != "" {
		os.Exit(playStandIn(folder, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// Faults of the fake.
const (
	noSEV         = "no SEV"
	diesAtStart   = "dies at start"
	diesAtMeasure = "dies when measured"
	silent        = "never opens its socket"
	otherPolicy   = "runs under another policy"
	noMeasurement = "has no measurement"
	noInjection   = "does not take the secret"
	runsOn        = "runs until it is ended"
	failsRunning  = "fails while it runs"
	restarts      = "restarts"
)

const quitStatus = 0

// fake is one run of the fake QEMU.
type fake struct {
	dir, fault string
	args       []string
	quit       chan int
	server     *qmp.Server
}

func playQEMU(dir string, args []string) int {
	if slices.Equal(args, []string{"--version"}) {
		fmt.Println("fake QEMU 1")
		return 0
	}
	fault, _ := os.ReadFile(filepath.Join(dir, "fault"))
	f := &fake{dir: dir, fault: string(fault), args: args, quit: make(chan int, 8)}
	probe := slices.Contains(args, "none") && !slices.Contains(args, "sev0") && f.option("-object") == ""
	role := "guest"
	if probe {
		role = "probe"
	}
	os.WriteFile(filepath.Join(dir, role+".pid"), []byte(fmt.Sprint(os.Getpid())), 0o600)
	os.WriteFile(filepath.Join(dir, role+".args"), []byte(strings.Join(args, "\n")), 0o600)
	if !probe {
		f.keepSessionFiles()
		if f.fault == diesAtStart {
			fmt.Fprintln(os.Stderr, "fake: sev_launch_start: LAUNCH_START ret=1 fw_error=7 'Policy is not allowed'")
			return 1
		}
		if f.fault == silent {
			time.Sleep(time.Minute)
		}
	}
	socket, _, _ := strings.Cut(strings.TrimPrefix(f.option("-qmp"), "unix:"), ",")
	l, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	conn, err := l.Accept()
	if err != nil {
		return 1
	}
	f.server = &qmp.Server{Handle: f.handle}
	go f.server.Serve(context.Background(), conn)
	status := <-f.quit
	time.Sleep(20 * time.Millisecond) // let the answer out
	return status
}

func (f *fake) option(name string) string {
	if i := slices.Index(f.args, name); i >= 0 && i+1 < len(f.args) {
		return f.args[i+1]
	}
	return ""
}

// keepSessionFiles notes what -object sev-guest was given, and who may read it.
func (f *fake) keepSessionFiles() {
	for option := range strings.SplitSeq(f.option("-object"), ",") {
		name, path, _ := strings.Cut(option, "=")
		if name == "dh-cert-file" || name == "session-file" {
			content, _ := os.ReadFile(path)
			info, _ := os.Stat(path)
			folder, _ := os.Stat(filepath.Dir(path))
			os.WriteFile(filepath.Join(f.dir, name), fmt.Appendf(nil, "%v %v %s", folder.Mode(), info.Mode(), content), 0o600)
		}
	}
}

var testPDH, testChain = []byte("the platform's PDH"), []byte("PEK OCA CEK")

func (f *fake) handle(_ context.Context, command string, args json.RawMessage) (any, error) {
	log, _ := os.OpenFile(filepath.Join(f.dir, "commands"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	fmt.Fprintf(log, "%s %s\n", command, args)
	log.Close()
	switch command {
	case "query-sev-capabilities":
		if f.fault == noSEV {
			return nil, qmp.Errorf("SEV is not enabled in KVM")
		}
		return map[string]any{"pdh": encode(testPDH), "cert-chain": encode(testChain), "cpu0-id": "", "cbitpos": 51, "reduced-phys-bits": 1}, nil
	case "query-sev":
		policy := testPolicy
		if f.fault == otherPolicy {
			policy = 0
		}
		return map[string]any{"enabled": true, "api-major": 1, "api-minor": 55, "build-id": 21, "policy": policy, "state": "launch-secret", "handle": 1}, nil
	case "query-sev-launch-measure":
		switch f.fault {
		case diesAtMeasure:
			os.Exit(1)
		case noMeasurement:
			return nil, qmp.Errorf("SEV launch measurement is not available")
		}
		return map[string]any{"data": encode(testMeasurement)}, nil
	case "sev-inject-launch-secret":
		if f.fault == noInjection {
			return nil, qmp.Errorf("SEV: Failed to inject secret (ret = -22)")
		}
	case "cont":
		fmt.Print("console of the guest\n")
		switch f.fault {
		case runsOn:
		case restarts:
			f.server.Emit(qmp.Event{Name: "SHUTDOWN", Data: json.RawMessage(`{"guest":true,"reason":"guest-reset"}`)})
			f.quit <- quitStatus
		case failsRunning:
			f.quit <- 3
		default:
			f.quit <- quitStatus
		}
	case "quit":
		f.quit <- quitStatus
	}
	return struct{}{}, nil
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
