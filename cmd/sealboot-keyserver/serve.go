package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/internal/harden"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/admin"
	"github.com/sealboot/sealboot/keyserver/config"
)

// serveFlags are the flags of serve.
type serveFlags struct {
	store               storeFlags
	listen              string
	tlsCert, tlsKey     string
	addressFile         string
	trustRoots          []string
	ttl                 time.Duration
	maxSessions         int
	rate, imageRate     int
	logFormat, logLevel string
	asJSON              bool
}

// configured are the flags that a configuration stands for.
var configured = []string{"store", "store-key", "listen", "tls-cert", "tls-key", "trust-root", "session-ttl", "max-sessions", "rate", "image-rate", "log-format", "log-level"}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve (--config FILE | --store DIR)",
		Short: "Serve sessions and challenges, and release secrets",
		Long: `serve answers hosts and guests: it makes a launch session for a platform whose certificates lead to
AMD's root keys, and releases an image's secrets for a measurement that fits, once per session; and it
releases them to running SEV-SNP guests by their reports. See keyserver/PROTOCOL.md.

With --config everything stands in a file, which packaging/keyserver.toml explains: TLS with client certificates, SEV-SNP's
certificates, metrics, the owner's page. For the small case there are flags, and no file: plain HTTP is served on loopback addresses
alone; every other one needs --tls-cert and --tls-key (TLS 1.3), which may be replaced while it runs.

When it listens, serve prints its URL on standard output, with --json as {"url"} and, where they are configured, "metrics" and "page";
--address-file also writes the URL to a file, and systemd is told (Type=notify). The log goes to standard error. SIGTERM and SIGINT stop
it after the requests under way. It answers GET /v1/health with 200 as long as it can serve: so it is ready when it answers.`,
		Example: `  sealboot-keyserver serve --config /etc/sealboot/keyserver.toml
  sealboot-keyserver serve --store keys --listen 0.0.0.0:8443 --tls-cert server.crt --tls-key server.key
  sealboot-keyserver serve --store keys --listen 127.0.0.1:0 --address-file url --trust-root ca.bin`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.settings()
			if err != nil {
				return err
			}
			return a.serve(cmd.Context(), c, f)
		},
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
	flags.IntVar(&f.imageRate, "image-rate", keyserver.DefaultImageRate, "sessions a second in the name of one image, likewise")
	flags.StringVar(&f.logFormat, "log-format", "text", "form of the log: text or json")
	flags.StringVar(&f.logLevel, "log-level", "info", "what to log: debug, info, warn or error, and what is graver")
	flags.BoolVar(&f.asJSON, "json", false, "print the URL as JSON")
	cmd.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range configured {
		cmd.MarkFlagsMutuallyExclusive("config", name)
	}
	return cmd
}

// settings are those of the configuration, or of the flags.
func (f *serveFlags) settings() (*config.Config, error) {
	if f.store.config != "" {
		return config.Load(f.store.config, outside())
	}
	if f.ttl <= 0 || f.maxSessions <= 0 || f.rate <= 0 || f.imageRate <= 0 {
		return nil, cli.Usagef("--session-ttl, --max-sessions, --rate and --image-rate must be more than nothing")
	}
	p, err := f.store.place()
	if err != nil {
		return nil, err
	}
	c := &config.Config{StoreKey: p.key, TrustRoots: f.trustRoots, SessionTTL: f.ttl, MaxSessions: f.maxSessions, Rate: f.rate, ImageRate: f.imageRate,
		Listen: config.Listener{Address: f.listen}, SNP: new(config.SNP)} // by the certificates that guests bring
	if keyserver.IsPostgres(p.location) {
		c.Store.URL = p.location
	} else {
		c.Store.Folder = p.location
	}
	if c.Log.JSON = f.logFormat == "json"; !c.Log.JSON && f.logFormat != "text" {
		return nil, cli.Usagef("--log-format %q is neither text nor json", f.logFormat)
	}
	if err := c.Log.Level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, cli.Usagef("--log-level %q is none of debug, info, warn, error", f.logLevel)
	}
	return c, f.security(c)
}

