// Command qemu-sev is a QEMU for machines without AMD SEV: the same command line and QMP, a
// software secure processor. See --sev-help.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/sealboot/sealboot/e2e/psp"
)

const help = `qemu-sev is a QEMU for machines without AMD SEV: it takes QEMU's command line, sev-guest
objects included, answers QEMU's QMP, SEV commands included, and runs the guest under the
emulation of a real QEMU. Its secure processor is software, its root key not AMD's: a key server
trusts it only when told to. Memory is not encrypted. For tests only.

  qemu-sev QEMU-OPTIONS...     run a machine
  qemu-sev --sev-trust-root    print the SHA-256 of the root key (ARK)
  qemu-sev --sev-ca-file       write the root's certificates (ASK, ARK) to standard output
  qemu-sev --sev-help          print this (--help: this, and QEMU's own)

  QEMU_SEV_PLATFORM   folder with the platform's identity, made on first use
                      (default $XDG_STATE_HOME/qemu-sev, ~/.local/state/qemu-sev)
  QEMU_SEV_QEMU       the real QEMU (default qemu-system-x86_64)
`

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	name := filepath.Base(args[0])
	args = args[1:]
	fail := func(err error) int {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 1
	}
	if len(args) == 1 {
		switch args[0] {
		case "--sev-help":
			io.WriteString(stdout, help)
			return 0
		case "--help", "-help", "-h":
			io.WriteString(stdout, help+"\n") // and QEMU's own behind it
		}
	}
	folder, err := platformFolder()
	if err != nil {
		return fail(err)
	}
	platform, err := psp.OpenPlatform(folder, rand.Reader)
	if err != nil {
		return fail(err)
	}
	if len(args) == 1 {
		switch args[0] {
		case "--sev-trust-root":
			digest, err := platform.Chain.ARK.KeyDigest()
			if err != nil {
				return fail(err)
			}
			fmt.Fprintln(stdout, digest)
			return 0
		case "--sev-ca-file":
			if _, err := stdout.Write(platform.Chain.EncodeCA()); err != nil {
				return fail(err)
			}
			return 0
		}
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	return psp.Run(ctx, psp.Config{
		Name: name, QEMU: realQEMU(), Platform: platform, Random: rand.Reader,
		Stdin: stdin, Stdout: stdout, Stderr: stderr, Signals: signals,
	}, args)
}

func platformFolder() (string, error) {
	if folder := os.Getenv("QEMU_SEV_PLATFORM"); folder != "" {
		return folder, nil
	}
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) { // the XDG specification ignores relative ones
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("where to keep the platform's identity: set QEMU_SEV_PLATFORM: %w", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "qemu-sev"), nil
}

func realQEMU() string {
	if path := os.Getenv("QEMU_SEV_QEMU"); path != "" {
		return path
	}
	return "qemu-system-x86_64"
}
