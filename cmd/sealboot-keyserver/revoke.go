package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
)

// revocationKinds are what can be revoked.
var revocationKinds = []string{string(keyserver.RevokedImage), string(keyserver.RevokedDigest), string(keyserver.RevokedChip), string(keyserver.RevokedSecret)}

// revocationKind reads one, as an argument.
func revocationKind(text string) (keyserver.RevocationKind, error) {
	if !slices.Contains(revocationKinds, text) {
		return "", cli.Usagef("%q is none of %v", text, revocationKinds)
	}
	return keyserver.RevocationKind(text), nil
}

func addReason(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "why, for the audit and the list of revocations")
	cmd.MarkFlagRequired("reason")
}

func (a *app) revoke(ctx context.Context, s keeper, kind keyserver.RevocationKind, value, reason string) error {
	err := s.Revoke(ctx, keyserver.Revocation{Kind: kind, Value: value, Reason: reason, Time: time.Now()})
	if errors.Is(err, keyserver.ErrRevocation) {
		return cli.Usagef("%w", err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "%s %s is revoked\n", kind, value)
	return nil
}

func (a *app) revokeCommand() *cobra.Command {
	var store storeFlags
	var reason string
	cmd := &cobra.Command{
		Use:   "revoke (image|digest|chip|secret) VALUE --reason TEXT --store DIR",
		Short: "Take an image, a digest, a chip or a secret out of use",
		Long: `revoke counts at once, for sessions that are open too.

  image NAME          nothing of the image is released, and its secrets leave the store; register --replace takes it up again
  digest HEX          no machine of that launch digest gets anything, whatever image has it
  chip CHIP           no machine with that chip gets anything; the audit names chips and platforms
  secret IMAGE/GUID   the secret leaves the store`,
		Example: `  sealboot-keyserver revoke image web --reason 'disk was stolen' --store keys
  sealboot-keyserver revoke digest c3bf47ea1f4a4a605470313cacb3a44f4a461f68c6faeab07e737610cb5ac835 --reason 'CVE in its kernel' --store keys`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := revocationKind(args[0])
			if err != nil {
				return err
			}
			return store.with(cmd.Context(), func(s keeper) error { return a.revoke(cmd.Context(), s, kind, args[1], reason) })
		},
	}
	cmd.ValidArgs = revocationKinds
	store.addServer(cmd)
	addReason(cmd, &reason)
	return cmd
}

func (a *app) unrevokeCommand() *cobra.Command {
	var store storeFlags
	cmd := &cobra.Command{
		Use:   "unrevoke (digest|chip|secret) VALUE --store DIR",
		Short: "Take a revocation back",
		Long: `unrevoke takes back what revoke did, for a digest, a chip, and a secret: what the secret held stays gone, and
secret put may give it another value. An image is taken up again by register --replace.`,
		Example: `  sealboot-keyserver unrevoke secret web/736869e5-84f0-4973-92ec-06879ce3da0b --store keys`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := revocationKind(args[0])
			if err != nil {
				return err
			}
			return store.with(cmd.Context(), func(s keeper) error {
				if err := s.Unrevoke(cmd.Context(), kind, args[1], time.Now()); err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "%s %s is no longer revoked\n", kind, args[1])
				return nil
			})
		},
	}
	cmd.ValidArgs = revocationKinds[1:]
	store.addServer(cmd)
	return cmd
}

func (a *app) revocationsCommand() *cobra.Command {
	var store storeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "revocations --store DIR",
		Short: "List what is revoked, and why",
		Long: `revocations lists what is out of use, by kind and value.

--json prints an array of {"kind", "value", "reason", "time"}.`,
		Example: `  sealboot-keyserver revocations --store keys`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return store.with(cmd.Context(), func(s keeper) error {
				list, err := s.Revocations(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(list)
				}
				table := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
				fmt.Fprintln(table, "KIND\tVALUE\tSINCE\tREASON")
				for _, r := range list {
					fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", r.Kind, r.Value, r.Time.UTC().Format(time.RFC3339), r.Reason)
				}
				return table.Flush()
			})
		},
	}
	store.addServer(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}
