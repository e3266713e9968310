package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/snp"
)

// serveFlags are the flags of serve.
type serveFlags struct {
	store           storeFlags
	listen          string
	tlsCert, tlsKey string
	addressFile     string
	trustRoots      []string
	ttl             time.Duration
	maxSessions     int
	rate            int
	logFormat       string
	asJSON          bool
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve --store DIR",
		Short: "Serve launch sessions and release secrets",
		Long: `serve answers hosts: it makes a launch session for a platform whose certificates lead to
AMD's root keys, and releases an image's secrets for a measurement that fits, once per session. See
keyserver/PROTOCOL.md.

Plain HTTP is served on loopback addresses alone; every other one needs --tls-cert and --tls-key (TLS 1.3).
When it listens, serve prints its URL on standard output, with --json as {"url"}; --address-file also
writes it to a file. The log goes to standard error. SIGTERM and SIGINT stop it after the requests under way.`,
		Example: `  sealboot-keyserver serve --store keys --listen 0.0.0.0:8443 --tls-cert tls.crt --tls-key tls.key
  sealboot-keyserver serve --store keys --listen 127.0.0.1:0 --address-file url --trust-root ca.bin`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), f) },
	}
	f.store.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8420", "address to listen on, HOST:PORT; port 0 chooses one")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "file of the server's certificates (PEM)")
	flags.StringVar(&f.tlsKey, "tls-key", "", "file of the certificate's private key (PEM)")
	flags.StringVar(&f.addressFile, "address-file", "", "write the server's URL to this file once it listens")
	flags.StringArrayVar(&f.trustRoots, "trust-root", nil, "trust one more root beside AMD's: SHA-256 of its public key in hex, or a file with that, an ARK, or ASK and ARK")
	flags.DurationVar(&f.ttl, "session-ttl", keyserver.DefaultSessionTTL, "time from a session to its measurement")
	flags.IntVar(&f.maxSessions, "max-sessions", keyserver.DefaultMaxSessions, "open sessions at once; the oldest give way")
	flags.IntVar(&f.rate, "rate", keyserver.DefaultRate, "requests a second from one source, with bursts of five seconds' worth")
	flags.StringVar(&f.logFormat, "log-format", "text", "form of the log: text or json")
	flags.BoolVar(&f.asJSON, "json", false, "print the URL as JSON")
	cmd.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) serve(ctx context.Context, f serveFlags) (err error) {
	if f.ttl <= 0 || f.maxSessions <= 0 || f.rate <= 0 {
		return cli.Usagef("--session-ttl, --max-sessions and --rate must be more than nothing")
	}
	log, err := newLog(a.stderr, f.logFormat)
	if err != nil {
		return err
	}
	roots, err := cli.TrustedRoots(f.trustRoots)
	if err != nil {
		return err
	}
	security, err := listenSecurity(f.listen, f.tlsCert, f.tlsKey)
	if err != nil {
		return err
	}
	store, err := f.store.open(ctx)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	reports, err := snp.NewVerifier(roots, nil)
	if err != nil {
		return err
	}
	server, err := keyserver.NewServer(keyserver.Config{
		Store: store, Roots: roots, SNP: reports, Random: rand.Reader, Now: time.Now, Log: log,
		SessionTTL: f.ttl, MaxSessions: f.maxSessions, Rate: f.rate,
	})
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("%w: choose another address with --listen", err)
	}
	defer listener.Close()
	url := "http://" + listener.Addr().String()
	if security != nil {
		url = "https://" + listener.Addr().String()
		listener = tls.NewListener(listener, security)
	}
	if err := a.announce(url, f); err != nil {
		return err
	}
	for _, root := range f.trustRoots {
		log.Warn("a root that is not AMD's is trusted: platforms under it may be software", "root", root)
	}
	log.Info("serving", "url", url, "store", f.store.dir, "session_ttl", f.ttl, "max_sessions", f.maxSessions)
	if err := server.Serve(ctx, listener); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

func (a *app) announce(url string, f serveFlags) error {
	if f.addressFile != "" {
		if err := atomicfile.WriteFile(f.addressFile, []byte(url+"\n"), 0o644); err != nil {
			return err
		}
	}
	if f.asJSON {
		return json.NewEncoder(a.stdout).Encode(struct {
			URL string `json:"url"`
		}{url})
	}
	_, err := fmt.Fprintln(a.stdout, url)
	return err
}

func newLog(w io.Writer, format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	}
	return nil, cli.Usagef("--log-format %q is neither text nor json", format)
}

// listenSecurity gives the TLS configuration, nil for plain HTTP, which only a loopback address may have.
func listenSecurity(listen, certFile, keyFile string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, cli.Usagef("--listen %q is not HOST:PORT", listen)
	}
	if (certFile == "") != (keyFile == "") {
		return nil, cli.Usagef("--tls-cert and --tls-key belong together")
	}
	if certFile == "" {
		// Names are not resolved: what is loopback now need not be so when it is listened on.
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			return nil, cli.Usagef("--listen %s without TLS: give --tls-cert and --tls-key, or listen on 127.0.0.1 or [::1]", listen)
		}
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("read TLS certificate: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}, nil
}
