package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/config"
	"github.com/sealboot/sealboot/keyserver/metrics"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/tlsfiles"
	"github.com/sealboot/sealboot/sev"
)

// parts are what a server is made of, before it opens its store.
type parts struct {
	place   place
	key     *keyserver.Key
	roots   sev.RootSet
	reports *snp.Verifier   // nil: SEV-SNP is not served
	files   *tlsfiles.Files // nil: no TLS
	close   func()
	metrics atomic.Pointer[metrics.Metrics] // which counts questions to AMD's key service, once it is there
}

// prepare brings together what the configuration names. The error has everything that is wrong with it.
func prepare(ctx context.Context, c *config.Config, log *slog.Logger) (*parts, error) {
	p := &parts{place: placeOf(c), close: func() {}}
	var problems []error
	note := func(err error) bool {
		if err != nil {
			problems = append(problems, err)
		}
		return err == nil
	}
	var err error
	p.roots, err = cli.TrustedRoots(c.TrustRoots)
	if note(err) && c.SNP != nil {
		p.reports, p.close, err = snp.Open(p.roots, snp.Sources{Bundle: c.SNP.Bundle, KDS: c.SNP.KDS, Cache: c.SNP.Cache,
			HTTP: new(http.Client), Now: time.Now, Told: p.toldOfKDS})
		if !note(err) {
			p.close = func() {}
		}
	}
	if c.TLS != nil {
		p.files, err = tlsfiles.Open(tlsfiles.Config{Cert: c.TLS.Cert, Key: c.TLS.Key, ClientCA: c.TLS.ClientCA,
			RequireClientCert: c.TLS.RequireClientCert, Now: time.Now, Log: log})
		note(err)
	}
	there, err := keyserver.StoreExists(ctx, p.place.location, p.place.options...)
	if note(err) && !there {
		note(fmt.Errorf("%w in %s: sealboot-keyserver register makes one", keyserver.ErrNoStore, p.place.location))
	}
	p.key, err = readKey(ctx, c.StoreKey)
	if note(err); len(problems) == 0 {
		return p, nil
	}
	p.close()
	if len(problems) == 1 {
		return nil, problems[0] // with its exit code
	}
	return nil, errors.Join(problems...)
}

func (p *parts) toldOfKDS(o snp.Outcome, alone time.Duration) {
	if m := p.metrics.Load(); m != nil {
		m.KDS(string(o), alone)
	}
}

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check a server's configuration",
		Long:  `The configuration is explained in packaging/keyserver.toml, which can be used as it stands.`,
	}
	cmd.AddCommand(a.configCheckCommand())
	return cmd
}

func (a *app) configCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say everything that would keep a server from starting",
		Long: `check reads a configuration and everything that it names, the store key too, as serve would, and reports all mistakes at once,
each with its line and what to do. It opens no port and changes nothing. Run it as the server's user.

Exit code 3: a server would not start.`,
		Example: `  sealboot-keyserver config check /etc/sealboot/keyserver.toml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := config.Load(args[0], outside())
			if err == nil {
				var p *parts
				if p, err = prepare(cmd.Context(), c, slog.New(slog.DiscardHandler)); err == nil {
					p.close()
				}
			}
			if err != nil {
				return cli.Refusef("%w", err)
			}
			fmt.Fprintf(a.stderr, "%s is good\n", args[0])
			return nil
		},
	}
}
