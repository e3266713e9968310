package storekey

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Kind is a kind of place.
type Kind string

// The kinds of places.
const (
	File       Kind = "file"
	Env        Kind = "env"
	Credential Kind = "credential"
	Age        Kind = "age"
	Vault      Kind = "vault"
)

// Spec names a place. Parse makes it; fields that its kind does not have are empty.
type Spec struct {
	Kind      Kind
	Path      string // file, age, vault: the file of the key, wrapped or not
	Name      string // env, credential
	Identity  string // age: file of the identity
	Address   string // vault: https://HOST[:PORT]
	Mount     string // vault: where the transit engine is mounted, without slashes around it
	Key       string // vault: the key's name
	TokenFile string // vault
	CAFile    string // vault, may be empty: the system's roots
	Namespace string // vault, may be empty
}

// maxSpelling bounds a spelling.
const maxSpelling = 4096

// SpellingError is a spelling of no place. It does not repeat what was given, which may be a key in the wrong field.
type SpellingError struct{ Problem string }

func (e *SpellingError) Error() string {
	return "store key: " + e.Problem + " (spell it file:PATH, env:NAME, credential:NAME, age:PATH?identity=PATH or " +
		"vault:https://HOST/MOUNT/KEY?file=PATH&token-file=PATH)"
}

func badSpelling(format string, args ...any) (Spec, error) {
	return Spec{}, &SpellingError{Problem: fmt.Sprintf(format, args...)}
}

// Parse reads the spelling of a place. Nothing is opened.
func Parse(spelling string) (Spec, error) {
	if len(spelling) > maxSpelling || strings.ContainsFunc(spelling, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
		return badSpelling("too long, or with control characters")
	}
	kind, rest, ok := strings.Cut(spelling, ":")
	if !ok || rest == "" {
		return badSpelling("no kind in front, or nothing behind it")
	}
	s := Spec{Kind: Kind(kind)}
	switch s.Kind {
	case File:
		s.Path = rest
		return s, nil
	case Env:
		if !isVariable(rest) {
			return badSpelling("what stands behind env: is not the name of a variable")
		}
		s.Name = rest
		return s, nil
	case Credential:
		if !isName(rest) {
			return badSpelling("what stands behind credential: is not a name of letters, digits, dots, dashes and underscores")
		}
		s.Name = rest
		return s, nil
	case Age:
		var query string
		s.Path, query, _ = strings.Cut(rest, "?")
		if s.Path == "" {
			return badSpelling("no file behind age:")
		}
		if strings.Contains(s.Path, "&") {
			return badSpelling("the path behind age: has an &")
		}
		if err := parameters(query, map[string]*string{"identity": &s.Identity}, "identity"); err != nil {
			return Spec{}, err
		}
		return s, nil
	case Vault:
		return parseVault(rest)
	}
	return badSpelling("unknown kind")
}

func parseVault(rest string) (Spec, error) {
	s := Spec{Kind: Vault}
	address, query, _ := strings.Cut(rest, "?")
	u, err := url.Parse(address)
	if err != nil || u.User != nil || u.Fragment != "" || u.Opaque != "" || u.Host == "" || u.Hostname() == "" || strings.Contains(address, "#") ||
		u.Scheme+"://"+u.Host+u.Path != address {
		return badSpelling("what stands behind vault: is not https://HOST[:PORT]/MOUNT/KEY")
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme != "https" && !(u.Scheme == "http" && ip != nil && ip.IsLoopback()) {
		return badSpelling("vault needs https; http only to an agent on 127.0.0.1 or [::1]")
	}
	s.Address = u.Scheme + "://" + u.Host
	parts := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
	if len(parts) < 2 {
		return badSpelling("vault's address has no mount and key: https://HOST/transit/KEY")
	}
	for _, part := range parts {
		if !isName(part) {
			return badSpelling("mount and key in vault's address are names of letters, digits, dots, dashes and underscores")
		}
	}
	s.Mount, s.Key = strings.Join(parts[:len(parts)-1], "/"), parts[len(parts)-1]
	known := map[string]*string{"file": &s.Path, "token-file": &s.TokenFile, "ca-file": &s.CAFile, "namespace": &s.Namespace}
	if err := parameters(query, known, "file", "token-file"); err != nil {
		return Spec{}, err
	}
	for part := range strings.SplitSeq(s.Namespace, "/") {
		if s.Namespace != "" && !isName(part) {
			return badSpelling("namespace is not a name")
		}
	}
	return s, nil
}

// parameters reads NAME=VALUE&NAME=VALUE. Values are what stands there.
func parameters(query string, into map[string]*string, needed ...string) error {
	if query != "" {
		for pair := range strings.SplitSeq(query, "&") {
			name, value, _ := strings.Cut(pair, "=")
			field := into[name]
			if field == nil {
				return &SpellingError{Problem: "unknown parameter"}
			}
			if value == "" || strings.Contains(value, "?") || *field != "" {
				return &SpellingError{Problem: "parameter " + name + " is empty, twice there or has a ?"}
			}
			*field = value
		}
	}
	for _, name := range needed {
		if *into[name] == "" {
			return &SpellingError{Problem: "parameter " + name + " is missing"}
		}
	}
	return nil
}

// isName takes what systemd takes as a credential's name, and less; never a way into another folder.
func isName(s string) bool {
	return s != "" && len(s) <= 255 && s != "." && s != ".." && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
	})
}

func isVariable(s string) bool {
	return isName(s) && !strings.ContainsAny(s, ".-") && !(s[0] >= '0' && s[0] <= '9')
}

// String gives a spelling that Parse reads as the same place.
func (s Spec) String() string {
	switch s.Kind {
	case File:
		return "file:" + s.Path
	case Env, Credential:
		return string(s.Kind) + ":" + s.Name
	case Age:
		return "age:" + s.Path + "?identity=" + s.Identity
	case Vault:
		text := "vault:" + s.Address + "/" + s.Mount + "/" + s.Key + "?file=" + s.Path + "&token-file=" + s.TokenFile
		if s.CAFile != "" {
			text += "&ca-file=" + s.CAFile
		}
		if s.Namespace != "" {
			text += "&namespace=" + s.Namespace
		}
		return text
	}
	return ""
}

// Files gives the names of the files that the place reads.
func (s Spec) Files() []string {
	var names []string
	for _, name := range []string{s.Path, s.Identity, s.TokenFile, s.CAFile} {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Open gives the place that s names; those with a file of their own are Keepers. Nothing is read yet.
func (s Spec) Open(o Outside) (Source, error) {
	switch s.Kind {
	case File:
		return &file{reader: o.reader(), name: s.Path}, nil
	case Env:
		if o.Lookup == nil {
			return nil, fmt.Errorf("store key: the environment is %w", ErrMissing)
		}
		return &variable{name: s.Name, lookup: o.Lookup}, nil
	case Credential:
		return &credential{reader: o.reader(), name: s.Name}, nil
	case Age:
		return &Wrapped{Name: s.Path, Wrapper: &sealedBy{reader: o.reader(), identity: s.Identity}}, nil
	case Vault:
		return &Wrapped{Name: s.Path, Wrapper: &vault{reader: o.reader(), address: s.Address, mount: s.Mount, key: s.Key,
			tokenFile: s.TokenFile, caFile: s.CAFile, namespace: s.Namespace, timeout: vaultTimeout}}, nil
	}
	return nil, &SpellingError{Problem: "unknown kind"}
}
