package storekey

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// key is the store key of the tests.
var key = bytes.Repeat([]byte{0x5e, 0xa1}, Size/2)

func keyText(t testing.TB) []byte {
	t.Helper()
	text, err := Text(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t testing.TB, name string, content []byte, mode os.FileMode) string {
	t.Helper()
	if !filepath.IsAbs(name) {
		name = filepath.Join(t.TempDir(), name)
	}
	os.Remove(name) // it may be read-only
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func open(t testing.TB, spelling string, o Outside) Source {
	t.Helper()
	spec, err := Parse(spelling)
	if err != nil {
		t.Fatal(err)
	}
	source, err := spec.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// gives fails the test unless the source gives the key, with the permissions as they are.
func gives(t testing.TB, source Source) {
	t.Helper()
	raw, err := source.Key(t.Context())
	if err != nil || !bytes.Equal(raw, key) {
		t.Fatalf("key %x, %v", raw, err)
	}
}

// refuses fails the test unless the source gives the error and nothing else, without a word of the key.
func refuses(t testing.TB, source Source, want error) {
	t.Helper()
	raw, err := source.Key(t.Context())
	if !errors.Is(err, want) || raw != nil {
		t.Fatalf("key %x, error %v, want %v", raw, err, want)
	}
	if strings.Contains(err.Error(), hex.EncodeToString(key)[:16]) {
		t.Fatalf("the error holds the key: %v", err)
	}
}

func TestNewReadsRandomness(t *testing.T) {
	raw, err := New(bytes.NewReader(key))
	if err != nil || !bytes.Equal(raw, key) {
		t.Fatalf("%x, %v", raw, err)
	}
	if raw, err := New(bytes.NewReader(key[1:])); err == nil || raw != nil {
		t.Errorf("a key from too few random bytes: %x, %v", raw, err)
	}
	if _, err := Text(key[1:]); err == nil {
		t.Error("a short key has a text")
	}
}

// spoiled are texts that are no key, each one slip away from one.
func spoiled(t testing.TB) map[string][]byte {
	text := keyText(t)
	return map[string][]byte{
		"empty":        nil,
		"no line feed": text[:len(text)-1] /* taken from a variable */, "two line feeds": append(bytes.Clone(text), '\n'),
		"another version": bytes.Replace(text, []byte("-1 "), []byte("-2 "), 1),
		"no digit":        append(append(bytes.Clone(text[:40]), 'g'), text[41:]...),
		"capitals":        bytes.ToUpper(text[:len(text)-1]),
		"capital digit":   bytes.Replace(text, []byte("5ea1"), []byte("5Ea1"), 1),
		"short":           append(bytes.Clone(text[:len(text)-3]), '\n'),
		"raw":             key,
		"huge":            bytes.Repeat(text, 10000),
	}
}

func TestFile(t *testing.T) {
	name := write(t, "key", keyText(t), 0o600)
	source := open(t, "file:"+name, Outside{})
	gives(t, source)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o644, 0o610} {
		write(t, name, keyText(t), mode)
		_, err := source.Key(t.Context())
		if access := (*AccessError)(nil); !errors.As(err, &access) || access.Mode.Perm() != mode {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	write(t, name, keyText(t), 0o400)
	gives(t, source)
	for about, text := range spoiled(t) {
		t.Run(about, func(t *testing.T) {
			write(t, name, text, 0o600)
			refuses(t, source, ErrNotKey)
		})
	}
	os.Remove(name)
	refuses(t, source, os.ErrNotExist)
}

// TestOwner refuses the file of another user, who could read and change it.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	name := write(t, "key", keyText(t), 0o600)
	source := open(t, "file:"+name, Outside{})
	gives(t, source)
	if err := os.Chown(name, 12345, 0); err != nil {
		t.Fatal(err)
	}
	_, err := source.Key(t.Context())
	if access := (*AccessError)(nil); !errors.As(err, &access) || access.UID != 12345 || !strings.Contains(err.Error(), "12345") {
		t.Errorf("a file of user 12345: %v", err)
	}
}

// TestPipe takes a key that another program brings.
func TestPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.Write(keyText(t)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	gives(t, open(t, "file:/dev/fd/"+strconv.Itoa(int(r.Fd())), Outside{}))
}

func TestEnv(t *testing.T) {
	value := string(keyText(t))
	lookup := func(name string) (string, bool) {
		if name != "SEALBOOT_STORE_KEY" {
			return "", false
		}
		return value, true
	}
	source := open(t, "env:SEALBOOT_STORE_KEY", Outside{Lookup: lookup})
	gives(t, source)
	value = strings.TrimSuffix(value, "\n")
	gives(t, source)
	refuses(t, open(t, "env:OTHER", Outside{Lookup: lookup}), ErrMissing)
	for about, text := range spoiled(t) {
		if about == "no line feed" {
			continue
		}
		t.Run(about, func(t *testing.T) {
			value = string(text)
			refuses(t, source, ErrNotKey)
		})
	}
	spec, _ := Parse("env:X")
	if _, err := spec.Open(Outside{}); !errors.Is(err, ErrMissing) {
		t.Errorf("no environment: %v", err)
	}
}

func TestCredential(t *testing.T) {
	dir := t.TempDir()
	name := write(t, filepath.Join(dir, "store-key"), keyText(t), 0o400)
	source := open(t, "credential:store-key", Outside{Credentials: dir})
	gives(t, source)
	if os.Geteuid() == 0 {
		// systemd's access list for the unit's user shows as the group's permission.
		write(t, name, keyText(t), 0o440)
		gives(t, source)
		gives(t, open(t, "file:"+name, Outside{Credentials: dir}))
		_, err := open(t, "file:"+name, Outside{}).Key(t.Context())
		if access := (*AccessError)(nil); !errors.As(err, &access) {
			t.Errorf("mode 0440 outside systemd's folder: %v", err)
		}
	}
	write(t, name, keyText(t), 0o444)
	_, err := source.Key(t.Context())
	if access := (*AccessError)(nil); !errors.As(err, &access) {
		t.Errorf("mode 0444: %v", err)
	}
	for about, text := range spoiled(t) {
		t.Run(about, func(t *testing.T) {
			write(t, name, text, 0o400)
			refuses(t, source, ErrNotKey)
		})
	}
	refuses(t, open(t, "credential:other", Outside{Credentials: dir}), ErrMissing)
	refuses(t, open(t, "credential:store-key", Outside{}), ErrMissing)

	outside := write(t, "key", keyText(t), 0o400)
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, "credential:link", Outside{Credentials: dir}).Key(t.Context()); err == nil {
		t.Error("a link led out of the folder")
	}
}

func identityFile(t testing.TB, hybrid bool) (name string, recipient age.Recipient) {
	t.Helper()
	if hybrid {
		i, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		return write(t, "identity", []byte("# created by a test\n"+i.String()+"\n"), 0o600), i.Recipient()
	}
	i, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "identity", []byte(i.String()+"\n"), 0o600), i.Recipient()
}

func encrypted(t testing.TB, plain []byte, armored bool, to ...age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	a := armor.NewWriter(&out)
	w, err := age.Encrypt(&out, to...)
	if armored {
		out.Reset()
		w, err = age.Encrypt(a, to...)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Write(plain)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if armored {
		a.Close()
	}
	return out.Bytes()
}

func TestAge(t *testing.T) {
	for _, hybrid := range []bool{false, true} {
		identity, recipient := identityFile(t, hybrid)
		name := write(t, "key.age", encrypted(t, keyText(t), false, recipient), 0o644)
		source := open(t, "age:"+name+"?identity="+identity, Outside{})
		gives(t, source)
		write(t, name, encrypted(t, keyText(t), true, recipient), 0o644)
		gives(t, source)

		content, err := source.(Keeper).Seal(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		write(t, name, content, 0o644)
		gives(t, source)

		content[len(content)-1] ^= 1
		write(t, name, content, 0o644)
		refuses(t, source, ErrWrapped)
		_, other := identityFile(t, hybrid)
		write(t, name, encrypted(t, keyText(t), false, other), 0o644)
		refuses(t, source, ErrWrapped)
		write(t, name, encrypted(t, key, false, recipient), 0o644)
		refuses(t, source, ErrNotKey)
		write(t, name, encrypted(t, bytes.Repeat(keyText(t), 2), false, recipient), 0o644)
		refuses(t, source, ErrTooLarge)
		write(t, name, bytes.Repeat([]byte("x"), maxWrapped+1), 0o644)
		refuses(t, source, ErrTooLarge)

		write(t, name, encrypted(t, keyText(t), false, recipient), 0o644)
		gives(t, source)
		text, _ := os.ReadFile(identity)
		write(t, identity, text, 0o644)
		_, err = source.Key(t.Context())
		if access := (*AccessError)(nil); !errors.As(err, &access) || access.Name != identity {
			t.Errorf("an identity that others may read: %v", err)
		}
		write(t, identity, bytes.ToLower(text), 0o600)
		refuses(t, source, ErrIdentity)
		if _, err := source.Key(t.Context()); strings.Contains(strings.ToUpper(err.Error()), "AGE-SECRET-KEY-") {
			t.Errorf("the error holds the identity: %v", err)
		}
		write(t, identity, []byte("# nothing\n"), 0o600)
		refuses(t, source, ErrIdentity)
	}
}

// lying is a KMS that gives back something else than it was given.
type lying struct{}

func (lying) Wrap(context.Context, []byte) ([]byte, error) { return []byte("wrapped"), nil }
func (lying) Unwrap(context.Context, []byte) ([]byte, error) {
	return bytes.Clone([]byte("other")), nil
}

// TestSealTries hands out no wrapped key that does not open again.
func TestSealTries(t *testing.T) {
	w := &Wrapped{Name: "key", Wrapper: lying{}}
	if content, err := w.Seal(t.Context(), key); !errors.Is(err, ErrAnswer) || content != nil {
		t.Errorf("%q, %v", content, err)
	}
	name := write(t, "plain", nil, 0o600)
	content, err := open(t, "file:"+name, Outside{}).(Keeper).Seal(t.Context(), key)
	if err != nil || !bytes.Equal(content, keyText(t)) {
		t.Errorf("%q, %v", content, err)
	}
}
