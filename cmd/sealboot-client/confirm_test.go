package main

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

const goodReceipt = `{"session":"000102030405060708090a0b0c0d0e0f","key":"EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=","used":"current"}` + "\n"

// TestConfirm has a server that takes the good confirmation, and then servers that do not.
func TestConfirm(t *testing.T) {
	problem := func(class wire.Class) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			body, err := wire.Problem{Class: class, Request: "7"}.Encode()
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("Content-Type", wire.ProblemMediaType)
			w.WriteHeader(class.Status())
			w.Write(body)
		}
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		code   int
		says   string
	}{
		{"good", func(w http.ResponseWriter, r *http.Request) {
			m, err := wire.DecodeConfirmationRequest(r.Body)
			// printf 'sealboot used 1\0%s' 736869e5-84f0-4973-92ec-06879ce3da0b | openssl dgst -sha256 -mac HMAC -macopt hexkey:101112…2f
			const mac = "e80a4bf03a623fff85b9d8033aa4345303473996ce525cff5d494e605905329e"
			if err != nil || m.Secret != sev.DiskPassphrase || hex.EncodeToString(m.MAC) != mac || r.URL.Path != "/v1/sessions/000102030405060708090a0b0c0d0e0f/confirmation" {
				t.Errorf("server got %s, %+v, %v", r.URL.Path, m, err)
			}
			w.WriteHeader(http.StatusNoContent)
		}, cli.ExitYes, "confirmed"},
		{"refused", problem(wire.Refused), cli.ExitNo, "as request 7"},
		{"unknown session", problem(wire.UnknownSession), cli.ExitNo, "no such session"},
		{"busy", problem(wire.Busy), cli.ExitBroken, "the receipt is kept, run it again"},
		{"server failed", problem(wire.Internal), cli.ExitBroken, "the receipt is kept, run it again"},
		{"no key server", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) }, cli.ExitBroken, "not a key server's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.answer)
			defer server.Close()
			file := filepath.Join(t.TempDir(), "receipt")
			if err := os.WriteFile(file, []byte(goodReceipt), 0o600); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), []string{"confirm", "--receipt", file, "--server", server.URL}, nil, &stdout, &stderr)
			if code != c.code || !strings.Contains(stderr.String(), c.says) || stdout.Len() != 0 {
				t.Errorf("exit code %d, want %d; %q does not say %q", code, c.code, &stderr, c.says)
			}
			if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) != (c.code == cli.ExitYes) {
				t.Errorf("the receipt: %v", err)
			}
		})
	}
}

// TestConfirmTLS is a guest that knows its key server's certificate, and then one before which a host answers instead.
func TestConfirmTLS(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusNoContent)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshake that fails
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	ca, note := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "receipt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		args  []string
		code  int
		asked int32
		says  string
	}{
		{"good", []string{"--server-ca", ca}, cli.ExitYes, 1, "confirmed"},
		{"another's certificate", nil, cli.ExitBroken, 0, "failed to verify certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked.Store(0)
			if err := os.WriteFile(note, []byte(goodReceipt), 0o600); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"confirm", "--receipt", note, "--server", server.URL}, c.args...), nil, &stdout, &stderr)
			if code != c.code || asked.Load() != c.asked || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("exit code %d, want %d; asked %d times; %q does not say %q", code, c.code, asked.Load(), &stderr, c.says)
			}
			if _, err := os.Stat(note); errors.Is(err, fs.ErrNotExist) != (c.code == cli.ExitYes) {
				t.Errorf("the receipt: %v", err)
			}
		})
	}
}