// security allows plain HTTP to a loopback address alone.
func (f *serveFlags) security(c *config.Config) error {
	host, _, err := net.SplitHostPort(f.listen)
	if err != nil {
		return cli.Usagef("--listen %q is not HOST:PORT", f.listen)
	}
	if (f.tlsCert == "") != (f.tlsKey == "") {
		return cli.Usagef("--tls-cert and --tls-key belong together")
	}
	if f.tlsCert != "" {
		c.Listen.TLS, c.TLS = true, &config.TLS{Cert: f.tlsCert, Key: f.tlsKey}
		return nil
	}
	// Names are not resolved: what is loopback now need not be so when it is listened on.
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return cli.Usagef("--listen %s without TLS: give --tls-cert and --tls-key, or listen on 127.0.0.1 or [::1]", f.listen)
	}
	return nil
}

func newLog(a *app, c config.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.JSON {
		return slog.New(slog.NewJSONHandler(a.stderr, options))
	}
	return slog.New(slog.NewTextHandler(a.stderr, options))
}

// garbagePercent is how much of what lives may be garbage before it is collected. A server has some 4 MiB that live, and the
// cryptography of one exchange leaves 100 to 300 KiB behind: at Go's 100 percent it would collect every few dozen exchanges.
const garbagePercent = 400

func (a *app) serve(ctx context.Context, c *config.Config, f serveFlags) (err error) {
	log := newLog(a, c.Log)
	if err := harden.Process(log); err != nil {
		return err
	}
	debug.SetGCPercent(garbagePercent)
	parts, err := prepare(ctx, c, log)
	if err != nil {
		return err
	}
	defer parts.close()
	store, err := parts.place.openWith(ctx, parts.key)
	if err != nil {
		return err
	}
	defer closing(store, &err)
	known := access.NewAuthenticator(store.Principals(time.Now), time.Now)
	hosts := known
	if c.TLS == nil || !c.TLS.RequireReleaseRole {
		hosts = nil // anybody may ask: what is released, only the right machine can read
	}
	server, err := keyserver.NewServer(keyserver.Config{
		Store: store, Roots: parts.roots, SNP: parts.reports, Random: rand.Reader, Now: time.Now, Log: log, Hosts: hosts,
		SessionTTL: c.SessionTTL, MaxSessions: c.MaxSessions, Rate: c.Rate, ImageRate: c.ImageRate,
	})
	if err != nil {
		return err
	}
	administration, err := admin.New(admin.Config{Store: store, Principals: store.Principals(time.Now), Known: known, Random: rand.Reader, Now: time.Now, Log: log,
		Rate: cmp.Or(c.Rate, keyserver.DefaultRate), SNP: parts.reports})
	if err != nil {
		return err
	}
	server.Administer(administration)
	doors, err := openDoors(ctx, c, parts, server, known, log)
	if err != nil {
		return err
	}
	defer doors.close()
	if err := a.announce(doors, f); err != nil {
		return err
	}
	for _, root := range c.TrustRoots {
		log.Warn("a root that is not AMD's is trusted: platforms under it may be software", "root", root)
	}
	log.Info("serving", append(doors.facts(), "store", parts.place.location, "snp", parts.reports != nil)...)
	if err := notify("READY=1"); err != nil {
		log.Warn("cannot tell systemd that the key server is ready", "error", err)
	}
	stopping := context.AfterFunc(ctx, func() { _ = notify("STOPPING=1") })
	defer stopping()
	if err := doors.serve(ctx, server); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

func (a *app) announce(d *doors, f serveFlags) error {
	url := d.url("serve")
	if f.addressFile != "" {
		if err := atomicfile.WriteFile(f.addressFile, []byte(url+"\n"), 0o644); err != nil {
			return err
		}
	}
	if f.asJSON {
		return a.printJSON(struct {
			URL     string `json:"url"`
			Metrics string `json:"metrics,omitempty"`
			Page    string `json:"page,omitempty"`
		}{url, d.url("metrics"), d.url("page")})
	}
	_, err := fmt.Fprintln(a.stdout, url)
	return err
}

// notify tells systemd of a change of state (sd_notify(3)), if systemd asks to be told.
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"}) // an @ in front is the abstract name space's
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte(state))
	return errors.Join(err, conn.Close())
}
