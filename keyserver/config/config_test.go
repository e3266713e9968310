package config

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/storekey"
)

// full gives every key.
const full = `listen = "0.0.0.0:8443"
store_key = "file:/etc/sealboot/store.key"
allow_plain_loopback = true
trust_roots = ["/etc/root", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"]
session_ttl = "90s"
max_sessions = 100
rate = 5
image_rate = 6

[store]
url = "postgres://sealboot@db.example.org/sealboot?sslmode=verify-full"
password_file = "/etc/sealboot/db"

[tls]
cert = "/etc/tls/crt"
key = "/etc/tls/key"
client_ca = "/etc/tls/ca"
require_client_cert = true
require_release_role = true

[log]
format = "json"
level = "debug"

[metrics]
listen = "127.0.0.1:9420"

[page]
listen = ":8421"

[snp]
bundle = "/etc/snp"
kds = "https://kdsintf.amd.com"
kds_cache = "/var/cache/kds"
`

// small gives what must be given.
const small = `listen = "127.0.0.1:0"
allow_plain_loopback = true
store_key = "env:KEY"
[store]
folder = "/store"
`

func TestParse(t *testing.T) {
	c, err := Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Listen:      Listener{"0.0.0.0:8443", true},
		Store:       Store{URL: "postgres://sealboot@db.example.org/sealboot?sslmode=verify-full", PasswordFile: "/etc/sealboot/db"},
		StoreKey:    storekey.Spec{Kind: storekey.File, Path: "/etc/sealboot/store.key"},
		TLS:         &TLS{Cert: "/etc/tls/crt", Key: "/etc/tls/key", ClientCA: "/etc/tls/ca", RequireClientCert: true, RequireReleaseRole: true},
		TrustRoots:  []string{"/etc/root", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"},
		SessionTTL:  90 * time.Second,
		MaxSessions: 100, Rate: 5, ImageRate: 6,
		Log:     Log{JSON: true, Level: slog.LevelDebug},
		Metrics: &Listener{"127.0.0.1:9420", false},
		Page:    &Listener{":8421", true},
		SNP:     &SNP{Bundle: "/etc/snp", KDS: "https://kdsintf.amd.com", Cache: "/var/cache/kds"},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v\nwant %+v", c, want)
	}
	c, err = Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	want = &Config{Listen: Listener{"127.0.0.1:0", false}, Store: Store{Folder: "/store"}, StoreKey: storekey.Spec{Kind: storekey.Env, Name: "KEY"}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v\nwant %+v", c, want)
	}
}

// TestNetwork listens where the file says, and nowhere else.
func TestNetwork(t *testing.T) {
	for address, want := range map[string]string{"0.0.0.0:0": "0.0.0.0", "127.0.0.1:0": "127.0.0.1", ":0": "::"} {
		l, err := net.Listen(Listener{Address: address}.Network(), address)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Addr().(*net.TCPAddr).IP.String(); got != want && !(address == ":0" && got == "0.0.0.0") { // without IPv6
			t.Errorf("%s listens on %s", address, got)
		}
		l.Close()
	}
	for address, want := range map[string]string{"[::1]:1": "tcp6", "[::]:1": "tcp6"} {
		if got := (Listener{Address: address}).Network(); got != want {
			t.Errorf("%s is of %s", address, got)
		}
	}
}

