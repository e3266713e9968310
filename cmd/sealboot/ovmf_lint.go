package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/ovmf"
)

func (a *app) ovmfLintCommand() *cobra.Command {
	var options ovmf.LintOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "lint FILE",
		Short: "Say whether a firmware image may carry a secret",
		Long: `lint looks at everything in a firmware image that decides whether it may carry a secret: its
tables and areas, what SEV-SNP needs, what it could boot, its variables, and the GRUB in it with
its modules and settings. It names builds that are known. Exit code 3 says that it is unfit.

Every finding is one line: its level, which check, what was found, why it matters, what to do.
Levels: unfit (must not carry a secret), warning (look at it), note. What is malformed is unfit,
named with its offset.

With --json: fit, sha256, size, base_sha256 (of everything but GRUB: the same before and after
bundle), build (the known build that it is, or ""), grub {sha256, size, modules, settings
{disk_uuid, append, serial} or null} or null, findings [{check, level, problem, why, advice, and for
what is malformed where and offset}].`,
		Example: `  sealboot ovmf lint firmware.fd
  sealboot ovmf lint --json firmware.fd | jq -r '.findings[] | select(.level == "unfit") | .check'`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if options.SecretTableSize < 0 {
				return usagef("--secret-table-size %d is no size", options.SecretTableSize)
			}
			image, err := cli.ReadBounded(args[0], ovmf.MaxSize)
			if err != nil {
				return fmt.Errorf("read firmware: %w", err)
			}
			report := ovmf.Lint(image, options)
			if asJSON {
				e := json.NewEncoder(a.stdout)
				e.SetIndent("", "  ")
				err = e.Encode(report)
			} else {
				err = printLint(a.stdout, report)
			}
			if err != nil {
				return err
			}
			if !report.Fit {
				return refusef("%s is unfit to carry a secret", args[0])
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&options.SecretTableSize, "secret-table-size", 0,
		fmt.Sprintf("size in bytes of the secret table that must fit (0: %d, a passphrase of 64 bytes and a header pin)", ovmf.DefaultSecretTable))
	cmd.Flags().BoolVar(&options.KernelHashes, "kernel-hashes", false, "the firmware is to check a kernel that the host gives")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printLint(w io.Writer, r *ovmf.LintReport) error {
	build := r.Build
	if build == "" {
		build = "none that is known"
	}
	fmt.Fprintf(w, "firmware  %d bytes, SHA-256 %s\nbuild     %s\n", r.Size, r.SHA256, build)
	if r.GRUB != nil {
		fmt.Fprintf(w, "GRUB      %d bytes, %d modules, SHA-256 %s\n", r.GRUB.Size, len(r.GRUB.Modules), r.GRUB.SHA256)
		if s := r.GRUB.Settings; s != nil {
			fmt.Fprintf(w, "settings  disk_uuid=%q append=%q serial=%t\n", s.DiskUUID, s.Append, s.Serial)
		}
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "%-9s %s: %s. Why: %s. To do: %s.\n", f.Level, f.Check, f.Problem, f.Why, f.Advice)
	}
	verdict := "fit to carry a secret"
	if !r.Fit {
		verdict = "unfit to carry a secret"
	}
	_, err := fmt.Fprintf(w, "verdict   %s\n", verdict)
	return err
}
