package main

import (
	"context"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/keyserver"
)

func (a *app) secretCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Add, rotate and revoke an image's secrets",
		Long: `A secret is known by the GUID of its entry in the guest's secret table; the word passphrase stands for the disk
passphrase's. What a secret holds is never printed, and never an argument.

A rotation is in two steps: rotate gives the next version, and keeps the one before until the guest has used the new one and says so
(sealboot confirm), or confirm does. Until then roll-back takes it back.`,
	}
	cmd.AddCommand(
		a.giveCommand("put", "Give an image one more secret", "put adds a secret that the image does not have yet.",
			`  sealboot-keyserver secret put web 8a8a4b0e-7d7b-4c5a-9f0e-0d8d5b7a1c11 --file tls.key --store keys`, "put", keeper.PutSecret),
		a.giveCommand("rotate", "Give a secret its next version",
			"rotate keeps the version before until the rotation is confirmed or rolled back. Of the disk's passphrase the guest gets both.",
			`  sealboot-keyserver secret rotate web passphrase --file new-passphrase --store keys`, "rotated", keeper.RotateSecret),
		a.changeCommand("confirm", "End a rotation: the new version is the only one", "confirm drops the version before from the store.",
			func(s keeper, ctx context.Context, image string, id guid.GUID) (int64, error) {
				return 0, s.ConfirmSecret(ctx, image, id, time.Now())
			}, "the rotation is over"),
		a.changeCommand("roll-back", "Take a rotation back", "roll-back drops the new version; what was before is the next.",
			func(s keeper, ctx context.Context, image string, id guid.GUID) (int64, error) {
				return s.RollBackSecret(ctx, image, id, time.Now())
			}, "rolled back"),
		a.secretRevokeCommand(), a.secretListCommand())
	return cmd
}

// giveCommand makes a command that gives a secret a value.
func (a *app) giveCommand(name, short, long, example, done string, give func(keeper, context.Context, string, guid.GUID, []byte, time.Time) (int64, error)) *cobra.Command {
	var store storeFlags
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     name + " IMAGE GUID --file FILE --store DIR",
		Short:   short,
		Long:    long + "\n\n--json prints {\"image\", \"secret\", \"version\"}.",
		Example: example,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := secretID(args[1])
			if err != nil {
				return err
			}
			data, err := a.readSecret(file)
			if err != nil {
				return err
			}
			defer clear(data)
			return store.with(cmd.Context(), func(s keeper) error {
				version, err := give(s, cmd.Context(), args[0], id, data, time.Now())
				if err != nil {
					return err
				}
				return a.secretChanged(args[0], id, version, done, asJSON)
			})
		},
	}
	store.addServer(cmd)
	cmd.Flags().StringVar(&file, "file", "", "file that holds the secret, to the byte; - for standard input")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the version as JSON")
	cmd.MarkFlagRequired("file")
	return cmd
}

// changeCommand makes a command that ends a rotation.
func (a *app) changeCommand(name, short, long string, change func(keeper, context.Context, string, guid.GUID) (int64, error), done string) *cobra.Command {
	var store storeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:     name + " IMAGE GUID --store DIR",
		Short:   short,
		Long:    long + "\n\n--json prints {\"image\", \"secret\", \"version\"}; the version is left out where none is made.",
		Example: "  sealboot-keyserver secret " + name + " web passphrase --store keys",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := secretID(args[1])
			if err != nil {
				return err
			}
			return store.with(cmd.Context(), func(s keeper) error {
				version, err := change(s, cmd.Context(), args[0], id)
				if err != nil {
					return err
				}
				return a.secretChanged(args[0], id, version, done, asJSON)
			})
		},
	}
	store.addServer(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what was done as JSON")
	return cmd
}

func (a *app) secretChanged(image string, id guid.GUID, version int64, done string, asJSON bool) error {
	text := done
	if version != 0 {
		text += ", version " + strconv.FormatInt(version, 10)
	}
	fmt.Fprintf(a.stderr, "secret %v of image %s: %s\n", id, image, text)
	if !asJSON {
		return nil
	}
	return a.printJSON(struct {
		Image   string    `json:"image"`
		Secret  guid.GUID `json:"secret"`
		Version int64     `json:"version,omitempty"`
	}{image, id, version})
}

func (a *app) secretRevokeCommand() *cobra.Command {
	var store storeFlags
	var reason string
	cmd := &cobra.Command{
		Use:   "revoke IMAGE GUID --reason TEXT --store DIR",
		Short: "Take a secret out of use",
		Long: `revoke drops a secret's values from the store for good. An image without its disk's passphrase is released to nobody.
It is the same as revoke secret IMAGE/GUID.`,
		Example: `  sealboot-keyserver secret revoke web passphrase --reason 'disk was copied' --store keys`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := secretID(args[1])
			if err != nil {
				return err
			}
			return store.with(cmd.Context(), func(s keeper) error {
				return a.revoke(cmd.Context(), s, keyserver.RevokedSecret, args[0]+"/"+id.String(), reason)
			})
		},
	}
	store.addServer(cmd)
	addReason(cmd, &reason)
	return cmd
}

func (a *app) secretListCommand() *cobra.Command {
	var store storeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list IMAGE --store DIR",
		Short: "List an image's secrets, without what they hold",
		Long: `list prints an image's secrets by GUID, with their versions.

--json prints an array of {"id", "version", "made", "bytes", "previous_version", "rotating_since", "revoked"}; the last three where they apply.`,
		Example: `  sealboot-keyserver secret list web --store keys`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return store.with(cmd.Context(), func(s keeper) error {
				list, err := s.ListSecrets(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(list)
				}
				table := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
				fmt.Fprintln(table, "GUID\tVERSION\tSTATE\tBYTES\tMADE")
				for _, x := range list {
					state := "in use"
					if x.Revoked {
						state = "revoked"
					} else if x.Since != nil {
						state = fmt.Sprintf("rotating from version %d", x.Previous)
					}
					fmt.Fprintf(table, "%v\t%d\t%s\t%d\t%s\n", x.ID, x.Version, state, x.Bytes, x.Made.UTC().Format(time.RFC3339))
				}
				return table.Flush()
			})
		},
	}
	store.addServer(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}
