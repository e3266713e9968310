package config

import (
	"errors"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sealboot/sealboot/keyserver/storekey"
)

// Bounds of numbers and times, as the server has them.
const (
	minSessionTTL  = time.Second
	maxSessionTTL  = 24 * time.Hour
	maxMaxSessions = 1 << 20
	maxRate        = 1_000_000
)

// config checks the document. What it returns is of use only if no problem was found.
func (k *checker) config(d *document) *Config {
	c := &Config{
		TrustRoots:  d.TrustRoots,
		SessionTTL:  k.duration("session_ttl", d.SessionTTL, minSessionTTL, maxSessionTTL),
		MaxSessions: k.number("max_sessions", d.MaxSessions, maxMaxSessions),
		Rate:        k.number("rate", d.Rate, maxRate),
		ImageRate:   k.number("image_rate", d.ImageRate, maxRate),
	}
	for _, root := range d.TrustRoots {
		k.root(root)
	}
	k.storeKey(c, d)
	k.store(c, d)
	k.tls(c, d)
	k.listeners(c, d)
	k.log(c, d)
	k.snp(c, d)
	return c
}

func (k *checker) number(key string, n *int64, most int64) int {
	if n == nil {
		return 0
	}
	if *n < 1 || *n > most {
		k.problem(key, "%d is not between 1 and %d", *n, most)
		return 0
	}
	return int(*n)
}

func (k *checker) duration(key string, s *string, least, most time.Duration) time.Duration {
	if s == nil {
		return 0
	}
	d, err := time.ParseDuration(*s)
	if err != nil {
		k.problem(key, `%q is not a time like "90s", "5m" or "168h"`, *s)
		return 0
	}
	if d < least || d > most {
		k.problem(key, "%v is not between %v and %v", d, least, most)
	}
	return d
}

// root takes a digest or a file, which is not opened.
func (k *checker) root(root string) {
	if strings.HasPrefix(root, "/") {
		k.path("trust_roots", &root)
	} else if len(root) != 64 || strings.Trim(root, "0123456789abcdef") != "" {
		k.problem("trust_roots", "%.80q is neither 64 lower-case hexadecimal digits nor an absolute path", root)
	}
}

// path gives an absolute path, or "" where there is none.
func (k *checker) path(key string, s *string) string {
	if s == nil {
		return ""
	}
	if !filepath.IsAbs(*s) || filepath.Clean(*s) != *s || strings.ContainsRune(*s, 0) {
		k.problem(key, "%.200q is not an absolute path in its shortest form: begin it with /", *s)
	}
	return *s
}

func (k *checker) storeKey(c *Config, d *document) {
	if d.StoreKey == nil {
		k.problem("store_key", `missing: say where the store key is, for example "credential:store-key" or "file:/etc/sealboot/store.key"`)
		return
	}
	spec, err := storekey.Parse(*d.StoreKey)
	if err != nil {
		k.problem("store_key", "%v", err)
		return
	}
	for _, name := range spec.Files() {
		k.path("store_key", &name)
	}
	c.StoreKey = spec
}

func (k *checker) store(c *Config, d *document) {
	if d.Store == nil || d.Store.Folder == nil && d.Store.URL == nil {
		k.problem("store", "missing: give folder, for SQLite, or url, for PostgreSQL, in [store]")
		return
	}
	if d.Store.Folder != nil && d.Store.URL != nil {
		k.problem("store.url", "folder is given too: choose one")
	}
	c.Store = Store{Folder: k.path("store.folder", d.Store.Folder), PasswordFile: k.path("store.password_file", d.Store.PasswordFile)}
	if d.Store.URL != nil {
		if problem := databaseProblem(*d.Store.URL); problem != "" {
			k.problem("store.url", "%s", problem)
		}
		c.Store.URL = *d.Store.URL
	} else if d.Store.PasswordFile != nil {
		k.problem("store.password_file", "there is no url that it could be for: take it out")
	}
}

