package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/pki"
)

const rolesHelp = `Roles, one or more with commas between:

  register   register images, change policies and secrets, revoke
  release    ask for sessions and releases, as a host (require_release_role in the configuration)
  audit      read the audit, the owner's page and the metrics
  admin      all of that but release; add and remove principals; back up and restore`

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make and withdraw tokens of administrators and hosts",
		Long: `A token is a principal's credential: who has it may do what its roles allow. The store keeps a hash of it alone.

` + rolesHelp,
	}
	cmd.AddCommand(a.tokenNewCommand(), a.principalListCommand(), a.principalRemoveCommand())
	return cmd
}

func (a *app) adminCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "admin",
		Short: "Register the client certificates of administrators and hosts",
		Long: `A client certificate is a principal's credential, known by its key, until the end of the certificate that was registered.

` + rolesHelp,
	}
	cmd.AddCommand(a.addCertCommand(), a.principalListCommand(), a.principalRemoveCommand())
	return cmd
}

func (a *app) tokenNewCommand() *cobra.Command {
	var store storeFlags
	var roles, life, out string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "new NAME --roles ROLES --store DIR",
		Short: "Make a token, and show it this once",
		Long: `new prints a token on standard output, or writes it to a file for its owner alone; it cannot be shown again.
The store is made when it is not there.

` + rolesHelp + `

--json prints {"name", "token", "roles", "expires"}; the token is left out with --out.`,
		Example: `  sealboot-keyserver token new ann --roles register,audit --life 90d --out ann.token --store keys`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			of, err := access.ParseRoles(roles)
			if err != nil {
				return cli.Usagef("--roles: %w", err)
			}
			lasts, err := parseLife(life)
			if err != nil {
				return err
			}
			if _, err := os.Lstat(out); out != "" && err == nil {
				return cli.Refusef("%s is there already: choose another name", out)
			}
			p, token, err := access.NewTokenPrincipal(args[0], of, lasts, rand.Reader, time.Now())
			if err != nil {
				return cli.Usagef("%w", err)
			}
			defer clear(token)
			return store.withNew(cmd.Context(), func(s keeper) error {
				if err := s.Principals(time.Now).Add(cmd.Context(), p); err != nil {
					return err
				}
				return a.handOut(p, token, out, asJSON)
			})
		},
	}
	store.addServer(cmd)
	flags := cmd.Flags()
	flags.StringVar(&roles, "roles", "", "what it allows")
	flags.StringVar(&life, "life", "90d", "how long: days as 90d, or hours as 12h; at most 366d")
	flags.StringVar(&out, "out", "", "write the token to this file, for its owner alone")
	flags.BoolVar(&asJSON, "json", false, "print it as JSON")
	cmd.MarkFlagRequired("roles")
	return cmd
}

// handOut gives a token to who asked for it.
func (a *app) handOut(p access.Principal, token []byte, out string, asJSON bool) error {
	expires := p.Expires.UTC().Format(time.RFC3339)
	fmt.Fprintf(a.stderr, "token of %s: roles %s, until %s\n", p.Name, p.Roles, expires)
	line := append(append(make([]byte, 0, len(token)+1), token...), '\n')
	defer clear(line)
	if out != "" {
		if err := atomicfile.WriteFile(out, line, 0o600); err != nil {
			return fmt.Errorf("%w: token remove %s, and make it again", err, p.Name)
		}
	}
	if asJSON {
		text := ""
		if out == "" {
			text = string(token)
		}
		return a.printJSON(struct {
			Name    string `json:"name"`
			Token   string `json:"token,omitempty"`
			Roles   string `json:"roles"`
			Expires string `json:"expires"`
		}{p.Name, text, p.Roles.String(), expires})
	}
	if out != "" {
		return nil
	}
	_, err := a.stdout.Write(line)
	return err
}

// parseLife reads days, or what time.ParseDuration takes.
func parseLife(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= time.Second {
		return d, nil
	}
	return 0, cli.Usagef("--life %q is neither days, as 90d, nor a time as 12h", s)
}

