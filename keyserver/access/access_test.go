package access_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/access/accesstest"
)

func TestMemory(t *testing.T) {
	accesstest.Principals(t, func(*testing.T) access.Principals { return new(access.Memory) })
}

// TestRoles holds May to the table in the package's comment, each role alone.
func TestRoles(t *testing.T) {
	table := map[access.Action][4]bool{ // register, release, audit, admin
		access.ToRegister:  {true, false, false, true},
		access.ToRevoke:    {true, false, false, true},
		access.ToView:      {true, false, true, true},
		access.ToReadAudit: {false, false, true, true},
		access.ToRelease:   {false, true, false, false},
		access.ToManage:    {false, false, false, true},
		access.ToBackUp:    {false, false, false, true},
	}
	for action := range access.Action(255) {
		for i, role := range []access.Roles{access.Register, access.Release, access.Audit, access.Admin} {
			if may := role.May(action); may != table[action][i] {
				t.Errorf("%s may do action %d: %v", role, action, may)
			}
		}
		if access.Roles(0).May(action) || access.Roles(0xf0).May(action) {
			t.Errorf("who has no role may do action %d", action)
		}
	}
	if both := access.Release | access.Audit; !both.May(access.ToRelease) || !both.May(access.ToReadAudit) || both.May(access.ToRegister) {
		t.Error("two roles do not allow what each allows")
	}
}

func TestParseRoles(t *testing.T) {
	for roles := access.Roles(1); roles < 16; roles++ {
		if got, err := access.ParseRoles(roles.String()); err != nil || got != roles {
			t.Errorf("%s gives %s, %v", roles, got, err)
		}
	}
	if got, err := access.ParseRoles("admin,release"); err != nil || got != access.Admin|access.Release {
		t.Errorf("%s, %v", got, err)
	}
	for _, s := range []string{"", ",", "admin,", "Admin", "root", "admin,admin", "admin audit", " admin", strings.Repeat("x", 1000)} {
		if got, err := access.ParseRoles(s); !errors.Is(err, access.ErrRoles) || got != 0 || len(err.Error()) > 200 {
			t.Errorf("%q gives %s, %v", s, got, err)
		}
	}
}

func TestToken(t *testing.T) {
	text, digest, err := access.NewToken(rand.Reader)
	if err != nil || len(text) != access.TokenSize || !bytes.HasPrefix(text, []byte("sbt1_")) {
		t.Fatalf("%q, %v", text, err)
	}
	if got, err := access.TokenDigest(string(text)); err != nil || got != digest {
		t.Fatalf("%s, %v", got, err)
	}
	if other, _, _ := access.NewToken(rand.Reader); bytes.Equal(text, other) {
		t.Error("two tokens are one")
	}
	// Every slip of one character is found, for a CRC finds every burst of up to 32 bits.
	for i := range text {
		for _, c := range []byte("A8_-=\n %") {
			slip := bytes.Clone(text)
			if slip[i] == c {
				continue
			}
			slip[i] = c
			if got, err := access.TokenDigest(string(slip)); !errors.Is(err, access.ErrToken) || got != (access.Digest{}) {
				t.Errorf("character %d is %q: %s, %v", i, c, got, err)
			}
		}
	}
	for _, s := range []string{"", "sbt1_", string(text[1:]), string(text) + "A", string(text) + "\n", strings.ToUpper(string(text)), "sbt2_" + string(text[5:])} {
		if _, err := access.TokenDigest(s); !errors.Is(err, access.ErrToken) || len(s) > 10 && strings.Contains(err.Error(), s) {
			t.Errorf("%q: %v", s, err)
		}
	}
	if text, digest, err := access.NewToken(strings.NewReader("short")); err == nil || text != nil || digest != (access.Digest{}) {
		t.Errorf("a token from too few random bytes: %q, %v", text, err)
	}
}

// TestTokenVector pins the form: tokens that were handed out stay good.
func TestTokenVector(t *testing.T) {
	text, digest, err := access.NewToken(bytes.NewReader(bytes.Repeat([]byte{0x5e, 0xa1}, 16)))
	// Python: base64.urlsafe_b64encode(r + zlib.crc32(r).to_bytes(4, 'big')), r = bytes.fromhex('5ea1' * 16)
	const want = "sbt1_XqFeoV6hXqFeoV6hXqFeoV6hXqFeoV6hXqFeoV6hXqFp17mf"
	if err != nil || string(text) != want {
		t.Errorf("token %s, %v", text, err)
	}
	// printf '5ea1%.0s' $(seq 16) | xxd -r -p | sha256sum
	if digest.String() != "1715a90a9c8a7eacfa5a5a0bd28d33282dbae7ca6ce44aa8d0b53d97ec37fd6c" {
		t.Errorf("digest %s", digest)
	}
	if got, err := access.ParseDigest(digest.String()); err != nil || got != digest {
		t.Errorf("%s, %v", got, err)
	}
	for _, s := range []string{"", digest.String()[2:], digest.String() + "00", strings.ToUpper(digest.String())} {
		if got, err := access.ParseDigest(s); err == nil || got != (access.Digest{}) {
			t.Errorf("%q gives %s", s, got)
		}
	}
}

func TestValidate(t *testing.T) {
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	good, text, err := access.NewTokenPrincipal("ann", access.Admin, access.MaxTokenLife, rand.Reader, now)
	if err != nil || len(text) != access.TokenSize {
		t.Fatal(err)
	}
	for about, spoil := range map[string]func(*access.Principal){
		"no name": func(p *access.Principal) { p.Name = "" }, "name with a slash": func(p *access.Principal) { p.Name = "a/b" },
		"long name": func(p *access.Principal) { p.Name = strings.Repeat("x", 65) }, "no kind": func(p *access.Principal) { p.Kind = "" },
		"another kind": func(p *access.Principal) { p.Kind = "password" }, "no digest": func(p *access.Principal) { p.Digest = access.Digest{} },
		"no roles": func(p *access.Principal) { p.Roles = 0 }, "unknown role": func(p *access.Principal) { p.Roles |= 0x10 },
		"no beginning": func(p *access.Principal) { p.Created = time.Time{} }, "no end": func(p *access.Principal) { p.Expires = time.Time{} },
		"ends at once": func(p *access.Principal) { p.Expires = p.Created }, "lasts too long": func(p *access.Principal) { p.Expires = p.Expires.Add(1) },
	} {
		p := good
		spoil(&p)
		if err := p.Validate(); !errors.Is(err, access.ErrPrincipal) {
			t.Errorf("%s: %v", about, err)
		}
	}
	if err := (access.Principal{}).Validate(); strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("not everything is said at once: %v", err)
	}
	if p, text, err := access.NewTokenPrincipal("ann", 0, time.Hour, rand.Reader, now); !errors.Is(err, access.ErrRoles) || text != nil || p != (access.Principal{}) {
		t.Errorf("%+v, %q, %v", p, text, err)
	}
}

func FuzzTokenDigest(f *testing.F) {
	text, _, _ := access.NewToken(bytes.NewReader(make([]byte, 32)))
	f.Add(string(text))
	f.Add("sbt1_" + strings.Repeat("A", 48))
	f.Fuzz(func(t *testing.T, s string) {
		digest, err := access.TokenDigest(s)
		if (err == nil) != (digest != access.Digest{}) || err == nil && len(s) != access.TokenSize {
			t.Fatalf("%q gives %s, %v", s, digest, err)
		}
	})
}
