package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/sealboot/sealboot/keyserver/storekey"
)

// Config is what a file says, checked. Numbers and times that the file does not give are zero: the server has defaults.
type Config struct {
	Listen      Listener
	Store       Store
	StoreKey    storekey.Spec
	TLS         *TLS // nil: none
	TrustRoots  []string
	SessionTTL  time.Duration
	MaxSessions int
	Rate        int
	ImageRate   int
	Log         Log
	Metrics     *Listener // nil: none
	Page        *Listener // nil: none
	SNP         *SNP      // nil: not served
}

// Listener is an address to listen on.
type Listener struct {
	Address string
	TLS     bool // false only for a loopback address
}

// Network gives the network for net.Listen: under "tcp" Go would take 0.0.0.0 for all IPv6 addresses too.
func (l Listener) Network() string {
	a, err := netip.ParseAddrPort(l.Address)
	switch {
	case err != nil: // no address: all of both kinds
		return "tcp"
	case a.Addr().Is4():
		return "tcp4"
	}
	return "tcp6"
}

// Store is a folder, or else a database of PostgreSQL.
type Store struct {
	Folder       string
	URL          string // without a password
	PasswordFile string // may be empty: the database knows its user by another way
}

// TLS names the files that package tlsfiles follows.
type TLS struct {
	Cert, Key          string
	ClientCA           string // may be empty
	RequireClientCert  bool
	RequireReleaseRole bool
}

// Log says how to log.
type Log struct {
	JSON  bool
	Level slog.Level
}

// SNP says where certificates and revocation lists of SEV-SNP come from.
type SNP struct {
	Bundle string // file or folder; may be empty if there is a KDS
	KDS    string // URL; empty: nothing is fetched
	Cache  string // folder; given with KDS
}

// maxFile bounds the file in bytes.
const maxFile = 64 << 10

// maxPassword bounds a password in bytes.
const maxPassword = 4 << 10

// ErrWritable says that others may change the configuration, and so the roots that are trusted.
var ErrWritable = errors.New("others may change the configuration")

// Problem is one thing that is wrong with a file.
type Problem struct {
	Line int    // 0: what is missing has none
	Key  string // as in tls.cert
	Text string // what is wrong, and what to do
}

func (p *Problem) Error() string {
	if p.Line == 0 {
		return p.Key + ": " + p.Text
	}
	return fmt.Sprintf("line %d: %s: %s", p.Line, p.Key, p.Text)
}

// Load reads the file and looks at those that it names. The error has every *Problem that was found.
func Load(name string, o storekey.Outside) (*Config, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%w %s (mode %04o): chmod go-w it", ErrWritable, name, mode.Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("configuration %s:\n%w", name, err)
	}
	if err := c.CheckFiles(o); err != nil {
		return nil, fmt.Errorf("configuration %s:\n%w", name, err)
	}
	return c, nil
}

// Parse reads the text of a file. No other file is looked at.
func Parse(text []byte) (*Config, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("configuration has more than %d bytes", maxFile)
	}
	var d document
	keys, err := toml.Decode(string(text), &d)
	if err != nil {
		return nil, err
	}
	k := &checker{text: string(text)}
	k.unknown(keys.Keys())
	c := k.config(&d)
	if len(k.problems) > 0 {
		return nil, errors.Join(k.problems...)
	}
	return c, nil
}

// CheckFiles says of each file and folder that c names whether it is there and may be read. Their owners may change them later: who
// uses them checks again.
func (c *Config) CheckFiles(o storekey.Outside) error {
	k := &checker{}
	for _, name := range c.StoreKey.Files() {
		k.readable("store_key", name)
	}
	if c.Store.PasswordFile != "" {
		password, err := c.Password(o)
		clear(password)
		if err != nil {
			k.problem("store.password_file", "%v", err)
		}
	}
	if c.TLS != nil {
		k.readable("tls.cert", c.TLS.Cert)
		k.readable("tls.key", c.TLS.Key)
		if c.TLS.ClientCA != "" {
			k.readable("tls.client_ca", c.TLS.ClientCA)
		}
	}
	for _, root := range c.TrustRoots {
		if strings.HasPrefix(root, "/") {
			k.readable("trust_roots", root)
		}
	}
	if c.SNP != nil {
		if c.SNP.Bundle != "" {
			k.readable("snp.bundle", c.SNP.Bundle)
		}
		if info, err := os.Stat(c.SNP.Cache); c.SNP.Cache != "" && (err != nil || !info.IsDir()) {
			k.problem("snp.kds_cache", "%s is not a folder: make it, for the key server's user", c.SNP.Cache)
		}
	}
	return errors.Join(k.problems...)
}

// Password reads the database's password, nil if none is given. One line feed at its end is not part of it. The
// caller wipes it.
func (c *Config) Password(o storekey.Outside) ([]byte, error) {
	if c.Store.PasswordFile == "" {
		return nil, nil
	}
	text, err := storekey.ReadPrivate(c.Store.PasswordFile, maxPassword, o)
	if err != nil {
		return nil, fmt.Errorf("read the database's password: %w", err)
	}
	if n := len(text); n > 0 && text[n-1] == '\n' {
		text = text[:n-1]
	}
	if len(text) == 0 {
		return nil, fmt.Errorf("read the database's password: %s is empty", c.Store.PasswordFile)
	}
	return text, nil
}
