package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/config"
)

// doors are the addresses that a server listens on.
type doors struct{ list []*door }

type door struct {
	name     string // serve, metrics, page
	url      string
	listener net.Listener
	handler  http.Handler // nil: the server's own
}

// openDoors listens on every address. Metrics and page are for everybody on this machine, and elsewhere for those with the role audit.
func openDoors(ctx context.Context, c *config.Config, p *parts, server *keyserver.Server, known *access.Authenticator, log *slog.Logger) (*doors, error) {
	d := new(doors)
	guard := func(l *config.Listener, h http.Handler) http.Handler {
		if l.TLS {
			return keyserver.RoleOnly(known, access.ToReadAudit, log, h)
		}
		return keyserver.LoopbackOnly(h)
	}
	problems := []error{d.open(ctx, "serve", c.Listen, nil, p)}
	if c.Metrics != nil {
		ends := make(map[string]func() (time.Time, bool))
		if p.files != nil {
			ends["server"] = func() (time.Time, bool) { return p.files.Expires(), true }
		}
		m := server.Monitor(ends)
		p.metrics.Store(m)
		problems = append(problems, d.open(ctx, "metrics", *c.Metrics, guard(c.Metrics, m.Handler()), p))
	}
	if c.Page != nil {
		page, err := server.OwnersPage(c.Listen.Address)
		if err == nil {
			err = d.open(ctx, "page", *c.Page, guard(c.Page, page), p)
		}
		problems = append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *doors) open(ctx context.Context, name string, l config.Listener, handler http.Handler, p *parts) error {
	listener, err := new(net.ListenConfig).Listen(ctx, l.Network(), l.Address)
	if err != nil {
		return fmt.Errorf("%s: %w: choose another address, or stop what has it", name, err)
	}
	one := &door{name: name, url: "http://" + listener.Addr().String(), listener: listener, handler: handler}
	if l.TLS {
		one.url, one.listener = "https://"+listener.Addr().String(), tls.NewListener(listener, p.files.TLS())
	}
	d.list = append(d.list, one)
	return nil
}

func (d *doors) close() {
	for _, one := range d.list {
		one.listener.Close()
	}
}

// url gives a door's, "" if there is no such door.
func (d *doors) url(name string) string {
	for _, one := range d.list {
		if one.name == name {
			return one.url
		}
	}
	return ""
}

// facts are for the log.
func (d *doors) facts() []any {
	var facts []any
	for _, one := range d.list {
		name := one.name
		if name == "serve" {
			name = "url"
		}
		facts = append(facts, name, one.url)
	}
	return facts
}

// serve answers at every door until the context ends, or one fails.
func (d *doors) serve(ctx context.Context, server *keyserver.Server) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(d.list))
	for _, one := range d.list {
		go func() {
			defer stop() // all end together
			if one.handler == nil {
				ended <- server.Serve(ctx, one.listener)
			} else {
				ended <- server.ServeHandler(ctx, one.listener, one.handler)
			}
		}()
	}
	var errs []error
	for range d.list {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}