// TestFullIsFull holds the test's configuration to the keys that there are.
func TestFullIsFull(t *testing.T) {
	for key := range knownKeys {
		if key == "store.folder" { // does not go with store.url
			continue
		}
		if lineOf(full, key) == 0 || key != "tls" && !strings.Contains(full, key[strings.LastIndexByte(key, '.')+1:]) {
			t.Errorf("%s is not in it", key)
		}
	}
	if len(knownKeys) != 29 {
		t.Errorf("%d keys and tables are known", len(knownKeys))
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		text, old, new string
		want           string // begins a line of the error
		word           string // is in that line
	}{
		{full, "rate = 5", "rte = 5", "line 7: rte: unknown key", "take it out"},
		{full, "rate = 5", "Rate = 5", "line 7: Rate: unknown key", "write it rate"},
		{full, "client_ca =", "clientca =", "line 17: tls.clientca: unknown key", ""},
		{full, "[page]", "[pages]", "line 28: pages: unknown key", ""},
		{full, "[page]", "[log.page]", "line 28: log.page: unknown key", ""},
		{small, "[store]", "tls = {cert = \"/c\", key = \"/k\", kye = \"\"}\n[store]", "line 4: tls.kye: unknown key", ""},
		{full, `rate = 5`, `rate = "5"`, "toml: line 7", "integer"},
		{full, `rate = 5`, `rate = 5.5`, "toml: line 7", "integer"},
		{full, `rate = 5`, "rate = 5\nrate = 6", "toml: line 8", "defined"},
		{full, `rate = 5`, `rate =`, "toml: line 7", ""},
		{full, `[log]`, "[log]\n[log]", "toml: line 22", "defined"},
		{full, `trust_roots = [`, `trust_roots = [5, `, "toml: line 4", ""},
		{full, `rate = 5`, `rate = 0`, "line 7: rate: 0 is not between", ""},
		{full, `rate = 5`, `rate = -1`, "line 7: rate:", ""},
		{full, `rate = 5`, `rate = 1000001`, "line 7: rate:", ""},
		{full, `image_rate = 6`, `image_rate = 0`, "line 8: image_rate:", ""},
		{full, `max_sessions = 100`, `max_sessions = 9999999999`, "line 6: max_sessions:", ""},
		{full, `"90s"`, `"90"`, "line 5: session_ttl:", "like"},
		{full, `"90s"`, `"25h"`, "line 5: session_ttl:", "between"},
		{full, `"90s"`, `"-1s"`, "line 5: session_ttl:", "between"},
		{full, `"/etc/root"`, `"root"`, "line 4: trust_roots:", "absolute"},
		{full, `"0011`, `"AA11`, "line 4: trust_roots:", "hexadecimal"},
		{full, `"0011`, `"11`, "line 4: trust_roots:", "hexadecimal"},
		{small, `listen = "127.0.0.1:0"`, ``, "listen: missing", "0.0.0.0:8443"},
		{small, `store_key = "env:KEY"`, ``, "store_key: missing", "credential"},
		{small, "[store]\nfolder = \"/store\"", ``, "store: missing", "PostgreSQL"},
		{small, `folder = "/store"`, ``, "line 4: store: missing", ""},
		{small, `folder = "/store"`, `folder = "store"`, "line 5: store.folder:", "absolute"},
		{small, `folder = "/store"`, `folder = "/a/../store"`, "line 5: store.folder:", "absolute"},
		{small, `folder = "/store"`, `folder = ""`, "line 5: store.folder:", "absolute"},
		{small, `folder = "/store"`, "folder = \"/store\"\nurl = \"postgres://u@127.0.0.1/d\"", "line 6: store.url:", "choose one"},
		{small, `folder = "/store"`, "folder = \"/store\"\npassword_file = \"/p\"", "line 6: store.password_file:", "take it out"},
		{small, `env:KEY`, `file:key`, "line 3: store_key:", "absolute"},
		{small, `env:KEY`, `KEY`, "line 3: store_key: store key:", "file:PATH"},
		{small, `127.0.0.1:0`, `localhost:0`, "line 1: listen:", "IP address"},
		{small, `127.0.0.1:0`, `127.0.0.1`, "line 1: listen:", "port"},
		{small, `127.0.0.1:0`, `127.0.0.1:65536`, "line 1: listen:", "port"},
		{small, `127.0.0.1:0`, `:+1`, "line 1: listen:", "port"},
		{small, `127.0.0.1:0`, `0.0.0.0:1`, "line 1: listen: 0.0.0.0:1 without TLS", "give [tls]"},
		{small, `127.0.0.1:0`, `:1`, "line 1: listen: :1 without TLS", "give [tls]"},
		{small, `127.0.0.1:0`, `[::ffff:127.0.0.1]:1`, "line 1: listen:", "IP address"},
		{small, `allow_plain_loopback = true`, ``, "line 1: listen: plain HTTP", "allow_plain_loopback = true"},
		{full, `cert = "/etc/tls/crt"`, ``, "line 14: tls: cert or key is missing", ""},
		{full, `client_ca = "/etc/tls/ca"`, ``, "line 18: tls.require_client_cert:", "client_ca"},
		{full, `"/etc/tls/key"`, `"key"`, "line 16: tls.key:", "absolute"},
		{full, `format = "json"`, `format = "JSON"`, "line 22: log.format:", "text nor json"},
		{full, `level = "debug"`, `level = "trace"`, "line 23: log.level:", "debug"},
		{full, "[page]\nlisten = \":8421\"", `[page]`, "line 28: page: listen is missing", "[page]"},
		{full, `":8421"`, `"127.0.0.1:9420"`, "line 29: page.listen:", "another port"},
		{full, `":8421"`, `"0.0.0.0:8443"`, "line 29: page.listen:", "another port"},
		{small, `[store]`, "[metrics]\nlisten = \"0.0.0.0:1\"\n[store]", "line 5: metrics.listen:", "without TLS"},
		{full, `kds = "https://kdsintf.amd.com"`, ``, "line 31: snp: kds is missing", "off"},
		{full, `"https://kdsintf.amd.com"`, `"http://kdsintf.amd.com"`, "line 33: snp.kds:", ""},
		{full, `"https://kdsintf.amd.com"`, `"https://kdsintf.amd.com/x"`, "line 33: snp.kds:", ""},
		{full, `"https://kdsintf.amd.com"`, `"off"`, "line 34: snp.kds_cache:", "take it out"},
		{full, `kds_cache = "/var/cache/kds"`, ``, "line 33: snp.kds: kds_cache is missing", ""},
		{strings.Replace(full, "kds_cache = \"/var/cache/kds\"\n", "", 1), "bundle = \"/etc/snp\"\nkds = \"https://kdsintf.amd.com\"", `kds = "off"`, "line 32: snp.kds:", "bundle"},
	} {
		if _, err := Parse([]byte(c.text)); err != nil {
			if !strings.Contains(c.old, "bundle") {
				t.Fatal(err)
			}
		}
		if strings.Count(c.text, c.old) == 0 {
			t.Fatalf("%q is not in the good case", c.old)
		}
		got, err := Parse([]byte(strings.Replace(c.text, c.old, c.new, 1)))
		if err == nil || got != nil {
			t.Errorf("%q is taken", c.new)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, c.want) && strings.Contains(line, c.word) }) {
			t.Errorf("%q for %q gives %v, want %q and %q in it", c.new, c.old, err, c.want, c.word)
		}
	}
}