// databaseParameters are those of a URL that may be given (PostgreSQL, "Parameter Key Words").
var databaseParameters = map[string]bool{"sslmode": true, "sslrootcert": true, "sslcert": true, "sslkey": true, "host": true, "port": true, "connect_timeout": true,
	"application_name": true, "target_session_attrs": true}

// databaseProblem says what is wrong with a URL, without repeating it: it may hold a password.
func databaseProblem(text string) string {
	const form = "postgres://USER@HOST/DATABASE?sslmode=verify-full"
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Opaque != "" || u.Fragment != "" {
		return "it is not a URL like " + form
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "its parameters do not read: write it like " + form
	}
	if _, has := u.User.Password(); has || values.Has("password") || values.Has("sslpassword") {
		return "there is a password in it: take it out, write it into a file that only the key server's user may read, and name that in password_file"
	}
	if u.User.Username() == "" || strings.Trim(u.Path, "/") == "" {
		return "user or database is missing: write it like " + form
	}
	for name, all := range values {
		if !databaseParameters[name] || len(all) != 1 {
			return "parameter " + strconv.Quote(name) + " is unknown or twice there: take it out"
		}
	}
	if !isLocal(u.Host, values.Get("host")) && values.Get("sslmode") != "verify-full" {
		return "the database is on another machine: add sslmode=verify-full, and sslrootcert=FILE for an own CA"
	}
	return ""
}

// isLocal says whether each host is a loopback address or a folder with a socket. Names are not resolved.
func isLocal(hosts, parameter string) bool {
	if parameter != "" {
		return hosts == "" && strings.HasPrefix(parameter, "/") && !strings.Contains(parameter, ",")
	}
	if hosts == "" {
		return false // what the driver takes then depends on the environment
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if ip, err := netip.ParseAddrPort(host); err == nil && ip.Addr().IsLoopback() {
			continue
		}
		if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil || !ip.IsLoopback() {
			return false
		}
	}
	return true
}

func (k *checker) tls(c *Config, d *document) {
	if d.TLS == nil {
		return
	}
	t := &TLS{Cert: k.path("tls.cert", d.TLS.Cert), Key: k.path("tls.key", d.TLS.Key), ClientCA: k.path("tls.client_ca", d.TLS.ClientCA),
		RequireClientCert: d.TLS.RequireClientCert, RequireReleaseRole: d.TLS.RequireReleaseRole}
	if d.TLS.Cert == nil || d.TLS.Key == nil {
		k.problem("tls", "cert or key is missing: give both; sealboot-keyserver can make a CA and a certificate for a start")
	}
	if t.RequireClientCert && d.TLS.ClientCA == nil {
		k.problem("tls.require_client_cert", "there is no CA to judge certificates by: give client_ca")
	}
	c.TLS = t
}

func (k *checker) listeners(c *Config, d *document) {
	if d.Listen == nil {
		k.problem("listen", `missing: say where to listen, for example "0.0.0.0:8443"`)
	} else if loopback, ok := k.address("listen", *d.Listen); ok {
		c.Listen = Listener{Address: *d.Listen, TLS: d.TLS != nil}
		switch {
		case d.TLS != nil:
		case !loopback:
			k.problem("listen", "%s without TLS: give [tls], or listen on 127.0.0.1 or [::1]", *d.Listen)
		case !d.AllowPlainLoopback:
			k.problem("listen", "plain HTTP on %s: give [tls], or allow_plain_loopback = true if only this machine asks", *d.Listen)
		}
	}
	if d.Metrics != nil {
		c.Metrics = k.second("metrics", d.Metrics.Listen, d.TLS != nil)
	}
	if d.Page != nil {
		c.Page = k.second("page", d.Page.Listen, d.TLS != nil)
	}
	taken := []string{c.Listen.Address}
	for _, other := range []struct {
		key string
		*Listener
	}{{"metrics.listen", c.Metrics}, {"page.listen", c.Page}} {
		if other.Listener == nil {
			continue
		}
		if slices.Contains(taken, other.Address) && !strings.HasSuffix(other.Address, ":0") {
			k.problem(other.key, "%s is taken by another listener: choose another port", other.Address)
		}
		taken = append(taken, other.Address)
	}
}

