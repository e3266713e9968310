package storekey

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// double plays Vault: the transit engine at the mount "team/transit" with the key "sealboot", for one token and
// namespace. It checks that each request is exactly what the API asks for.
type double struct {
	*httptest.Server
	t testing.TB

	mu     sync.Mutex
	aead   cipher.AEAD
	token  string
	spoil  http.HandlerFunc // answers instead
	asked  int
	wanted string // namespace
}

func newDouble(t testing.TB) *double {
	d := &double{t: t, token: "hvs.CAESIJ-test-token", wanted: "owners/web"}
	d.newKey()
	d.Server = httptest.NewUnstartedServer(d)
	d.Config.ErrorLog = log.New(io.Discard, "", 0)
	d.StartTLS()
	t.Cleanup(d.Close)
	return d
}

func (d *double) newKey() {
	secret := make([]byte, 32)
	rand.Read(secret)
	block, _ := aes.NewCipher(secret)
	d.aead, _ = cipher.NewGCM(block)
}

func (d *double) fail(w http.ResponseWriter, status int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []string{reason}})
}

func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	if d.spoil != nil {
		d.spoil(w, r)
		return
	}
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Vault-Request") != "true" ||
		r.URL.RawQuery != "" || r.TLS == nil {
		d.t.Errorf("request %s %s with %v", r.Method, r.URL, r.Header)
	}
	if got := r.Header.Values("X-Vault-Namespace"); d.wanted == "" && got != nil || d.wanted != "" && fmt.Sprint(got) != "["+d.wanted+"]" {
		d.t.Errorf("namespace %q, want %q", got, d.wanted)
	}
	if got := r.Header.Values("X-Vault-Token"); len(got) != 1 || got[0] != d.token {
		d.fail(w, http.StatusForbidden, "permission denied")
		return
	}
	body, _ := io.ReadAll(r.Body)
	fields := map[string]string{}
	if err := json.Unmarshal(body, &fields); err != nil || len(fields) != 1 {
		d.t.Errorf("body of %d bytes with %d fields: %v", len(body), len(fields), err)
	}
	switch r.URL.Path {
	case "/v1/team/transit/encrypt/sealboot":
		plain, err := base64.StdEncoding.DecodeString(fields["plaintext"])
		if err != nil || len(plain) == 0 {
			d.t.Errorf("plaintext: %v", err)
		}
		nonce := make([]byte, d.aead.NonceSize())
		rand.Read(nonce)
		sealed := "vault:v1:" + base64.StdEncoding.EncodeToString(d.aead.Seal(nonce, nonce, plain, nil))
		d.answer(w, map[string]any{"ciphertext": sealed, "key_version": 1})
	case "/v1/team/transit/decrypt/sealboot":
		text, ok := strings.CutPrefix(fields["ciphertext"], "vault:v1:")
		box, err := base64.StdEncoding.DecodeString(text)
		if !ok || err != nil || len(box) < d.aead.NonceSize() {
			d.fail(w, http.StatusBadRequest, "invalid ciphertext: no prefix")
			return
		}
		plain, err := d.aead.Open(nil, box[:d.aead.NonceSize()], box[d.aead.NonceSize():], nil)
		if err != nil {
			d.fail(w, http.StatusBadRequest, err.Error())
			return
		}
		d.answer(w, map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)})
	default:
		d.fail(w, http.StatusNotFound, "no handler for route")
	}
}

func (d *double) answer(w http.ResponseWriter, data map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"request_id": "8375227a-4a9f-a108-0b89-84c448419e80", "lease_id": "", "renewable": false,
		"lease_duration": 0, "data": data, "wrap_info": nil, "warnings": nil, "auth": nil, "mount_type": "transit"})
}

// bench is a key wrapped by the double, with all that its spelling names.
type bench struct {
	*double
	file, token, ca string
}

