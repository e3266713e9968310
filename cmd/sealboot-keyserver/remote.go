package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/adminclient"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// serverFlags name a server instead of a store, and who asks it.
type serverFlags struct{ url, ca, token, cert, key string }

// addServer adds the flags to a command that also works over the network.
func (f *storeFlags) addServer(cmd *cobra.Command) {
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.server.url, "server", "", "URL of a running server to administer, instead of --store")
	flags.StringVar(&f.server.token, "token-file", "", "with --server: file of your token")
	flags.StringVar(&f.server.cert, "client-cert", "", "with --server: your certificate (PEM)")
	flags.StringVar(&f.server.key, "client-key", "", "with --server: the certificate's private key (PEM)")
	flags.StringVar(&f.server.ca, "server-ca", "", "with --server: PEM certificates that the server's must lead to (default: the system's)")
	for _, local := range []string{"store", "store-key", "config"} {
		cmd.MarkFlagsMutuallyExclusive("server", local)
	}
	cmd.MarkFlagsMutuallyExclusive("token-file", "client-cert")
	cmd.MarkFlagsRequiredTogether("client-cert", "client-key")
	for _, name := range []string{"token-file", "client-key", "client-cert", "server-ca"} {
		cmd.MarkFlagFilename(name)
	}
}

// remote says whether the flags name a server.
func (f *storeFlags) remote() bool { return f.server.url != "" }

// timeout of a request over the network. Streams have none of their own: a stalled one is cut by the server.
const timeout = time.Minute

// client is one of the server, whose answers are messages; stream is for those that are streams.
func (f *serverFlags) client() (*adminclient.Client, error) { return f.connect(timeout) }

func (f *serverFlags) stream() (*adminclient.Client, error) { return f.connect(0) }

func (f *serverFlags) connect(limit time.Duration) (*adminclient.Client, error) {
	if f.token == "" && f.cert == "" {
		return nil, cli.Usagef("--server asks who you are: give --token-file, or --client-cert and --client-key")
	}
	security := &tls.Config{MinVersion: tls.VersionTLS13}
	if f.ca != "" {
		text, err := cli.ReadBounded(f.ca, maxPEM)
		if err != nil {
			return nil, err
		}
		security.RootCAs = x509.NewCertPool()
		if !security.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--server-ca %s: it has no certificate (PEM)", f.ca)
		}
	}
	var token []byte
	if f.cert != "" {
		if err := private(f.key); err != nil {
			return nil, err
		}
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		security.Certificates = []tls.Certificate{pair}
	} else {
		if err := private(f.token); err != nil {
			return nil, err
		}
		text, err := cli.ReadBounded(f.token, int64(access.TokenSize)+1)
		if err != nil {
			return nil, err
		}
		defer clear(text)
		token = bytes.TrimSuffix(text, []byte("\n"))
		if _, err := access.TokenDigest(string(token)); err != nil {
			return nil, fmt.Errorf("--token-file %s: %w", f.token, err)
		}
	}
	c, err := adminclient.New(f.url, token, &http.Client{Timeout: limit,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: security}})
	if err != nil {
		return nil, cli.Usagef("--server: %w", err)
	}
	return c, nil
}

// maxPEM bounds a file of certificates.
const maxPEM = 1 << 20

// private refuses a file with a secret that others than its owner may read.
func private(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return fmt.Errorf("others may read %s (mode %04o): chmod 0600 it", name, mode.Perm())
	}
	return nil
}

// remoteNo gives exit code 3 to what a server refuses.
func remoteNo(err error) error {
	refused := (*adminclient.Refused)(nil)
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Class {
	case wire.NothingThere, wire.Conflict, wire.Changed, wire.Unauthenticated, wire.Forbidden:
		return cli.Refusef("%s", cli.OneLine(err))
	}
	return err
}

// withStream has do read a stream of the server.
func (f *storeFlags) withStream(ctx context.Context, do func(context.Context, *adminclient.Client) error) error {
	c, err := f.server.stream()
	if err != nil {
		return err
	}
	return remoteNo(do(ctx, c))
}