// TestAllAtOnce: every problem is said in one run, each with its place.
func TestAllAtOnce(t *testing.T) {
	_, err := Parse([]byte("listen = \"x\"\nrate = 0\nwhat = 1\n[tls]\nkye = \"/k\"\n[log]\nlevel = \"loud\"\n"))
	if err == nil {
		t.Fatal("it is taken")
	}
	want := []string{"line 3: what:", "line 5: tls.kye:", "line 2: rate:", "store_key:", "store:", "line 4: tls:", "line 1: listen:", "line 7: log.level:"}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Errorf("%d problems, want %d:\n%v", len(lines), len(want), err)
	}
	for i := range min(len(lines), len(want)) {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("problem %q, want %q", lines[i], want[i])
		}
	}
	if p := (*Problem)(nil); !errors.As(err, &p) || p.Line != 3 || p.Key != "what" {
		t.Errorf("%+v", p)
	}
}

func TestDatabase(t *testing.T) {
	for _, url := range []string{
		"postgres://u@db/d?sslmode=verify-full", "postgresql://u@db:5432/d?sslmode=verify-full&sslrootcert=/ca&connect_timeout=8",
		"postgres://u@127.0.0.1/d", "postgres://u@[::1]:5433/d", "postgres://u@/d?host=/run/postgresql", "postgres://u@/d?host=/run/postgresql&port=5433", "postgres://u@a,b/d?sslmode=verify-full", "postgres://u@127.0.0.1,127.0.0.2/d",
	} {
		if problem := databaseProblem(url); problem != "" {
			t.Errorf("%s: %s", url, problem)
		}
	}
	for url, word := range map[string]string{
		"": "URL", "mysql://u@db/d": "URL", "host=db user=u": "URL", "postgres:u@db/d": "URL", "postgres://u@db/d?sslmode=verify-full#x": "URL", "postgres://u@db/d\x00": "URL",
		"postgres://u:S3CRET@db/d?sslmode=verify-full": "password_file", "postgres://u:@db/d?sslmode=verify-full": "password_file",
		"postgres://u@db/d?sslmode=verify-full&password=S3CRET": "password_file", "postgres://u@db/d?sslmode=verify-full&sslpassword=S3CRET": "password_file",
		"postgres://u:S3CRET%zz@db/d": "URL", "postgres://u@db/d?x=%zz": "parameters",
		"postgres://db/d?sslmode=verify-full": "user", "postgres://u@db/?sslmode=verify-full": "database", "postgres://u@db?sslmode=verify-full": "database",
		"postgres://u@db/d?sslmode=verify-full&service=x": "service", "postgres://u@db/d?sslmode=verify-full&passfile=/p": "passfile",
		"postgres://u@db/d?sslmode=verify-full&sslmode=disable": "twice",
		"postgres://u@db/d": "verify-full", "postgres://u@db/d?sslmode=require": "verify-full", "postgres://u@localhost/d": "verify-full", "postgres://u@127.0.0.1,db/d": "verify-full",
		"postgres://u@/d": "verify-full", "postgres://u@/d?host=db": "verify-full", "postgres://u@/d?host=/run,db": "verify-full", "postgres://u@127.0.0.1/d?host=db": "verify-full",
	} {
		_, err := Parse([]byte(strings.Replace(small, `folder = "/store"`, "url = '''"+url+"'''", 1)))
		if strings.ContainsRune(url, 0) {
			err = errors.New(databaseProblem(url))
		}
		if err == nil || !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "S3CRET") {
			t.Errorf("%s: %v, want %q in it", url, err, word)
		}
	}
}

