package lab

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Machine says what to launch. What is not set is as an honest host would have it.
type Machine struct {
	Image    Image
	Server   string // URL of the key server
	ServerCA string // file of the CA of its certificate; empty without TLS
	QEMU     string // default: qemu-sev
	Firmware string // default: the image's
	Disk     string // default: the image's
	Name     string // default: the image's
	Network  bool   // a card on QEMU's user network: see HostInGuest
	// OnConsole is called with each line of the console, and the path of a QMP socket.
	OnConsole func(line, control string)
}

// HostInGuest is where a guest on QEMU's user network finds the loopback of its host (QEMU docs/system/devices/net,
// "Using the user mode network stack"). guest-init.sh has the guest's own address.
const HostInGuest = "10.0.2.2"

// Outcome is what came of a launch.
type Outcome struct {
	Code    int                // exit code of sealboot launch
	Console string             // what the guest wrote
	Stderr  string             // what launch said
	Proof   string             // the guest's answer; empty if there was none
	Nonce   string             // what it was asked
	Stages  map[string]float64 // seconds of each stage of launch
	Spent   time.Duration
	ToRoot  time.Duration // from starting launch to the guest's first sign from its root file system
}

// Launch runs `sealboot launch` to its end, asks the guest for its proof meanwhile, and gives up after
// the context's end. What the guest failed to do is in the Outcome; an error means the lab itself failed.
func (l *Lab) Launch(ctx context.Context, m Machine) (Outcome, error) {
	ca, err := l.CA(ctx)
	if err != nil {
		return Outcome{}, err
	}
	dir, err := os.MkdirTemp("", "sealboot-lab-") // short: a socket's path has at most 107 bytes
	if err != nil {
		return Outcome{}, err
	}
	defer os.RemoveAll(dir)
	port, control, stages := filepath.Join(dir, "port"), filepath.Join(dir, "control"), filepath.Join(dir, "stages")
	server := []string{"--server", m.Server}
	if m.ServerCA != "" {
		server = append(server, "--server-ca", m.ServerCA)
	}
	args := append(append([]string{"launch"}, server...), "--image", or(m.Name, m.Image.Name), "--qemu", or(m.QEMU, filepath.Join(l.Bin, "qemu-sev")),
		"--firmware", or(m.Firmware, m.Image.Firmware()), "--disk", or(m.Disk, m.Image.Disk()), "--ca", ca, "--json", stages, "--qmp", control, "--",
		"-chardev", "socket,id=port,path="+port+",server=on,wait=off", "-serial", "chardev:port")
	if m.Network { // as `sealboot launch --help` has it
		args = append(args, "-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,disable-legacy=on,iommu_platform=on,romfile=")
	}
	fmt.Fprintf(l.Log, "$ sealboot %s\n", strings.Join(args, " "))

	cmd := exec.CommandContext(ctx, filepath.Join(l.Bin, "sealboot"), args...)
	cmd.Env = append(os.Environ(), l.platformEnv()...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var console, said buffer
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return Outcome{}, err
	}
	cmd.Stderr = &said
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return Outcome{}, err
	}
	o := Outcome{Nonce: newNonce(), Stages: map[string]float64{}}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var wait sync.WaitGroup
	wait.Go(func() {
		proof, err := askProof(asking, port, o.Nonce)
		if err == nil {
			o.Proof, o.ToRoot = proof, time.Since(begun)
		}
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		fmt.Fprintln(&console, line)
		if m.OnConsole != nil {
			m.OnConsole(line, control)
		}
	}
	err = cmd.Wait()
	stop()
	wait.Wait()
	o.Spent, o.Console, o.Stderr = time.Since(begun), console.String(), said.String()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		o.Code = exit.ExitCode()
	} else if err != nil {
		return o, fmt.Errorf("launch: %w", err)
	}
	if ctx.Err() != nil {
		return o, fmt.Errorf("launch: %w; console:\n%s\n%s", ctx.Err(), tail(o.Console, 2000), o.Stderr)
	}
	return o, o.readStages(stages)
}

// RunQEMU runs the stand-in by itself, as a host would that does without launch.
func (l *Lab) RunQEMU(ctx context.Context, args ...string) (Output, error) {
	out, err := l.run(ctx, l.platformEnv(), filepath.Join(l.Bin, "qemu-sev"), args...)
	if err == nil && out.Code != 0 {
		err = fmt.Errorf("qemu-sev: exit code %d: %s", out.Code, out.Stderr)
	}
	return out, err
}

func (o *Outcome) readStages(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		var s struct {
			Stage   string  `json:"stage"`
			Seconds float64 `json:"seconds"`
		}
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			return fmt.Errorf("read stages of launch: %w", err)
		}
		if s.Stage != "" {
			o.Stages[s.Stage] = s.Seconds
		}
	}
	return nil
}

// Stopped gives the line with which GRUB or the agent stopped the machine.
func (o Outcome) Stopped() string {
	for line := range strings.Lines(o.Console) {
		if _, why, ok := strings.Cut(line, "sealboot: stopped: "); ok {
			return strings.TrimSpace(why)
		}
	}
	return ""
}

func newNonce() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func or(value, otherwise string) string {
	if value != "" {
		return value
	}
	return otherwise
}
