package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// document is the file's form. A pointer is nil where the file says nothing.
type document struct {
	Listen             *string  `toml:"listen"`
	StoreKey           *string  `toml:"store_key"`
	AllowPlainLoopback bool     `toml:"allow_plain_loopback"`
	TrustRoots         []string `toml:"trust_roots"`
	SessionTTL         *string  `toml:"session_ttl"`
	MaxSessions        *int64   `toml:"max_sessions"`
	Rate               *int64   `toml:"rate"`
	ImageRate          *int64   `toml:"image_rate"`

	Store *struct {
		Folder       *string `toml:"folder"`
		URL          *string `toml:"url"`
		PasswordFile *string `toml:"password_file"`
	} `toml:"store"`
	TLS *struct {
		Cert               *string `toml:"cert"`
		Key                *string `toml:"key"`
		ClientCA           *string `toml:"client_ca"`
		RequireClientCert  bool    `toml:"require_client_cert"`
		RequireReleaseRole bool    `toml:"require_release_role"`
	} `toml:"tls"`
	Log *struct {
		Format *string `toml:"format"`
		Level  *string `toml:"level"`
	} `toml:"log"`
	Metrics *struct {
		Listen *string `toml:"listen"`
	} `toml:"metrics"`
	Page *struct {
		Listen *string `toml:"listen"`
	} `toml:"page"`
	SNP *struct {
		Bundle   *string `toml:"bundle"`
		KDS      *string `toml:"kds"`
		KDSCache *string `toml:"kds_cache"`
	} `toml:"snp"`
}

// knownKeys are the keys that a document has, as tls.cert, and their tables, as tls.
var knownKeys = keysOf(reflect.TypeFor[document](), "")

func keysOf(t reflect.Type, table string) map[string]bool {
	keys := map[string]bool{}
	for i := range t.NumField() {
		name := table + t.Field(i).Tag.Get("toml")
		keys[name] = true
		if of := t.Field(i).Type; of.Kind() == reflect.Pointer && of.Elem().Kind() == reflect.Struct {
			for key := range keysOf(of.Elem(), name+".") {
				keys[key] = true
			}
		}
	}
	return keys
}

// checker collects problems.
type checker struct {
	text     string
	problems []error
}

func (k *checker) problem(key, format string, args ...any) {
	k.problems = append(k.problems, &Problem{Line: lineOf(k.text, key), Key: key, Text: fmt.Sprintf(format, args...)})
}

// unknown finds keys that are not exactly the document's: the decoder takes capitals for small letters.
func (k *checker) unknown(keys []toml.Key) {
	reported := ""
	for _, key := range keys {
		name := key.String()
		if knownKeys[name] || reported != "" && strings.HasPrefix(name, reported) {
			continue
		}
		reported = name + "."
		if lower := strings.ToLower(name); knownKeys[lower] {
			k.problem(name, "unknown key: write it %s", lower)
		} else {
			k.problem(name, "unknown key: take it out, or see the list in packaging/keyserver.toml")
		}
	}
}

// lineOf finds the line that gives the key, or else the table around it; 0 if there is none. It is for messages: a line
// inside a string of several lines can mislead it.
func lineOf(text, key string) int {
	for ; key != ""; key = parent(key) {
		table, n := "", 0
		for line := range strings.Lines(text) {
			n++
			line = strings.TrimSpace(line)
			if header, ok := strings.CutPrefix(line, "["); ok {
				header, _, _ = strings.Cut(strings.TrimPrefix(header, "["), "]")
				table = strings.TrimSpace(header)
				if table == key {
					return n
				}
				table += "."
				continue
			}
			name, _, ok := strings.Cut(line, "=")
			if name = table + strings.TrimSpace(name); ok && (name == key || strings.HasPrefix(name, key+".")) {
				return n
			}
		}
	}
	return 0
}

func parent(key string) string {
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		return key[:i]
	}
	return ""
}