// TestExample loads the file that is shipped, as it is and with all its # lines of settings.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("../../packaging/keyserver.toml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != (Listener{"0.0.0.0:8443", true}) || c.StoreKey.Kind != storekey.Credential || c.Store.Folder == "" || c.TLS == nil || c.Metrics == nil || c.SNP != nil {
		t.Errorf("%+v", c)
	}
	setting := regexp.MustCompile(`(?m)^# (\[[a-z]+\]|[a-z_]+ +=|[a-z_]+ =)`)
	n := len(setting.FindAll(text, -1))
	all := setting.ReplaceAll(text, []byte("$1"))
	all = bytes.Replace(all, []byte("folder = "), []byte("#folder = "), 1)
	c, err = Parse(all)
	if err != nil || n < 15 {
		t.Fatalf("%d settings: %v", n, err)
	}
	if c.SNP == nil || c.Page == nil || c.Store.URL == "" || c.SessionTTL == 0 || c.ImageRate == 0 {
		t.Errorf("%+v", c)
	}
	for key := range knownKeys {
		if lineOf(string(all), key) == 0 {
			t.Errorf("%s is not in it", key)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(small))
	f.Add([]byte("tls = {cert = \"/c\"}\n[[store]]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if c != nil && (c.StoreKey.Kind == "" || c.Store.Folder == "" && c.Store.URL == "" || !c.Listen.TLS && !strings.HasPrefix(c.Listen.Address, "127.") &&
			!strings.HasPrefix(c.Listen.Address, "[")) {
			t.Fatalf("taken: %+v", c)
		}
	})
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"store.key", "crt", "key", "ca", "root", "snp"} {
		write(name, "x", 0o600)
	}
	write("db", "S3CRET\n", 0o600)
	if err := os.Mkdir(path("kds"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`/(etc|var)/[a-z/]*/`).ReplaceAllString(strings.NewReplacer("/etc/root", dir+"/root", "/etc/snp", dir+"/snp").Replace(full), dir+"/")
	write("toml", text, 0o644)
	load := func() (*Config, error) { return Load(path("toml"), storekey.Outside{}) }
	c, err := load()
	if err != nil {
		t.Fatal(err)
	}
	password, err := c.Password(storekey.Outside{})
	if err != nil || string(password) != "S3CRET" {
		t.Errorf("password %q, %v", password, err)
	}
	for about, c := range map[string]struct {
		spoil, mend func()
		want        string
	}{
		"others may change it":  {func() { write("toml", text, 0o664) }, func() { write("toml", text, 0o644) }, "chmod go-w"},
		"too large":             {func() { write("toml", text+strings.Repeat("#\n", maxFile/2), 0o644) }, func() { write("toml", text, 0o644) }, "more than"},
		"password for all":      {func() { write("db", "S3CRET", 0o644) }, func() { write("db", "S3CRET", 0o600) }, "store.password_file: read the database's password: others may read"},
		"empty password":        {func() { write("db", "\n", 0o600) }, func() { write("db", "S3CRET", 0o600) }, "store.password_file: read the database's password: " + path("db") + " is empty"},
		"no key":                {func() { os.Remove(path("key")) }, func() { write("key", "x", 0o600) }, "tls.key: " + path("key") + " is not there"},
		"no store key":          {func() { os.Remove(path("store.key")) }, func() { write("store.key", "x", 0o600) }, "store_key: " + path("store.key") + " is not there"},
		"cache is a file":       {func() { os.Remove(path("kds")); write("kds", "", 0o600) }, func() { os.Remove(path("kds")); os.Mkdir(path("kds"), 0o700) }, "snp.kds_cache: "},
		"root is not there":     {func() { os.Remove(path("root")) }, func() { write("root", "x", 0o600) }, "trust_roots: "},
		"bundle is not there":   {func() { os.Remove(path("snp")) }, func() { write("snp", "x", 0o600) }, "snp.bundle: "},
		"no configuration":      {func() { os.Remove(path("toml")) }, func() { write("toml", text, 0o644) }, "no such file"},
		"a mistake in the file": {func() { write("toml", text+"x = 1\n", 0o644) }, func() { write("toml", text, 0o644) }, "snp.x: unknown key"},
	} {
		c.spoil()
		if c, err := load(); err == nil || c != nil {
			t.Errorf("%s: it is taken", about)
		} else if err != nil && strings.Contains(err.Error(), "S3CRET") {
			t.Errorf("%s: the password is in the error: %v", about, err)
		}
		if _, err := load(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", about, err, c.want)
		}
		c.mend()
		if _, err := load(); err != nil {
			t.Fatalf("after %s: %v", about, err)
		}
	}
	os.Remove(path("crt"))
	os.Remove(path("ca"))
	if _, err := load(); err == nil || strings.Count(err.Error(), "is not there") != 2 {
		t.Errorf("not all at once: %v", err)
	}
	none, err := Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	if password, err := none.Password(storekey.Outside{}); password != nil || err != nil {
		t.Errorf("password %q, %v", password, err)
	}
}
