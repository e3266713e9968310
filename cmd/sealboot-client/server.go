package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver/client"
)

// serverFlags name the key server, and what this side shows it.
type serverFlags struct{ url, ca, cert, key, token string }

func (f *serverFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.url, "server", "", "URL of the key server")
	cmd.Flags().StringVar(&f.ca, "server-ca", "", "PEM certificates that the key server's must lead to (default: the system's)")
}

func (f *serverFlags) client() (*client.Client, error) {
	switch {
	case f.url == "":
		return nil, cli.Usagef("no key server: give --server URL")
	case (f.cert == "") != (f.key == ""):
		return nil, cli.Usagef("--client-cert and --client-key belong together")
	}
	security := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		pem, err := readCertificates("--server-ca", f.ca)
		if err != nil {
			return nil, err
		}
		security.RootCAs = x509.NewCertPool()
		if !security.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificates (--server-ca): %s has no PEM certificate", f.ca)
		}
	}
	if f.cert != "" {
		if err := private(f.key); err != nil {
			return nil, err
		}
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("read this host's certificate: %w", err)
		}
		security.Certificates = []tls.Certificate{pair}
	}
	c, err := client.New(f.url, &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: security}})
	if err != nil {
		return nil, cli.Usagef("%w", err)
	}
	if f.token == "" {
		return c, nil
	}
	token, err := readToken(f.token)
	if err != nil {
		return nil, err
	}
	defer clear(token)
	if c, err = c.Token(token); err != nil {
		return nil, cli.Usagef("%w", err)
	}
	return c, nil
}

// maxToken bounds a token's file; a token has 53 bytes.
const maxToken = 1024

func readToken(name string) ([]byte, error) {
	if err := private(name); err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	token := bytes.TrimSuffix(text, []byte("\n"))
	if len(token) == 0 || bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		clear(text)
		return nil, fmt.Errorf("read token: %s is not one line with a token", name)
	}
	return token, nil
}

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
