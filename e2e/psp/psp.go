// Package psp is a secure processor in software: a QEMU for machines without AMD SEV.
//
// [Run] takes the command line of a QEMU that starts a SEV or SEV-ES guest (`-accel kvm -object
// sev-guest,…`) and runs that guest under the emulation of a real QEMU behind it, with its memory
// shared. It plays what KVM and the secure processor do: it refuses at LAUNCH_START a session made
// for another policy or platform, measures the firmware that stands in the guest's memory (with
// SEV-ES the vCPUs' state, with kernel-hashes=on the table of hashes, which it also puts in its
// place), and puts an injected secret, opened with the session's keys, into the guest's memory.
//
// QMP monitors are the stand-in's: it answers query-sev, query-sev-capabilities,
// query-sev-launch-measure and sev-inject-launch-secret as QEMU does (qapi/misc-target.json,
// target/i386/sev.c), errors included, and hands every other command and every event through. A
// client of it cannot tell the difference but by the certificate chain: its root is not AMD's, and
// its CEK comes with the signature that a real one has once it was fetched from AMD's key service.
// Memory is not encrypted: this is for tests.
//
// Not there: descriptors inherited from the caller, out-of-band QMP, -daemonize, SEV-SNP, memory
// objects of several NUMA nodes. A killed stand-in takes its QEMU along, and nothing is left:
// memory and QEMU's side of the monitors have no name in any file system.
package psp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/sealboot/sealboot/internal/tool"
	"github.com/sealboot/sealboot/sev"
)

// Config is what a stand-in has beside its command line.
type Config struct {
	Name     string // what it is called in messages
	QEMU     string // the real QEMU
	Platform *sev.Platform
	Random   io.Reader
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	Signals  <-chan os.Signal // passed on to the real QEMU; may be nil
}

// Run runs a machine until it ends, and gives the exit status that QEMU had or would have had.
func Run(ctx context.Context, config Config, args []string) int {
	status, err := run(ctx, config, args)
	if err != nil {
		fmt.Fprintf(config.Stderr, "%s: %v\n", config.Name, err)
		if status == 0 {
			status = 1
		}
	}
	return status
}

func run(ctx context.Context, config Config, args []string) (int, error) {
	c, err := parseCommandLine(args)
	if err != nil {
		return 1, err
	}
	if c.asking {
		p, err := tool.Start(tool.Command{Path: config.QEMU, Args: joinOptions(c.rest), Stdin: config.Stdin, Stdout: config.Stdout}, config.Stderr)
		if err != nil {
			return 1, err
		}
		return exitStatus(p), nil
	}
	m := &machine{config: config, line: c}
	if c.guest != nil {
		if err := m.launchStart(); err != nil {
			return 1, err
		}
	}
	return m.run(ctx)
}

// launchStart starts the launch before QEMU runs, where KVM does it; failures have KVM's words.
func (m *machine) launchStart() error {
	const kvm = "-accel kvm: "
	if err := m.line.guest.check(); err != nil {
		return fmt.Errorf("%s%w", kvm, err)
	}
	guest, err := m.line.guest.launchStart(m.config.Platform, m.config.Random)
	var status sev.Status
	switch {
	case errors.As(err, &status):
		fmt.Fprintf(m.config.Stderr, "%s: sev_launch_start: LAUNCH_START ret=1 fw_error=%d '%v'\n", m.config.Name, uint16(status), status)
		return fmt.Errorf("%ssev_kvm_init: failed to create encryption context", kvm)
	case err != nil:
		return fmt.Errorf("%ssev_launch_start: %w", kvm, err)
	}
	m.guest = guest
	if m.handle = m.line.guest.handle; m.handle == 0 {
		m.handle = 1
	}
	return nil
}

// exitStatus waits for a program's end and gives its status as a shell does.
func exitStatus(p *tool.Process) int {
	err := p.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return 1
		}
		return 0
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}