// second checks the listener of a table of its own.
func (k *checker) second(table string, address *string, security bool) *Listener {
	if address == nil {
		k.problem(table, "listen is missing: give it, or take [%s] out", table)
		return nil
	}
	loopback, ok := k.address(table+".listen", *address)
	if !ok {
		return nil
	}
	if !loopback && !security {
		k.problem(table+".listen", "%s without TLS: give [tls], or listen on 127.0.0.1 or [::1]", *address)
	}
	return &Listener{Address: *address, TLS: !loopback}
}

// address takes IP:PORT and :PORT.
func (k *checker) address(key, s string) (loopback, ok bool) {
	if port, all := strings.CutPrefix(s, ":"); all {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && strconv.FormatUint(n, 10) == port {
			return false, true
		}
	} else if a, err := netip.ParseAddrPort(s); err == nil && !a.Addr().Is4In6() {
		return a.Addr().IsLoopback(), true
	}
	k.problem(key, "%.80q is not an IP address with a port, as 192.0.2.1:8443, [::1]:8443 or :8443", s)
	return false, false
}

func (k *checker) log(c *Config, d *document) {
	if d.Log == nil {
		return
	}
	if f := d.Log.Format; f != nil {
		if c.Log.JSON = *f == "json"; *f != "json" && *f != "text" {
			k.problem("log.format", "%.40q is neither text nor json", *f)
		}
	}
	if l := d.Log.Level; l != nil {
		levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
		level, ok := levels[*l]
		if !ok {
			k.problem("log.level", "%.40q is none of debug, info, warn, error", *l)
		}
		c.Log.Level = level
	}
}

func (k *checker) snp(c *Config, d *document) {
	if d.SNP == nil {
		return
	}
	s := &SNP{Bundle: k.path("snp.bundle", d.SNP.Bundle), Cache: k.path("snp.kds_cache", d.SNP.KDSCache)}
	switch {
	case d.SNP.KDS == nil:
		k.problem("snp", `kds is missing: give "off", or "https://kdsintf.amd.com"`)
	case *d.SNP.KDS == "off":
		if s.Bundle == "" {
			k.problem("snp.kds", "nothing is fetched, and there is no bundle: give one of the two")
		}
		if s.Cache != "" {
			k.problem("snp.kds_cache", "nothing is fetched: take it out")
		}
	default:
		if !isKDS(*d.SNP.KDS) {
			k.problem("snp.kds", `%.200q is neither "off" nor a URL like https://kdsintf.amd.com`, *d.SNP.KDS)
		}
		if s.Cache == "" {
			k.problem("snp.kds", "kds_cache is missing: AMD's service answers about one request in ten seconds, so give a folder to keep the answers in")
		}
		s.KDS = *d.SNP.KDS
	}
	c.SNP = s
}

// isKDS takes an https URL of a host, and http on a loopback address.
func isKDS(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme+"://"+u.Host != text {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && err == nil && ip.IsLoopback()
}

// readable says whether a file or folder is there and opens.
func (k *checker) readable(key, name string) {
	info, err := os.Stat(name)
	if err == nil && (info.Mode().IsRegular() || info.IsDir()) { // a pipe would wait
		var f *os.File
		if f, err = os.Open(name); err == nil {
			f.Close()
		}
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		k.problem(key, "%s is not there", name)
	case errors.Is(err, os.ErrPermission):
		k.problem(key, "%s may not be read by the key server's user: chown it", name)
	case err != nil:
		k.problem(key, "%v", err)
	}
}