func (a *app) addCertCommand() *cobra.Command {
	var store storeFlags
	var roles, cert string
	cmd := &cobra.Command{
		Use:   "add-cert NAME --cert FILE --roles ROLES --store DIR",
		Short: "Register a client certificate",
		Long: `add-cert registers a certificate's key, until the certificate ends. The server must know its CA (client_ca in the configuration).
The store is made when it is not there.

` + rolesHelp,
		Example: `  sealboot-keyserver admin add-cert ann --cert pki/ann.crt --roles admin --store keys`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			of, err := access.ParseRoles(roles)
			if err != nil {
				return cli.Usagef("--roles: %w", err)
			}
			c, err := pki.ReadCertificate(cert)
			if err != nil {
				return err
			}
			now := time.Now()
			if !now.Before(c.NotAfter) {
				return cli.Refusef("certificate %s ended at %s: ca renew makes another", cert, c.NotAfter.UTC().Format(time.RFC3339))
			}
			p, err := access.NewCertificatePrincipal(args[0], of, c, now)
			if err != nil {
				return cli.Usagef("%w", err)
			}
			return store.withNew(cmd.Context(), func(s keeper) error {
				if err := s.Principals(time.Now).Add(cmd.Context(), p); err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "certificate of %s is registered: roles %s, until %s\n", p.Name, p.Roles, p.Expires.UTC().Format(time.RFC3339))
				return nil
			})
		},
	}
	store.addServer(cmd)
	cmd.Flags().StringVar(&cert, "cert", "", "file of the certificate (PEM)")
	cmd.Flags().StringVar(&roles, "roles", "", "what it allows")
	cmd.MarkFlagRequired("cert")
	cmd.MarkFlagRequired("roles")
	return cmd
}

func (a *app) principalListCommand() *cobra.Command {
	var store storeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list --store DIR",
		Short: "List who may ask for what",
		Long: `list prints all principals by name, those with tokens and those with certificates.

--json prints an array of {"name", "kind", "digest", "roles", "created", "expires", "expired"}; the digest is of the credential.`,
		Example: `  sealboot-keyserver token list --store keys`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return store.with(cmd.Context(), func(s keeper) error {
				list, err := s.Principals(time.Now).List(cmd.Context())
				if err != nil {
					return err
				}
				return a.printPrincipals(list, time.Now(), asJSON)
			})
		},
	}
	store.addServer(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}

func (a *app) printPrincipals(list []access.Principal, now time.Time, asJSON bool) error {
	type row struct {
		Name    string      `json:"name"`
		Kind    access.Kind `json:"kind"`
		Digest  string      `json:"digest"`
		Roles   string      `json:"roles"`
		Created time.Time   `json:"created"`
		Expires time.Time   `json:"expires"`
		Expired bool        `json:"expired"`
	}
	rows := []row{}
	for _, p := range list {
		rows = append(rows, row{p.Name, p.Kind, p.Digest.String(), p.Roles.String(), p.Created.UTC(), p.Expires.UTC(), !now.Before(p.Expires)})
	}
	if asJSON {
		return a.printJSON(rows)
	}
	table := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tKIND\tROLES\tSTATE\tUNTIL")
	for _, r := range rows {
		state := "good"
		if r.Expired {
			state = "expired"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r.Name, r.Kind, r.Roles, state, r.Expires.Format(time.RFC3339))
	}
	return table.Flush()
}

func (a *app) principalRemoveCommand() *cobra.Command {
	var store storeFlags
	cmd := &cobra.Command{
		Use:     "remove NAME --store DIR",
		Short:   "Take a principal away, whatever its credential",
		Long:    `remove counts at once: the next request with the token or the certificate is refused.`,
		Example: `  sealboot-keyserver token remove ann --store keys`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return store.with(cmd.Context(), func(s keeper) error {
				if err := s.Principals(time.Now).Remove(cmd.Context(), args[0]); err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "%s is removed\n", args[0])
				return nil
			})
		},
	}
	store.addServer(cmd)
	return cmd
}
