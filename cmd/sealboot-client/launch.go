package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/launch"
)

// launchFlags are what launch is called with, before it is read.
type launchFlags struct {
	spec          launch.Spec
	server        serverFlags
	certChain, ca string
	stages        string
}

func (a *app) launchCommand() *cobra.Command {
	var f launchFlags
	cmd := &cobra.Command{
		Use:   "launch --server URL --image NAME --firmware FILE --disk FILE --ca FILE [-- QEMU-ARG ...]",
		Short: "Start a machine on this host and get it its secret",
		Long: `launch asks the key server for a launch session for this host's secure processor, starts QEMU with
it, brings the launch measurement to the key server and the sealed secret into the guest,
and lets the guest run. It ends when the guest ends; a reboot ends it too, since a guest that starts
again has no secret: then it says so, and another launch is needed. A machine that is refused is shut down before its first instruction (exit code 3).

The QEMU must offer sev-guest; qemu-sev is one for machines without the hardware. What follows "--" is
added to QEMU's command line. Devices there should be virtio with
disable-legacy=on,iommu_platform=on,romfile=.

--ca takes ASK and ARK, AMD's certificates for this processor's kind, in one file (AMD publishes
them as ask_ark_MILAN.cert and so on; qemu-sev --sev-ca-file prints its own). --cert-chain takes PEK, OCA
and CEK, if the chain that the platform keeps has a CEK that AMD has not signed yet.

--client-cert and --client-key, or --token-file, say who this host is, where the key server serves known hosts alone.

--json writes a line of JSON after each stage, {"stage", "seconds"}, with the stages platform,
session, start, measure, release, inject, guest, and a last one {"outcome": "ended|restart|refused|failed", "seconds"} of
the whole. After the stage in which a launch fails there is only the last line.`,
		Example: `  sealboot launch --server http://127.0.0.1:8420 --image web --firmware out/firmware.fd \
      --disk out/disk.qcow2 --ca ask_ark_MILAN.cert
  sealboot launch --server https://keys.example --image web --firmware firmware.fd --disk disk.qcow2 \
      --ca ask_ark_MILAN.cert --memory 4G --cpus 2 --serial console.log -- \
      -netdev user,id=net0 -device virtio-net-pci,netdev=net0,disable-legacy=on,iommu_platform=on,romfile=`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n > 0 || n < 0 && len(args) > 0 {
				return cli.Usagef("launch takes no argument %q: what is for QEMU comes after \"--\"", args[0])
			}
			f.spec.Extra = args
			return a.launch(cmd, f)
		},
	}
	flags := cmd.Flags()
	f.server.add(cmd)
	flags.StringVar(&f.server.cert, "client-cert", "", "this host's certificate (PEM), where the key server asks for one")
	flags.StringVar(&f.server.key, "client-key", "", "the certificate's private key (PEM)")
	flags.StringVar(&f.server.token, "token-file", "", "file of this host's token, where the key server asks for one")
	flags.StringVar(&f.spec.Image, "image", "", "name of the image at the key server")
	flags.StringVar(&f.spec.QEMU, "qemu", "qemu-system-x86_64", "QEMU program")
	flags.StringVar(&f.spec.Firmware, "firmware", "", "firmware with GRUB inside (firmware.fd)")
	flags.StringVar(&f.spec.Disk, "disk", "", "encrypted disk (disk.qcow2)")
	flags.StringVar(&f.spec.DiskFormat, "disk-format", "qcow2", "qcow2 or raw")
	flags.StringVar(&f.spec.Memory, "memory", "1G", "memory of the guest, as 1024M or 4G")
	flags.IntVar(&f.spec.CPUs, "cpus", 1, "processors of the guest; SEV-ES measures their number")
	flags.StringVar(&f.spec.CPUModel, "cpu-model", "EPYC-v4", "QEMU's processor model; SEV-ES measures it")
	flags.StringVar(&f.certChain, "cert-chain", "", "PEK, OCA and CEK of this platform (default: what QEMU gives)")
	flags.StringVar(&f.ca, "ca", "", "ASK and ARK of this kind of processor")
	flags.StringVar(&f.spec.Serial, "serial", "stdio", "console: stdio, none, unix:PATH (a socket to connect to) or a file")
	flags.StringVar(&f.spec.QMP, "qmp", "", "path of a QMP socket for other programs")
	flags.StringVar(&f.stages, "json", "", "write the times of the stages to this file, - for standard output")
	cmd.RegisterFlagCompletionFunc("disk-format", cobra.FixedCompletions([]string{"qcow2", "raw"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("serial", cobra.FixedCompletions([]string{"stdio", "none", "unix:"}, cobra.ShellCompDirectiveDefault))
	return cmd
}

func (a *app) launch(cmd *cobra.Command, f launchFlags) error {
	server, err := f.server.client()
	if err != nil {
		return err
	}
	if f.ca == "" {
		return cli.Usagef("no certificates of AMD's: give --ca FILE")
	}
	if f.spec.CA, err = readCertificates("--ca", f.ca); err != nil {
		return err
	}
	if f.certChain != "" {
		if f.spec.CertChain, err = readCertificates("--cert-chain", f.certChain); err != nil {
			return err
		}
	}
	if err := f.spec.Validate(); err != nil {
		return cli.Usagef("%s", cli.OneLine(err))
	}
	stages, err := a.openStages(f.stages)
	if err != nil {
		return err
	}
	begun := time.Now()
	l := launch.Launcher{Server: server, Stdin: a.stdin, Stdout: a.stdout, Now: time.Now, Done: func(s launch.Stage, took time.Duration, err error) {
		if err == nil || errors.Is(err, launch.ErrRestart) {
			stages.write(stageLine{Stage: string(s), Seconds: took.Seconds()})
		}
	}}
	err = l.Run(cmd.Context(), f.spec)
	outcome := "ended"
	switch {
	case errors.Is(err, launch.ErrRestart):
		outcome = "restart"
		fmt.Fprintln(a.stderr, "sealboot: the guest wants to start again: launch it once more")
		err = nil
	case errors.Is(err, launch.ErrRefused):
		outcome = "refused"
		err = cli.Refusef("%w", err)
	case cmd.Context().Err() != nil:
		outcome = "failed"
		err = errors.New("interrupted: the machine was ended")
	case err != nil:
		outcome = "failed"
	}
	stages.write(stageLine{Outcome: outcome, Seconds: time.Since(begun).Seconds()})
	return errors.Join(err, stages.close())
}

// stageLine is a line of --json.
type stageLine struct {
	Stage   string  `json:"stage,omitempty"`
	Outcome string  `json:"outcome,omitempty"`
	Seconds float64 `json:"seconds"`
}

// stageFile takes the lines as they come, so that a reader can follow.
type stageFile struct {
	out  io.Writer
	file *os.File
	err  error
}

func (a *app) openStages(name string) (*stageFile, error) {
	switch name {
	case "":
		return &stageFile{out: io.Discard}, nil
	case "-":
		return &stageFile{out: a.stdout}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("write times of stages: %w", err)
	}
	return &stageFile{out: f, file: f}, nil
}

func (s *stageFile) write(line stageLine) {
	s.err = errors.Join(s.err, json.NewEncoder(s.out).Encode(line))
}

func (s *stageFile) close() error {
	if s.file != nil {
		s.err = errors.Join(s.err, s.file.Close())
	}
	return s.err
}

const maxCertificates = 64 << 10 // bytes; two of AMD's with keys of 4096 bits have 3200

func readCertificates(flag, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read certificates (%s): %w", flag, err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxCertificates+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read certificates (%s): %w", flag, err)
	case len(content) == 0 || len(content) > maxCertificates:
		return nil, fmt.Errorf("read certificates (%s): %s has %d bytes or more, which none has", flag, name, len(content))
	}
	return content, nil
}
