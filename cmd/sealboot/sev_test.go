package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/e2e/psp"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/internal/qmp"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

// expectCode runs a command and expects its exit code.
func expectCode(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code != want {
		t.Fatalf("%q: exit code %d, want %d\n%s%s", args, code, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// write puts data into a file of a new folder.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// virtCase is a launch recorded from virt-qemu-sev-validate (testdata/sev/virt.py).
type virtCase struct {
	Name, TIK, TEK, Measurement, Spoilt, Digest, Header, Payload string
	Args                                                         []string
	Policy                                                       uint32
	API                                                          [3]uint8
	States                                                       []int // vCPUs' states: pages of that byte
	Secrets                                                      map[string]string
}

func virtCases(t *testing.T) []virtCase {
	t.Helper()
	data, err := os.ReadFile("testdata/sev/virt.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []virtCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 9 {
		t.Fatalf("virt.json holds %d launches", len(cases))
	}
	return cases
}

// flags are those that both tools take: firmware, kernel, keys, policy and API.
func (v virtCase) flags(t *testing.T) []string {
	t.Helper()
	var out []string
	for i := 0; i < len(v.Args); i += 2 {
		value := v.Args[i+1]
		if v.Args[i] != "--cmdline" && v.Args[i] != "--num-cpus" {
			value = filepath.Join(testtool.Project(), "measure", "testdata", value)
		}
		out = append(out, v.Args[i], value)
	}
	for i, name := range []string{"--vmsa-cpu0", "--vmsa-cpu1"} {
		if i < len(v.States) {
			out = append(out, name, write(t, "vmsa", bytes.Repeat([]byte{byte(v.States[i])}, 4096)))
		}
	}
	out = append(out, "--policy", fmt.Sprint(v.Policy))
	for i, name := range []string{"--api-major", "--api-minor", "--build-id"} {
		out = append(out, name, fmt.Sprint(v.API[i]))
	}
	return append(out, "--tik", write(t, "tik", unhex(t, v.TIK)))
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (v virtCase) session(t *testing.T) *sev.Session {
	return &sev.Session{Policy: sev.Policy(v.Policy), TEK: sev.TEK(unhex(t, v.TEK)), TIK: sev.TIK(unhex(t, v.TIK))}
}

// open gives a packet's secrets, after its files in base64.
func (v virtCase) open(t *testing.T, header, payload string) sev.SecretTable {
	t.Helper()
	m, err := sev.ParseMeasurement(unbase64(t, v.Measurement))
	if err != nil {
		t.Fatal(err)
	}
	p := sev.Packet{Header: [sev.PacketHeaderSize]byte(unbase64(t, header)), Secret: unbase64(t, payload)}
	plain, err := v.session(t).OpenSecret(p, m)
	if err != nil {
		t.Fatal(err)
	}
	table, err := sev.ParseSecretTable(plain)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func (v virtCase) checkTable(t *testing.T, table sev.SecretTable) {
	t.Helper()
	if len(table) != len(v.Secrets) || len(table) == 0 {
		t.Fatalf("%d secrets, want %d", len(table), len(v.Secrets))
	}
	for _, e := range table {
		if want := v.Secrets[e.GUID.String()]; hex.EncodeToString(e.Data) != want {
			t.Errorf("%v is %x, want %s", e.GUID, e.Data, want)
		}
	}
}

// TestSEVVirtRecorded: what virt-qemu-sev-validate accepted and refused, and the packets it sealed.
func TestSEVVirtRecorded(t *testing.T) {
	for _, v := range virtCases(t) {
		t.Run(v.Name, func(t *testing.T) {
			verify := append([]string{"sev", "verify-measurement"}, v.flags(t)...)
			out, _ := expectCode(t, cli.ExitYes, append(verify, "--measurement", v.Measurement)...)
			if want := "match: launch digest " + v.Digest + "\n"; out != want {
				t.Errorf("%q, want %q", out, want)
			}
			expectCode(t, cli.ExitYes, append(verify, "--measurement", write(t, "m", unbase64(t, v.Measurement)))...)
			out, errs := expectCode(t, cli.ExitNo, append(verify, "--measurement", v.Spoilt)...)
			if out != "" || !strings.Contains(errs, "does not match") {
				t.Errorf("%q, %q", out, errs)
			}
			v.checkTable(t, v.open(t, v.Header, v.Payload))

			// Ours of the same secrets opens to the same.
			header, payload := v.seal(t)
			v.checkTable(t, v.open(t, header, payload))
		})
	}
}

// seal has sealboot make a packet of the case's secrets.
func (v virtCase) seal(t *testing.T) (header, payload string) {
	t.Helper()
	dir := t.TempDir()
	args := []string{
		"sev", "secret", "--tk", write(t, "tk", append(unhex(t, v.TEK), unhex(t, v.TIK)...)), "--measurement", v.Measurement,
		"--firmware", filepath.Join(testtool.Project(), "measure", "testdata", "amdsev-64k.fd"),
		"--secret-header", filepath.Join(dir, "header"), "--secret-payload", filepath.Join(dir, "payload"),
	}
	for id, data := range v.Secrets {
		args = append(args, "--entry", id+":"+write(t, "secret", unhex(t, data)))
	}
	expectCode(t, cli.ExitYes, args...)
	return readText(t, filepath.Join(dir, "header")), readText(t, filepath.Join(dir, "payload"))
}

func readText(t *testing.T, name string) string {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has the mode %v", name, info.Mode())
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestSEVVirtBeside runs virt-qemu-sev-validate itself on the same files, in which case it is the
// machine's own: its Python modules cannot be fetched beside it.
func TestSEVVirtBeside(t *testing.T) {
	const tool, python = "/usr/bin/virt-qemu-sev-validate", "/usr/bin/python3"
	if err := exec.Command(python, tool, "--help").Run(); err != nil {
		t.Skipf("%s does not run here (Debian: libvirt-clients-qemu); its recorded runs are tested: %v", tool, err)
	}
	for _, v := range virtCases(t) {
		t.Run(v.Name, func(t *testing.T) {
			flags := append(v.flags(t), "--tek", write(t, "tek", unhex(t, v.TEK)))
			for _, measurement := range []string{v.Measurement, v.Spoilt} {
				ours := run(t.Context(), append([]string{"sev", "verify-measurement", "--measurement", measurement}, flags...), nil, io.Discard, io.Discard)
				err := exec.Command(python, append([]string{tool, "--measurement", measurement}, flags...)...).Run()
				if (ours == cli.ExitYes) != (err == nil) || ours != cli.ExitYes && ours != cli.ExitNo {
					t.Errorf("%s: exit code %d, theirs: %v", measurement, ours, err)
				}
			}
		})
	}
}

// TestSEVByHand drives a machine as a person would, with these commands and QMP alone.
func TestSEVByHand(t *testing.T) {
	for _, format := range sessionFormats {
		t.Run(format, func(t *testing.T) { launchByHand(t, format) })
	}
}

func launchByHand(t *testing.T, format string) {
	firmware := testtool.AmdSevFirmware(t)
	platform, err := sev.NewPlatform(rand.Reader, sev.API{Major: 1, Minor: 55, Build: 21})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "launch")
	pdh := write(t, "pdh", []byte(base64.StdEncoding.EncodeToString(platform.Chain.PDH.Encode())))
	chain, ca := write(t, "chain", platform.Chain.EncodePlatform()), write(t, "ca", platform.Chain.EncodeCA())
	session := []string{"sev", "session", "--pdh", pdh, "--cert-chain", chain, "--ca", ca, "--policy", "nodbg,noks,nosend", "--output", dir, "--format", format, "--json"}
	expectCode(t, cli.ExitNo, session...) // its root is not AMD's
	if _, err := os.Stat(dir); err == nil {
		t.Fatal("files for a platform that is not trusted")
	}
	out, _ := expectCode(t, cli.ExitYes, append(session, "--trust-root", ca)...)
	var files struct{ Godh, Session, TIK, TEK, TK, Policy string }
	if err := json.Unmarshal([]byte(out), &files); err != nil {
		t.Fatal(err)
	}
	keys := []string{"--tik", files.TIK, "--tek", files.TEK}
	if format == "sev-tool" { // QEMU takes base64
		keys = []string{"--tk", files.TK}
		for _, name := range []*string{&files.Godh, &files.Session} {
			raw, err := os.ReadFile(*name)
			if err != nil {
				t.Fatal(err)
			}
			*name = write(t, "b64", []byte(base64.StdEncoding.EncodeToString(raw)))
		}
	}

	monitor := startSEV(t, platform, firmware, files.Policy, files.Godh, files.Session)
	execute := func(command string, args, result any) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return monitor.Execute(ctx, command, args, result)
	}
	var info struct {
		APIMajor int `json:"api-major"`
		APIMinor int `json:"api-minor"`
		BuildID  int `json:"build-id"`
	}
	var launch struct{ Data string }
	if err := execute("query-sev", nil, &info); err != nil {
		t.Fatal(err)
	}
	if err := execute("query-sev-launch-measure", nil, &launch); err != nil {
		t.Fatal(err)
	}
	verify := append([]string{
		"sev", "verify-measurement", "--measurement", launch.Data, "--policy", files.Policy, "--firmware", firmware,
		"--api-major", strconv.Itoa(info.APIMajor), "--api-minor", strconv.Itoa(info.APIMinor), "--build-id", strconv.Itoa(info.BuildID),
	}, keys...)
	expectCode(t, cli.ExitYes, verify...)
	expectCode(t, cli.ExitNo, append(verify, "--policy", "0x0a")...)
	expectCode(t, cli.ExitNo, append(verify, "--build-id", "22")...)
	image, err := os.ReadFile(firmware)
	if err != nil {
		t.Fatal(err)
	}
	tampered := bytes.Clone(image)
	tampered[0x1000] ^= 1
	expectCode(t, cli.ExitNo, append(verify, "--firmware", write(t, "tampered.fd", tampered))...)

	passphrase := []byte("correct horse battery staple")
	header, payload := filepath.Join(dir, "header"), filepath.Join(dir, "payload")
	expectCode(t, cli.ExitYes, append([]string{
		"sev", "secret", "--measurement", launch.Data, "--key-file", write(t, "passphrase", passphrase), "--firmware", firmware,
		"--secret-header", header, "--secret-payload", payload,
	}, keys...)...)
	if err := execute("sev-inject-launch-secret", map[string]any{"packet-header": readText(t, header), "secret": readText(t, payload)}, nil); err != nil {
		t.Fatal(err)
	}
	checkSecretArea(t, execute, image, passphrase)
	if err := execute("cont", nil, nil); err != nil {
		t.Fatal(err)
	}
}

// checkSecretArea looks for the passphrase in the guest's memory, the way anybody can.
func checkSecretArea(t *testing.T, execute func(string, any, any) error, image, passphrase []byte) {
	t.Helper()
	parsed, err := ovmf.Parse(image)
	if err != nil {
		t.Fatal(err)
	}
	area, ok := parsed.SecretArea()
	if !ok {
		t.Fatal("no secret area")
	}
	dump := filepath.Join(t.TempDir(), "memory")
	if err := execute("pmemsave", map[string]any{"val": area.Base, "size": area.Size, "filename": dump}, nil); err != nil {
		t.Fatal(err)
	}
	memory, err := os.ReadFile(dump)
	if err != nil {
		t.Fatal(err)
	}
	table, err := sev.ParseSecretTable(memory)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := table.Find(sev.DiskPassphrase); !bytes.Equal(got, passphrase) || len(table) != 1 {
		t.Errorf("the guest's memory holds %d secrets, the passphrase %q", len(table), got)
	}
}

// startSEV starts a paused guest on the software secure processor, and gives its monitor.
func startSEV(t *testing.T, platform *sev.Platform, firmware, policy, godh, session string) *qmp.Client {
	t.Helper()
	qemu := testtool.Program(t, "qemu-system-x86_64")
	socket := filepath.Join(t.TempDir(), "qmp")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan string, 1)
	var errs bytes.Buffer
	go func() {
		status := psp.Run(ctx, psp.Config{
			Name: "qemu-sev", QEMU: qemu, Platform: platform, Random: rand.Reader,
			Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &errs,
		}, []string{
			"-machine", "q35,confidential-guest-support=sev0", "-accel", "kvm", "-cpu", "EPYC-v4", "-m", "128M", "-S",
			"-object", fmt.Sprintf("sev-guest,id=sev0,policy=%s,cbitpos=51,reduced-phys-bits=1,dh-cert-file=%s,session-file=%s", policy, godh, session),
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + firmware,
			"-display", "none", "-nodefaults", "-vga", "none", "-net", "none", "-qmp", "unix:" + socket + ",server=on,wait=off",
		})
		ended <- fmt.Sprintf("status %d: %s", status, errs.String())
		cancel()
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Error("QEMU did not end within 20 s")
		}
	})
	dial, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	client, err := qmp.Dial(dial, "unix", socket)
	if err != nil {
		cancel()
		said := <-ended
		ended <- said
		t.Fatalf("%v\n%s", err, said)
	}
	return client
}

// FuzzSecretEntry: whatever is typed, a file comes with a GUID that is not zero.
func FuzzSecretEntry(f *testing.F) {
	f.Add("luks-key=passphrase")
	f.Add("736869e5-84f0-4973-92ec-06879ce3da0b:/a=b")
	f.Add("00000000-0000-0000-0000-000000000000=x")
	f.Fuzz(func(t *testing.T, s string) {
		id, file, err := parseSecretEntry(s)
		if (err == nil) != (file != "" && !id.IsZero()) {
			t.Errorf("%v, %q, %v", id, file, err)
		}
	})
}
