package idblock

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

func testFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func testKey(t testing.TB, name string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ParseKey(testFile(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// recorded is what snp-create-id-block made with the test's keys.
func recorded(t testing.TB) (Block, *Auth) {
	t.Helper()
	b, a, err := ParseText(string(testFile(t, "create-id-block.txt")))
	if err != nil {
		t.Fatal(err)
	}
	return b, a
}

// TestRecorded checks the reference's blocks, and makes the same ones but for the signatures, which it makes at random.
func TestRecorded(t *testing.T) {
	b, theirs := recorded(t)
	if err := theirs.Verify(b); err != nil {
		t.Fatal(err)
	}
	if b.Policy != DefaultPolicy || b.GuestSVN != 0 || b.Digest[0] != 0x9a {
		t.Errorf("%+v", b)
	}
	ours, err := Sign(b, testKey(t, "id.pem"), testKey(t, "author.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.Verify(b); err != nil {
		t.Error(err)
	}
	masked := func(a *Auth) []byte {
		raw := a.Encode()
		clear(raw[atBlockSignature:atIDKey])
		clear(raw[atIDKeySignature:atAuthorKey])
		return raw
	}
	if !bytes.Equal(masked(ours), masked(theirs)) {
		t.Error("another authentication block beside the signatures")
	}
	again, err := Sign(b, testKey(t, "id.pem"), testKey(t, "author.pem"))
	if err != nil || !bytes.Equal(again.Encode(), ours.Encode()) {
		t.Errorf("a second time gave other bytes: %v", err)
	}
	text, err := Text(b, ours)
	if err != nil {
		t.Fatal(err)
	}
	// The digests at the end are the reference's.
	_, want, _ := strings.Cut(string(testFile(t, "create-id-block.txt")), "\n")
	if _, got, _ := strings.Cut(text, "\n"); strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("key digests %q, want %q", got, want)
	}
}

// TestOpenSSL has OpenSSL check both of our signatures.
func TestOpenSSL(t *testing.T) {
	openssl := testtool.Program(t, "openssl")
	b, _ := recorded(t)
	a, err := Sign(b, testKey(t, "id.pem"), testKey(t, "author.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, test := range []struct {
		signature int
		key       *ecdsa.PublicKey
		data      []byte
	}{{atBlockSignature, a.IDKey, block}, {atIDKeySignature, a.AuthorKey, a.raw[atIDKey : atIDKey+keySize]}} {
		dir := t.TempDir()
		number := func(at int) *big.Int { return new(big.Int).SetBytes(big48(a.raw[at:])) }
		der, err := asn1.Marshal(struct{ R, S *big.Int }{number(test.signature), number(test.signature + numberSize)})
		if err != nil {
			t.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(test.key)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{"sig": der, "data": test.data, "pub": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		at := func(name string) string { return filepath.Join(dir, name) }
		out := testtool.Output(t, openssl, "dgst", "-sha384", "-verify", at("pub"), "-signature", at("sig"), at("data"))
		if !strings.Contains(string(out), "Verified OK") {
			t.Errorf("openssl: %s", out)
		}
		checked++
	}
	if checked != 2 {
		t.Errorf("%d signatures", checked)
	}
}

func TestWithoutAuthor(t *testing.T) {
	b, _ := recorded(t)
	a, err := Sign(b, testKey(t, "id.pem"), nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseAuth(a.Encode())
	if err != nil || again.AuthorKey != nil || again.Verify(b) != nil {
		t.Errorf("%v, %+v", err, again)
	}
}

// TestAuthRefusals spoils the recorded authentication block.
func TestAuthRefusals(t *testing.T) {
	b, good := recorded(t)
	for name, test := range map[string]struct {
		at   int
		want error
	}{
		"block signature":    {atBlockSignature, ErrSignature},
		"its s":              {atBlockSignature + numberSize, ErrSignature},
		"r too long":         {atBlockSignature + coordinate, ErrSignature},
		"key signature":      {atIDKeySignature, ErrSignature},
		"ID key's algorithm": {atIDAlgo, ErrFormat},
		"author's algorithm": {atAuthorAlgo, ErrFormat},
		"curve":              {atIDKey, ErrFormat},
		"not on the curve":   {atIDKey + 4, ErrKey},
		"x too long":         {atIDKey + 4 + coordinate, ErrFormat},
		"behind the key":     {atIDKey + keySize - 1, ErrFormat},
		"author off curve":   {atAuthorKey + 4, ErrKey},
		"head":               {reservedHead, ErrFormat},
		"behind signature":   {atIDKey - 1, ErrFormat},
		"behind ID key":      {reservedIDKeyEnd, ErrFormat},
		"end":                {AuthSize - 1, ErrFormat},
	} {
		raw := good.Encode()
		raw[test.at] ^= 4
		a, err := ParseAuth(raw)
		if err == nil {
			err = a.Verify(b)
		} else if a != nil {
			t.Errorf("%s: a block and an error", name)
		}
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	other := b
	other.GuestSVN++
	if err := good.Verify(other); !errors.Is(err, ErrSignature) {
		t.Errorf("another block: %v", err)
	}
	if _, err := ParseAuth(make([]byte, AuthSize-1)); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	if err := (&Auth{}).Verify(b); !errors.Is(err, ErrSignature) {
		t.Errorf("no key: %v", err)
	}
}

func TestBlockRefusals(t *testing.T) {
	b, _ := recorded(t)
	raw, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ParseBlock(raw); again != b || err != nil {
		t.Fatal(again, err)
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"short":     func(r []byte) []byte { return r[1:] },
		"version":   func(r []byte) []byte { r[80] = 2; return r },
		"policy":    func(r []byte) []byte { r[90] = 0; return r },
		"no digest": func(r []byte) []byte { clear(r[:48]); return r },
	} {
		if b, err := ParseBlock(spoil(bytes.Clone(raw))); !errors.Is(err, ErrFormat) || b != (Block{}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a, err := Sign(Block{Policy: DefaultPolicy}, testKey(t, "id.pem"), nil); a != nil || !errors.Is(err, ErrFormat) {
		t.Errorf("no digest signed: %v", err)
	}
}

func TestKeyRefusals(t *testing.T) {
	b, _ := recorded(t)
	good := testKey(t, "id.pem")
	for name, text := range map[string][]byte{
		"P-256": testFile(t, "p256.pem"), "nothing": nil, "parameters alone": testFile(t, "id.pem")[:80],
		"certificate": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}),
		"broken":      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}),
	} {
		if key, err := ParseKey(text); key != nil || !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, keys := range [][2]*ecdsa.PrivateKey{{nil, nil}, {p256, nil}, {good, p256}} {
		if a, err := Sign(b, keys[0], keys[1]); a != nil || !errors.Is(err, ErrKey) {
			t.Errorf("%v", err)
		}
	}
}

func TestTextRefusals(t *testing.T) {
	good := string(testFile(t, "create-id-block.txt"))
	if _, _, err := ParseText(good); err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(good, "\n")
	block, auth, _ := strings.Cut(first, ",")
	for name, text := range map[string]string{
		"empty": "", "no auth": block, "no block": auth, "twice": first + "," + block, "unknown": first + ",x=",
		"other digest": strings.Replace(good, "id_key_hash: ", "id_key_hash: A", 1), "further line": good + "\nx",
		"long": good + strings.Repeat("\n", MaxText), "not base64": "id-block=!," + auth,
	} {
		if b, a, err := ParseText(text); b != (Block{}) || a != nil || !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseAuth(f *testing.F) {
	b, a := recorded(f)
	f.Add(a.Encode())
	alone, err := Sign(b, testKey(f, "id.pem"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(alone.Encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := ParseAuth(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(a.Encode(), raw) {
			t.Error("encodes to other bytes")
		}
		a.Verify(b)
	})
}

func FuzzParseText(f *testing.F) {
	f.Add(string(testFile(f, "create-id-block.txt")))
	f.Fuzz(func(t *testing.T, text string) {
		b, a, err := ParseText(text)
		if err != nil {
			return
		}
		out, err := Text(b, a)
		if err != nil || !strings.HasPrefix(out, "id-block=") {
			t.Error(out, err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add(testFile(f, "id.pem"))
	f.Add(testFile(f, "author.pem"))
	f.Add(testFile(f, "p256.pem"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if key, err := ParseKey(text); (key == nil) == (err == nil) {
			t.Error(key == nil, err)
		}
	})
}
