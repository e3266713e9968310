package load

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestRuns(t *testing.T) {
	var n atomic.Int64
	one := func(context.Context, int) error { n.Add(1); time.Sleep(time.Millisecond); return nil }
	for name, run := range map[string]func() (Result, error){
		"closed": func() (Result, error) { return Closed(t.Context(), 4, 50*time.Millisecond, one) },
		"open":   func() (Result, error) { return Open(t.Context(), 4, 500, 50*time.Millisecond, one) },
	} {
		n.Store(0)
		r, err := run()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r.Count != int(n.Load()) || r.Count == 0 || r.P50 < time.Millisecond || r.P99 < r.P50 || r.Max < r.P99 || r.Rate() <= 0 {
			t.Errorf("%s: %+v after %d exchanges", name, r, n.Load())
		}
	}
}

func TestFailureEndsRun(t *testing.T) {
	broken := errors.New("broken")
	one := func(context.Context, int) error { return broken }
	if _, err := Closed(t.Context(), 4, time.Hour, one); !errors.Is(err, broken) {
		t.Errorf("closed: %v", err)
	}
	if _, err := Open(t.Context(), 4, 1000, time.Minute, one); !errors.Is(err, broken) {
		t.Errorf("open: %v", err)
	}
	if _, err := Closed(t.Context(), 4, 0, one); !errors.Is(err, errNothing) {
		t.Errorf("no time: %v", err)
	}
}

func TestConn(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/last" {
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, r.Header.Get("Content-Type")+string(body))
	}))
	defer server.Close()
	c, err := Dial(t.Context(), server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, body := range []string{"one", "", strings.Repeat("x", 100_000)} {
		status, text, err := c.Post("/path", "text/plain", []byte(body))
		if err != nil || status != http.StatusCreated || string(text) != "text/plain"+body {
			t.Fatalf("%d %.20s: %v", status, text, err)
		}
	}
	if _, _, err := c.Post("/last", "text/plain", nil); err == nil {
		t.Error("the connection's end went by without a word")
	}
}
