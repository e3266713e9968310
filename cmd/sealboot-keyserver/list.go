package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
)

func (a *app) listCommand() *cobra.Command {
	var store storeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list --store DIR",
		Short: "List the registered images",
		Long: `list prints the images of a store, by name. Secrets are never printed.

--json prints an array of {"name", "version", "registered", "revoked", "mode", "policy",
"policy_version", "digests", "disk_uuid", "released"}.`,
		Example: `  sealboot-keyserver list --store keys --json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			s, err := store.open(cmd.Context())
			if err != nil {
				return err
			}
			defer closing(s, &err)
			images, err := s.Images(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(a.stdout).Encode(images)
			}
			table := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(table, "NAME\tVERSION\tSTATE\tMODE\tDIGESTS\tPOLICY\tREGISTERED")
			for _, m := range images {
				state := "served"
				if m.Revoked {
					state = "revoked"
				}
				fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%d\t%s\t%s\n", m.Name, m.Version, state, m.Mode, len(m.Digests), m.Policy, m.Registered.Format(time.RFC3339))
			}
			return table.Flush()
		},
	}
	store.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}

func (a *app) revokeCommand() *cobra.Command {
	var store storeFlags
	cmd := &cobra.Command{
		Use:     "revoke NAME --store DIR",
		Short:   "Release no secret of an image any more",
		Long:    `revoke ends an image at once, for sessions that are open too. register --replace takes it up again.`,
		Example: `  sealboot-keyserver revoke web --store keys`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			s, err := store.open(cmd.Context())
			if err != nil {
				return err
			}
			defer closing(s, &err)
			revocation := keyserver.Revocation{Kind: keyserver.RevokedImage, Value: args[0], Reason: "by command", Time: time.Now()}
			if err := s.Revoke(cmd.Context(), revocation); errors.Is(err, keyserver.ErrNoImage) {
				return cli.Refusef("%v", err)
			} else if err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "image %s is revoked\n", args[0])
			return nil
		},
	}
	store.add(cmd)
	return cmd
}
