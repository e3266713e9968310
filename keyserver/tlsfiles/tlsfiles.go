// Package tlsfiles keeps a server's TLS configuration in step with files: certificate, key and, where clients
// have certificates, their CA.
//
// TLS is 1.3 and nothing less. Sessions are not resumed, so that every connection is judged by the CA and
// the clock of its own time. The files are looked at during handshakes, at most every five seconds; when one has changed, all
// are read again. Files that do not fit together, do not read or are outside their time change nothing: the old
// ones stay, and the log says once what is wrong. So files may be replaced one after the other, key first. Connections that are open stay as they are.
//
// At the start the same problems are errors, all at once: Open.
package tlsfiles

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// interval is the shortest time between two looks at the files.
const interval = 5 * time.Second

// soon is when a certificate's end is worth a warning.
const soon = 14 * 24 * time.Hour

// maxFile bounds each file in bytes.
const maxFile = 256 << 10

// Config names the files. Now and Log must be given.
type Config struct {
	Cert, Key string // PEM: the server's certificate with its chain, and its private key

	// ClientCA is a PEM file of the CAs that sign clients' certificates. Without it clients are not asked for one.
	ClientCA string
	// RequireClientCert ends the handshake of a client without one; it needs ClientCA.
	RequireClientCert bool

	Now func() time.Time
	Log *slog.Logger
}

// Errors of files, beside those of the system.
var (
	ErrCertificate = errors.New("server certificate is of no use")
	ErrClientCA    = errors.New("client CA is of no use")
	ErrKeyAccess   = errors.New("others may read the private key")
)

// Files is a TLS configuration that follows its files. It is safe for concurrent use.
type Files struct {
	config  Config
	current atomic.Pointer[loaded]

	mu     sync.Mutex // held by who looks at the files
	looked time.Time
	seen   []stamp // when they were last read, with success or without
}

// loaded is what the files gave.
type loaded struct {
	tls     *tls.Config
	expires time.Time
}

// stamp tells whether a file has changed; of a file that is not there it is zero.
type stamp struct {
	device, inode uint64
	size          int64
	modified      time.Time
}

// Open reads the files.
func Open(c Config) (*Files, error) {
	if c.Now == nil || c.Log == nil {
		return nil, errors.New("TLS files need a clock and a log")
	}
	if c.RequireClientCert && c.ClientCA == "" {
		return nil, errors.New("client certificates are required, but no client CA is given")
	}
	f := &Files{config: c}
	now := c.Now()
	f.looked, f.seen = now, f.stamps()
	next, err := f.load(now)
	if err != nil {
		return nil, err
	}
	f.use(next, now)
	return f, nil
}

// TLS gives the configuration for a listener.
func (f *Files) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			f.refresh()
			return f.current.Load().tls, nil
		},
	}
}

// Expires gives the end of the certificate in use, for metrics.
func (f *Files) Expires() time.Time { return f.current.Load().expires }

// refresh reads the files again if it is time and one has changed. One caller does it; the others go on with what there is.
func (f *Files) refresh() {
	if !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	now := f.config.Now()
	if since := now.Sub(f.looked); since >= 0 && since < interval {
		return
	}
	f.looked = now
	stamps := f.stamps() // before the files are read: a change in between is seen the next time
	if equal(stamps, f.seen) {
		return
	}
	f.seen = stamps
	next, err := f.load(now)
	if err != nil {
		f.config.Log.Error("TLS files have changed and are of no use: the old ones stay in use", "error", err, "expires", f.Expires())
		return
	}
	f.use(next, now)
}

func (f *Files) use(next *loaded, now time.Time) {
	f.current.Store(next)
	level, text := slog.LevelInfo, "TLS files are read"
	if next.expires.Sub(now) < soon {
		level, text = slog.LevelWarn, "server certificate ends soon: renew it"
	}
	f.config.Log.Log(context.Background(), level, text, "certificate", f.config.Cert, "expires", next.expires)
}

func (f *Files) names() []string { return []string{f.config.Cert, f.config.Key, f.config.ClientCA} }

func (f *Files) stamps() []stamp {
	stamps := make([]stamp, 0, 3)
	for _, name := range f.names() {
		var s stamp
		if info, err := os.Stat(name); name != "" && err == nil {
			s.size, s.modified = info.Size(), info.ModTime()
			if sys, ok := info.Sys().(*syscall.Stat_t); ok {
				s.device, s.inode = uint64(sys.Dev), sys.Ino
			}
		}
		stamps = append(stamps, s)
	}
	return stamps
}