func newBench(t testing.TB) *bench {
	d := newDouble(t)
	b := &bench{double: d, file: write(t, "key.vault", nil, 0o644), token: write(t, "token", []byte(d.token+"\n"), 0o600),
		ca: write(t, "ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.Certificate().Raw}), 0o644)}
	content, err := b.source().(Keeper).Seal(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(content, []byte("vault:v1:")) || bytes.Contains(content, key) {
		t.Fatalf("wrapped key %q", content)
	}
	write(t, b.file, content, 0o644)
	gives(t, b.source())
	if b.asked != 3 { // wrap, unwrap what was wrapped, unwrap
		t.Fatalf("%d requests", b.asked)
	}
	return b
}

func (b *bench) source() Source {
	return open(b.t, "vault:"+b.URL+"/team/transit/sealboot?file="+b.file+"&token-file="+b.token+"&ca-file="+b.ca+"&namespace=owners/web", Outside{})
}

// status answers with it, and with a reason.
func (b *bench) status(status int, reason string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { b.fail(w, status, reason) }
}

func TestVault(t *testing.T) {
	b := newBench(t)
	good := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
	}
	huge := `{"data":{"plaintext":"` + strings.Repeat("A", 2*maxVaultAnswer) + `"}}`
	for about, c := range map[string]struct {
		answer http.HandlerFunc
		want   error
		status int    // of a *VaultError, 0 for another error
		word   string // what the operator is told
	}{
		"denied":            {b.status(403, "permission denied"), ErrDenied, 403, "token may have expired"},
		"no mount":          {b.status(404, "no handler for route"), ErrAnswer, 404, "mounted"},
		"no key":            {b.status(400, "encryption key not found"), ErrWrapped, 400, "encryption key not found"},
		"too many":          {b.status(429, "request path: rate limit quota exceeded"), ErrUnavailable, 429, "quota"},
		"internal error":    {b.status(500, "1 error occurred:\n\t* internal error\n\n"), ErrUnavailable, 500, "(1 error occurred: * internal error)"},
		"sealed":            {b.status(503, "Vault is sealed"), ErrUnavailable, 503, "unseal"},
		"standby":           {b.status(473, ""), ErrUnavailable, 473, ""},
		"teapot":            {b.status(418, strings.Repeat("x", 5000)), ErrAnswer, 418, ""},
		"accepted":          {b.status(202, ""), ErrAnswer, 202, ""},
		"huge refusal":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); io.WriteString(w, huge) }, ErrUnavailable, 500, ""},
		"redirect":          {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/v1/elsewhere", 307) }, ErrAnswer, 307, "active"},
		"huge answer":       {good(huge), ErrAnswer, 0, ""},
		"empty":             {good(""), ErrAnswer, 0, ""},
		"not JSON":          {good("<html>sign in</html>"), ErrAnswer, 0, ""},
		"half":              {good(`{"data":{"plaintext":"`), ErrAnswer, 0, ""},
		"no plaintext":      {good(`{"data":{}}`), ErrAnswer, 0, ""},
		"not base64":        {good(`{"data":{"plaintext":"***"}}`), ErrAnswer, 0, ""},
		"another plaintext": {good(`{"data":{"plaintext":"` + base64.StdEncoding.EncodeToString(key) + `"}}`), ErrNotKey, 0, ""},
		"hangs up":          {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ErrUnavailable, 0, ""},
		"huge header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 2*maxVaultAnswer))
		}, ErrUnavailable, 0, ""},
	} {
		t.Run(about, func(t *testing.T) {
			if c.word == "active" {
				c.word = "give that one's address"
			}
			b.spoil, b.asked = c.answer, 0
			defer func() { b.spoil = nil }()
			refuses(t, b.source(), c.want)
			if b.asked != 1 {
				t.Errorf("%d requests", b.asked)
			}
			_, err := b.source().Key(t.Context())
			problem := (*VaultError)(nil)
			if errors.As(err, &problem) != (c.status != 0) || problem != nil && problem.Status != c.status {
				t.Errorf("error %v, want status %d", err, c.status)
			}
			if !strings.Contains(err.Error(), c.word) || len(err.Error()) > 600 || strings.Contains(err.Error(), b.token) {
				t.Errorf("error %q, want %q in it", err, c.word)
			}
		})
	}
	gives(t, b.source())
}

func TestVaultFiles(t *testing.T) {
	b := newBench(t)
	token := []byte(b.double.token + "\n")
	t.Run("another's token", func(t *testing.T) {
		write(t, b.token, []byte("hvs.other"), 0o600)
		refuses(t, b.source(), ErrDenied)
	})
	t.Run("a token that others may read", func(t *testing.T) {
		write(t, b.token, token, 0o644)
		_, err := b.source().Key(t.Context())
		if access := (*AccessError)(nil); !errors.As(err, &access) {
			t.Error(err)
		}
	})
	for _, text := range []string{"", "\n", "two\nlines", "a b", "h\u00fc", strings.Repeat("x", maxToken+1)} {
		write(t, b.token, []byte(text), 0o600)
		if raw, err := b.source().Key(t.Context()); err == nil || raw != nil || text != "" && len(text) > 3 && strings.Contains(err.Error(), text) {
			t.Errorf("token %.20q: %v", text, err)
		}
	}
	write(t, b.token, token, 0o600)
	gives(t, b.source())

	t.Run("no wrapped key", func(t *testing.T) {
		b.asked = 0
		write(t, b.file, []byte("sealboot-store-key-1 "), 0o600)
		refuses(t, b.source(), ErrWrapped)
		if b.asked != 0 {
			t.Error("it was sent all the same")
		}
	})
	t.Run("changed", func(t *testing.T) {
		content, err := b.source().(Keeper).Seal(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		write(t, b.file, content, 0o600)
		gives(t, b.source())
		b.newKey()
		refuses(t, b.source(), ErrWrapped)
	})
	t.Run("another CA", func(t *testing.T) {
		write(t, b.ca, []byte("none"), 0o600)
		if _, err := b.source().Key(t.Context()); err == nil || !strings.Contains(err.Error(), "no certificate") {
			t.Error(err)
		}
		refuses(t, open(t, "vault:"+b.URL+"/team/transit/sealboot?file="+b.file+"&token-file="+b.token, Outside{}), ErrUnavailable)
	})
}

// TestVaultWaits gives up when its time or its caller's is over.
func TestVaultWaits(t *testing.T) {
	b := newBench(t)
	gone := make(chan struct{})
	b.spoil = func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		gone <- struct{}{}
	}
	source := b.source()
	source.(*Wrapped).Wrapper.(*vault).timeout = 50 * time.Millisecond
	refuses(t, source, ErrUnavailable)
	<-gone
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.source().Key(ctx); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	<-gone
}
