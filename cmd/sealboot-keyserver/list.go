package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			return store.with(cmd.Context(), func(s keeper) error {
				images, err := s.Images(cmd.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(images)
				}
				table := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
				fmt.Fprintln(table, "NAME\tVERSION\tSTATE\tMODE\tDIGESTS\tRELEASED\tPOLICY\tREGISTERED")
				for _, m := range images {
					state := "served"
					if m.Revoked {
						state = "revoked"
					}
					fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%d\t%d\t%s\t%s\n", m.Name, m.Version, state, m.Mode, len(m.Digests), m.Released, m.Policy, m.Registered.Format(time.RFC3339))
				}
				return table.Flush()
			})
		},
	}
	store.addServer(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}