func equal(a, b []stamp) bool {
	for i := range a {
		if a[i].device != b[i].device || a[i].inode != b[i].inode || a[i].size != b[i].size || !a[i].modified.Equal(b[i].modified) {
			return false
		}
	}
	return true
}

// load makes a configuration of the files, or says all that is wrong with them.
func (f *Files) load(now time.Time) (*loaded, error) {
	c := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
		Time:                   f.config.Now,
	}
	pair, err := readPair(f.config.Cert, f.config.Key, now)
	if f.config.ClientCA != "" {
		var problem error
		if c.ClientCAs, problem = readCAs(f.config.ClientCA, now); problem != nil {
			err = errors.Join(err, problem)
		}
		c.ClientAuth = tls.VerifyClientCertIfGiven
		if f.config.RequireClientCert {
			c.ClientAuth = tls.RequireAndVerifyClientCert
		}
	}
	if err != nil {
		return nil, err
	}
	c.Certificates = []tls.Certificate{*pair}
	return &loaded{tls: c, expires: pair.Leaf.NotAfter}, nil
}

func readPair(certName, keyName string, now time.Time) (*tls.Certificate, error) {
	cert, certErr := read(certName, 0)
	key, keyErr := read(keyName, 0o027) // a group may read it, as distributions' ssl-cert does
	defer clear(key)
	if certErr != nil || keyErr != nil {
		return nil, errors.Join(certErr, keyErr)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %s with %s: %w", ErrCertificate, certName, keyName, err)
	}
	if err := checkChain(&pair, now); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCertificate, certName, err)
	}
	return &pair, nil
}

// checkChain finds what would make every client refuse the server.
func checkChain(pair *tls.Certificate, now time.Time) error {
	leaf := pair.Leaf
	switch {
	case leaf.IsCA:
		return errors.New("it is a CA's: the server's own must come first")
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("it begins at %s: is the clock right?", leaf.NotBefore.UTC().Format(time.RFC3339))
	case !now.Before(leaf.NotAfter):
		return fmt.Errorf("it ended at %s: renew it", leaf.NotAfter.UTC().Format(time.RFC3339))
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		return errors.New("it has no name: clients look at subjectAltName alone")
	}
	forServers := len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0
	for _, use := range leaf.ExtKeyUsage {
		forServers = forServers || use == x509.ExtKeyUsageServerAuth || use == x509.ExtKeyUsageAny
	}
	if !forServers {
		return errors.New("it is not for servers (extended key usage)")
	}
	for i, der := range pair.Certificate[1:] {
		issuer, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("certificate %d: %w", i+2, err)
		}
		if err := leaf.CheckSignatureFrom(issuer); err != nil {
			return fmt.Errorf("certificate %d did not sign the one before it: put them in order", i+2)
		}
		leaf = issuer
	}
	return nil
}

func readCAs(name string, now time.Time) (*x509.CertPool, error) {
	text, err := read(name, 0)
	if err != nil {
		return nil, err
	}
	pool, n := x509.NewCertPool(), 0
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%w: %s: something else than certificates in PEM is in it", ErrClientCA, name)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrClientCA, name, err)
		}
		n++
		if !c.IsCA || !c.BasicConstraintsValid || now.Before(c.NotBefore) || !now.Before(c.NotAfter) {
			return nil, fmt.Errorf("%w: %s: certificate %d, of %q, is not a CA's, or outside its time (it ends at %s)", ErrClientCA, name, n,
				c.Subject.CommonName, c.NotAfter.UTC().Format(time.RFC3339))
		}
		pool.AddCert(c)
		text = rest
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: %s: no certificate in it", ErrClientCA, name)
	}
	return pool, nil
}

// read reads a file; none of the forbidden permission bits may be set.
func read(name string, forbidden os.FileMode) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read TLS file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read TLS file: %w", err)
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return nil, fmt.Errorf("%w: %s (mode %04o): chmod 0600 it", ErrKeyAccess, name, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxFile)
	}
	if err != nil {
		clear(text)
		return nil, fmt.Errorf("read TLS file: %w", err)
	}
	return text, nil
}
