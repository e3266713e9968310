package main

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver/pki"
)

func (a *app) caCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "A small certificate authority, for a start",
		Long: `ca makes certificates for the key server and for those who ask it. Who has a CA already needs none of this.

The CA speaks for the hosts that it was made for alone. Its key, ca.key, belongs on another machine than the server. Keys are made where
they stay: ca server and ca client make them here, or sign with --public-key one that was made elsewhere.`,
	}
	cmd.AddCommand(a.caInitCommand(), a.caIssueCommand(true), a.caIssueCommand(false), a.caRenewCommand())
	return cmd
}

func (a *app) caInitCommand() *cobra.Command {
	var admin string
	var hosts []string
	cmd := &cobra.Command{
		Use:   "init DIR --host NAME...",
		Short: "Make a CA, the server's certificate and a first administrator's",
		Long: `init makes a folder with ca.crt and ca.key, server.crt and server.key for the hosts, and the certificate and key of a first
administrator. Nothing that is there is replaced. Hosts are DNS names and IP addresses under which the server is asked.`,
		Example: `  sealboot-keyserver ca init pki --host keys.example.org --host 192.0.2.7
  sealboot-keyserver admin add-cert admin --cert pki/admin.crt --roles admin --store keys`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := pki.Start(args[0], hosts, admin, rand.Reader, time.Now()); err != nil {
				return caError(err)
			}
			fmt.Fprintf(a.stderr, "CA, server and administrator %s are in %s: take ca.key to another machine, and register the administrator with admin add-cert\n", admin, args[0])
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&hosts, "host", nil, "DNS name or IP address of the server")
	cmd.Flags().StringVar(&admin, "admin", "admin", "name of the first administrator")
	cmd.MarkFlagRequired("host")
	return cmd
}

// caError tells wrong use from a no.
func caError(err error) error {
	switch {
	case errors.Is(err, pki.ErrHost):
		return cli.Usagef("--host %w", err)
	case errors.Is(err, pki.ErrThere), errors.Is(err, pki.ErrNotIssued), errors.Is(err, pki.ErrOutside):
		return cli.Refusef("%s", cli.OneLine(err))
	}
	return err
}

// authority opens the CA in a folder.
func authority(dir string) (*pki.Authority, error) {
	c, err := pki.ReadCertificate(filepath.Join(dir, pki.AuthorityCertificate))
	if err != nil {
		return nil, err
	}
	key, err := pki.ReadKey(filepath.Join(dir, pki.AuthorityKey))
	if err != nil {
		return nil, err
	}
	return pki.OpenAuthority(c, key, rand.Reader)
}

// caIssueCommand makes ca server and ca client.
func (a *app) caIssueCommand(server bool) *cobra.Command {
	var dir, public, out, life string
	var hosts []string
	cmd := &cobra.Command{
		Use:     "client NAME --ca DIR --out PREFIX",
		Short:   "Make the certificate of an administrator or a host",
		Long:    `client makes PREFIX.crt and PREFIX.key for a principal. The key server knows it once admin add-cert has registered it.`,
		Example: `  sealboot-keyserver ca client ann --ca pki --out pki/ann`,
		Args:    cobra.ExactArgs(1),
	}
	if server {
		cmd.Use, cmd.Short, cmd.Args = "server --host NAME... --ca DIR --out PREFIX", "Make another certificate for a server", cobra.NoArgs
		cmd.Long = `server makes PREFIX.crt and PREFIX.key for hosts that the CA speaks for.`
		cmd.Example = `  sealboot-keyserver ca server --host keys.example.org --ca pki --out second`
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		lasts, err := parseLife(life)
		if err != nil {
			return err
		}
		ca, err := authority(dir)
		if err != nil {
			return err
		}
		key, keep, err := publicKey(public, out+".key")
		if err != nil {
			return err
		}
		var c *x509.Certificate
		if server {
			c, err = ca.Server(hosts, key, lasts, time.Now())
		} else {
			c, err = ca.Client(args[0], key, lasts, time.Now())
		}
		if err != nil {
			return caError(err)
		}
		if err := keep(); err != nil {
			return caError(err)
		}
		if err := pki.WriteCertificate(out+".crt", c); err != nil {
			return err
		}
		fmt.Fprintf(a.stderr, "certificate is in %s.crt, until %s\n", out, c.NotAfter.UTC().Format(time.RFC3339))
		return nil
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "ca", "", "folder of the CA (ca.crt and ca.key)")
	flags.StringVar(&out, "out", "", "beginning of the files' names")
	flags.StringVar(&public, "public-key", "", "sign this public key (PEM) instead of making a key")
	flags.StringVar(&life, "life", "397d", "how long: days as 90d, or hours as 12h")
	cmd.MarkFlagRequired("ca")
	cmd.MarkFlagRequired("out")
	if server {
		flags.StringArrayVar(&hosts, "host", nil, "DNS name or IP address of the server")
		cmd.MarkFlagRequired("host")
	}
	return cmd
}

// publicKey reads a public key, or makes a key; keep writes the key that was made.
func publicKey(public, keyFile string) (key crypto.PublicKey, keep func() error, err error) {
	if public == "" {
		made, err := pki.NewKey(rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		return made.Public(), func() error { return pki.WriteKey(keyFile, made) }, nil
	}
	text, err := cli.ReadBounded(public, 64<<10)
	if err != nil {
		return nil, nil, fmt.Errorf("read public key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, nil, fmt.Errorf("read public key: %s has no PEM block PUBLIC KEY: openssl pkey -pubout makes one", public)
	}
	if key, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return nil, nil, fmt.Errorf("read public key %s: %w", public, err)
	}
	return key, func() error { return nil }, nil
}

func (a *app) caRenewCommand() *cobra.Command {
	var dir, life string
	cmd := &cobra.Command{
		Use:   "renew CERTIFICATE... --ca DIR",
		Short: "Make certificates last longer",
		Long: `renew signs the same keys once more, for the same names, and replaces the certificates' files. A running server takes its
own up within seconds. A principal stays known until the end of the certificate that was registered: admin remove and admin add-cert register
the new one.`,
		Example: `  sealboot-keyserver ca renew pki/server.crt --ca pki`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			lasts, err := parseLife(life)
			if err != nil {
				return err
			}
			ca, err := authority(dir)
			if err != nil {
				return err
			}
			for _, name := range args {
				c, err := pki.ReadCertificate(name)
				if err != nil {
					return err
				}
				if c, err = ca.Renew(c, lasts, time.Now()); err != nil {
					return caError(err)
				}
				if err := pki.WriteCertificate(name, c); err != nil {
					return err
				}
				fmt.Fprintf(a.stderr, "%s lasts until %s\n", name, c.NotAfter.UTC().Format(time.RFC3339))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "ca", "", "folder of the CA (ca.crt and ca.key)")
	cmd.Flags().StringVar(&life, "life", "397d", "how long: days as 90d, or hours as 12h")
	cmd.MarkFlagRequired("ca")
	return cmd
}
