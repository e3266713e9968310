package storekey

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const goodVault = "vault:https://vault.example.org:8200/transit/sealboot?file=/k&token-file=/t"

var spellings = []string{
	"file:/etc/sealboot/store.key", "file:key", "file:/a?b&c=d", "file:/ünïcode", "env:SEALBOOT_STORE_KEY", "env:_x1",
	"credential:store-key", "credential:a.b_C", "age:/etc/key.age?identity=/etc/id", "age:key%20+.age?identity=a=b", goodVault,
	goodVault + "&ca-file=/ca&namespace=a/b", "vault:https://v/team/a/transit/k?token-file=/t&file=/k", "vault:http://127.0.0.1:8200/transit/k?file=/k&token-file=/t",
	"vault:https://[2001:db8::1]:8200/t/k?file=/k&token-file=/t",
}

func TestParse(t *testing.T) {
	for _, spelling := range spellings {
		s, err := Parse(spelling)
		if err != nil {
			t.Errorf("%s: %v", spelling, err)
			continue
		}
		if again, err := Parse(s.String()); err != nil || again != s {
			t.Errorf("%s is written as %s: %v", spelling, s, err)
		}
	}
	s, err := Parse(goodVault + "&ca-file=/ca&namespace=a/b")
	want := Spec{Kind: Vault, Path: "/k", Address: "https://vault.example.org:8200", Mount: "transit", Key: "sealboot", TokenFile: "/t", CAFile: "/ca", Namespace: "a/b"}
	if err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	if names := s.Files(); !slices.Equal(names, []string{"/k", "/t", "/ca"}) {
		t.Errorf("files %q", names)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, spelling := range []string{
		"", ":", "file", "file:", "env:", "/etc/key", "FILE:/k", "kms:x", "file:/a\nb", "file:/a\x00", "file:" + strings.Repeat("x", maxSpelling),
		"env:1X", "env:A-B", "env:A=B", "env:A B", "credential:", "credential:.", "credential:..", "credential:../x", "credential:a/b", "credential:/x",
		"credential:a\\b", "credential:" + strings.Repeat("x", 256),
		"age:/k", "age:?identity=/i", "age:/k?identity=", "age:/k?identity", "age:/k?identity=/i&identity=/j", "age:/k?identity=/i&x=y", "age:/k?identity=/i&",
		"age:/k?identity=/i?x", "age:/a&b?identity=/i",
		strings.Replace(goodVault, "https", "http", 1), strings.Replace(goodVault, "https", "ftp", 1),
		strings.Replace(goodVault, "vault.example.org:8200", "localhost", 1) + "&x=y",
		strings.Replace(goodVault, "https://vault.example.org:8200", "http://localhost", 1),
		strings.Replace(goodVault, "vault.example", "user:pass@vault.example", 1), strings.Replace(goodVault, "/transit", "", 1),
		strings.Replace(goodVault, "/transit", "/transit/..", 1), strings.Replace(goodVault, "/transit", "//transit", 1), strings.Replace(goodVault, "/sealboot", "/seal%2fboot", 1),
		strings.Replace(goodVault, "/sealboot", "/sealboot/", 1), strings.Replace(goodVault, "/sealboot", "/sealboot#x", 1), strings.Replace(goodVault, "/sealboot", "/sealboot#", 1),
		strings.Replace(goodVault, "vault.example.org:8200", "", 1), strings.Replace(goodVault, "vault.example.org", "", 1),
		strings.TrimSuffix(goodVault, "&token-file=/t"), strings.Replace(goodVault, "file=/k&", "", 1), goodVault + "&token-file=/u", goodVault + "&token=hvs.x",
		goodVault + "&namespace=a//b", goodVault + "&namespace=/a", goodVault + "&namespace=..", goodVault + "&namespace=a b", "vault:sealboot",
	} {
		s, err := Parse(spelling)
		if problem := (*SpellingError)(nil); !errors.As(err, &problem) || s != (Spec{}) {
			t.Errorf("%q gives %+v, %v", spelling, s, err)
		}
	}
	if _, err := (Spec{}).Open(Outside{}); err == nil {
		t.Error("no place opens")
	}
}

// TestParseRepeatsNothing: a key in place of its place must not reach a log.
func TestParseRepeatsNothing(t *testing.T) {
	text := strings.TrimSuffix(string(keyText(t)), "\n")
	for _, spelling := range []string{text, "kms:" + text, "env:" + text, "credential:" + text, "age:/k?" + text + "=1", goodVault + "&" + text + "=x", "vault:" + text} {
		if _, err := Parse(spelling); err == nil || strings.Contains(err.Error(), text[30:]) {
			t.Errorf("%v", err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, spelling := range spellings {
		f.Add(spelling)
	}
	f.Fuzz(func(t *testing.T, spelling string) {
		s, err := Parse(spelling)
		if err != nil {
			if s != (Spec{}) {
				t.Fatalf("%q is refused and gives %+v", spelling, s)
			}
			return
		}
		if again, err := Parse(s.String()); err != nil || again != s {
			t.Fatalf("%q gives %+v, written %q, %v", spelling, s, s, err)
		}
		if s.Kind == Credential && strings.ContainsAny(s.Name, "/\\") {
			t.Fatalf("credential %q", s.Name)
		}
		if _, err := s.Open(Outside{Lookup: func(string) (string, bool) { return "", false }}); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseText(f *testing.F) {
	f.Add(keyText(f))
	f.Add([]byte("sealboot-store-key-1 "))
	f.Fuzz(func(t *testing.T, text []byte) {
		raw, err := ParseText(text)
		if err != nil {
			return
		}
		if again, err := Text(raw); err != nil || string(again) != string(text) {
			t.Fatalf("%q is written %q, %v", text, again, err)
		}
	})
}
