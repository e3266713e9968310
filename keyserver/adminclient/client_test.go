package adminclient

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/keyserver/wire"
)

// TestURL takes good URLs and refuses those over which a credential must not go.
func TestURL(t *testing.T) {
	for url, good := range map[string]bool{
		"https://keys.example": true, "https://keys.example:8443/": true, "http://127.0.0.1:1": true, "http://[::1]:1": true,
		"http://keys.example": false, "http://localhost:1": false, "http://192.0.2.1": false, "ftp://keys.example": false,
		"https://user:x@keys.example": false, "https://keys.example/?x": false, "https://": false, "keys.example": false,
	} {
		if c, err := New(url, nil, http.DefaultClient); (err == nil) != good || (c != nil) != good {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// TestAnswers starts from a good answer and spoils it.
func TestAnswers(t *testing.T) {
	const key = `{"key":"x"}`
	problem, err := wire.Problem{Class: wire.Conflict, Request: "7", Detail: "it is there"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		status      int
		media, body string
		err         error
	}{
		"good":                {200, wire.MediaType, key, nil},
		"other type":          {200, "text/html", key, ErrNotKeyServer},
		"unknown field":       {200, wire.MediaType, `{"key":"x","y":"z"}`, ErrNotKeyServer},
		"problem of success":  {200, wire.ProblemMediaType, string(problem), ErrNotKeyServer},
		"problem":             {409, wire.ProblemMediaType, string(problem), &Refused{wire.Conflict, "7", "it is there"}},
		"problem of another":  {404, wire.ProblemMediaType, string(problem), ErrNotKeyServer},
		"no problem":          {500, "text/plain", "oops", ErrNotKeyServer},
		"redirect":            {307, "", "", ErrNotKeyServer},
		"too large":           {200, wire.MediaType, key + strings.Repeat(" ", wire.MaxAnswer), ErrNotKeyServer},
		"large but not too":   {200, wire.MediaType, key + strings.Repeat(" ", wire.MaxBody), nil},
		"escape in a problem": {409, wire.ProblemMediaType, strings.Replace(string(problem), "it is", `\u001b[2J`, 1), ErrNotKeyServer},
	} {
		var got *http.Request
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r
			if c.media != "" {
				w.Header().Set("Content-Type", c.media)
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}))
		client, err := New(server.URL, []byte("token"), server.Client())
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.AuditKey(t.Context())
		refused, want := (*Refused)(nil), (*Refused)(nil)
		switch {
		case c.err == nil:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case errors.As(c.err, &want):
			if !errors.As(err, &refused) || *refused != *want {
				t.Errorf("%s: %v", name, err)
			}
		case !errors.Is(err, c.err):
			t.Errorf("%s: %v", name, err)
		}
		server.Close()
		if got.URL.Path != "/v1/admin/audit/key" || got.Header.Get("Authorization") != "Bearer token" {
			t.Errorf("%s: asked for %s with %v", name, got.URL.Path, got.Header)
		}
	}
}

// TestStream reads one whole, and one that is cut.
func TestStream(t *testing.T) {
	cut := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(make([]byte, 100_000))
		if cut {
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	client, err := New(server.URL, nil, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := client.Backup(t.Context(), &b); err != nil || b.Len() != 100_000 {
		t.Fatalf("%d bytes, %v", b.Len(), err)
	}
	cut = true
	if err := client.Backup(t.Context(), &b); !errors.Is(err, ErrCut) {
		t.Errorf("cut: %v", err)
	}
}
