package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/snp"
)

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Show, change and try what an image asks of a machine",
		Long: `A policy is a JSON document (keyserver/PROTOCOL.md describes it) that says everything that an image asks of a machine
before it gets the image's secrets: guest policy and firmware, TCB and keys of SEV-SNP, chips, times, networks, the number of
releases. Every restriction must be said, even that there is none, so that nothing is left open by being forgotten.`,
	}
	cmd.AddCommand(a.policyDefaultCommand(), a.policyShowCommand(), a.policySetCommand(), a.policyHistoryCommand(), a.policyTestCommand())
	return cmd
}

func (a *app) policyDefaultCommand() *cobra.Command {
	var mode string
	cmd := &cobra.Command{
		Use:   "default [--mode sev|seves|snp]",
		Short: "Print a policy to begin with",
		Long: `default prints the policy that register has without --policy, to be changed and given back; with --mode seves it asks
for SEV-ES, with --mode snp it is for SEV-SNP.`,
		Example: `  sealboot-keyserver policy default --mode snp > web.json`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, err := policyOf(mode == "seves", "")
			switch {
			case err != nil:
				return err
			case mode == "snp":
				of := snp.DefaultPolicy()
				p.SEV, p.SNP = nil, &of
			case mode != "sev" && mode != "seves":
				return cli.Usagef("--mode %q is none of sev, seves, snp", mode)
			}
			return a.printPolicy(p)
		},
	}
	cmd.Flags().StringVar(&mode, "mode", "sev", "the way in: sev, seves or snp")
	cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"sev", "seves", "snp"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// printPolicy prints a policy's document, indented for people; what it means stays the same.
func (a *app) printPolicy(p keyserver.Policy) error {
	text, err := p.Encode()
	if err != nil {
		return err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, text, "", "  "); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, pretty.String())
	return err
}

// readPolicy reads a policy's file, or standard input.
func (a *app) readPolicy(name string) (keyserver.Policy, error) {
	in := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return keyserver.Policy{}, fmt.Errorf("read policy: %w", err)
		}
		defer f.Close()
		in = io.Reader(f)
	}
	p, err := keyserver.ReadPolicy(in)
	if err != nil {
		return keyserver.Policy{}, fmt.Errorf("policy %s: %w", name, err)
	}
	return p, nil
}

func (a *app) policyShowCommand() *cobra.Command {
	var store storeFlags
	var version int64
	cmd := &cobra.Command{
		Use:     "show IMAGE --store DIR",
		Short:   "Print an image's policy",
		Long:    `show prints the policy of an image as JSON, or with --policy-version one that it had before.`,
		Example: `  sealboot-keyserver policy show web --store keys > web.json`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return store.with(cmd.Context(), func(s keeper) error {
				list, err := s.Policies(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				for _, p := range list {
					if p.Version == version || version == 0 && p.Version == list[len(list)-1].Version {
						return a.printPolicy(p.Policy)
					}
				}
				return cli.Refusef("image %s has had no policy of version %d: see policy history", args[0], version)
			})
		},
	}
	store.addServer(cmd)
	cmd.Flags().Int64Var(&version, "policy-version", 0, "version of the policy (default: the newest)")
	return cmd
}

func (a *app) policySetCommand() *cobra.Command {
	var store storeFlags
	var policy string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "set IMAGE --policy FILE --store DIR",
		Short: "Give an image another policy",
		Long: `set counts at once, for open sessions too. The policies before stay in the store, and the audit has the digest of each.

--json prints {"image", "policy_version"}.`,
		Example: `  sealboot-keyserver policy set web --policy web.json --store keys`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.readPolicy(policy)
			if err != nil {
				return err
			}
			return store.with(cmd.Context(), func(s keeper) error {
				version, err := s.SetPolicy(cmd.Context(), args[0], p, time.Now())
				if err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "image %s has policy version %d\n", args[0], version)
				if !asJSON {
					return nil
				}
				return a.printJSON(struct {
					Image   string `json:"image"`
					Version int64  `json:"policy_version"`
				}{args[0], version})
			})
		},
	}
	store.addServer(cmd)
	cmd.Flags().StringVar(&policy, "policy", "", "file of the policy (JSON), - for standard input")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the version as JSON")
	cmd.MarkFlagRequired("policy")
	return cmd
}

func (a *app) policyHistoryCommand() *cobra.Command {
	var store storeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history IMAGE --store DIR",
		Short: "List the policies that an image has had",
		Long: `history lists policies by version, the newest last. The digest is that of the audit.

--json prints an array of {"version", "image_version", "set", "digest", "policy"}.`,
		Example: `  sealboot-keyserver policy history web --store keys`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return store.with(cmd.Context(), func(s keeper) error {
				list, err := s.Policies(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				type row struct {
					keyserver.PolicyVersion
					Digest string          `json:"digest"`
					Policy json.RawMessage `json:"policy"`
				}
				rows := []row{}
				for _, p := range list {
					digest := sha256.Sum256(p.Document)
					rows = append(rows, row{p, hex.EncodeToString(digest[:]), p.Document})
				}
				if asJSON {
					return a.printJSON(rows)
				}
				table := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
				fmt.Fprintln(table, "VERSION\tIMAGE VERSION\tSET\tDIGEST")
				for _, r := range rows {
					fmt.Fprintf(table, "%d\t%d\t%s\t%s\n", r.Version, r.ImageVersion, r.Set.Format(time.RFC3339), r.Digest)
				}
				return table.Flush()
			})
		},
	}
	store.addServer(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the policies as JSON")
	return cmd
}
