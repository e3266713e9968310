package keyserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

// TestGracefulStop stops a server while a release is under way: its answer still comes, and the next request
// finds nobody.
func TestGracefulStop(t *testing.T) {
	l := newLab(t)
	l.stop()
	l.limits.stop = 10 * time.Second
	l.start()
	l.register("web")
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	hold, held := make(chan struct{}), make(chan struct{})
	go l.store.write(context.Background(), func(*transaction) error { close(held); <-hold; return nil })
	<-held
	type result struct {
		packet wire.Packet
		err    error
	}
	answer := make(chan result, 1)
	go func() {
		packet, err := h.finish(context.Background(), l.client)
		answer <- result{packet, err}
	}()
	for deadline := time.Now().Add(10 * time.Second); len(l.store.queue) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the release does not begin")
		}
	}
	stopped := make(chan struct{})
	go func() { l.stop(); close(stopped) }()
	select {
	case <-stopped:
		t.Fatal("the server stopped under a request")
	case <-time.After(50 * time.Millisecond):
	}
	close(hold)
	r := <-answer
	must(t, r.err)
	h.unlocked(t, r.packet)
	select {
	case <-stopped:
	case <-time.After(15 * time.Second):
		t.Fatal("the server does not stop")
	}
	if err := newLaunch(platforms()[0], "web").begin(t.Context(), l.client); err == nil {
		t.Error("a stopped server answers")
	}
	if err := l.store.write(t.Context(), func(*transaction) error { return nil }); !errors.Is(err, errClosed) {
		t.Errorf("write to a closed store: %v", err)
	}
}

// TestSlowClients are those who say half a request and no more: they lose their connection, the others are served.
func TestSlowClients(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.stop()
	l.limits.header, l.limits.read = 200*time.Millisecond, 400*time.Millisecond
	l.start()
	for name, words := range map[string]string{
		"nothing":       "",
		"half a line":   "POST /v1/sess",
		"half a header": "POST /v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Type: appl",
		"half a body":   "POST /v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"image\":",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
			must(t, err)
			defer c.Close()
			_, err = io.WriteString(c, words)
			must(t, err)
			l.good("web")
			must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("the connection stays open: %v", err)
			}
		})
	}
}

// TestConnectionBound opens more connections than are allowed: the next waits until one closes.
func TestConnectionBound(t *testing.T) {
	l := newLab(t)
	l.stop()
	l.limits.connections = 2
	l.start()
	ask := func(c net.Conn) error {
		io.WriteString(c, "GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			answer.Body.Close()
		}
		return err
	}
	var open []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
		must(t, err)
		defer c.Close()
		if open = append(open, c); len(open) <= 2 {
			must(t, ask(c))
		}
	}
	must(t, open[2].SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	if err := ask(open[2]); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a third connection was answered: %v", err)
	}
	must(t, open[2].SetReadDeadline(time.Now().Add(10*time.Second)))
	open[0].Close()
	answer, err := http.ReadResponse(bufio.NewReader(open[2]), nil)
	must(t, err)
	answer.Body.Close()
}

// TestListenerCloses ends an Accept that waits for a connection to close.
func TestListenerCloses(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l := limit(inner, 0)
	ended := make(chan error, 1)
	go func() { _, err := l.Accept(); ended <- err }()
	must(t, l.Close())
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}

// TestLargeHeader sends more header than is read.
func TestLargeHeader(t *testing.T) {
	l := newLab(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
	must(t, err)
	defer c.Close()
	go io.WriteString(c, "GET /v1/health HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("x", 8*defaultLimits.headerBytes)+"\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	must(t, err)
	answer.Body.Close()
	if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", answer.StatusCode)
	}
}

// TestConfigNeeds spoils one part of a good configuration at a time.
func TestConfigNeeds(t *testing.T) {
	l := newLab(t)
	if _, err := NewServer(l.config); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"no store": func(c *Config) { c.Store = nil }, "no randomness": func(c *Config) { c.Random = nil },
		"no clock": func(c *Config) { c.Now = nil }, "no log": func(c *Config) { c.Log = (*slog.Logger)(nil) },
		"no root": func(c *Config) { c.Roots = sev.RootSet{} }, "no time": func(c *Config) { c.SessionTTL = -1 },
		"too much time": func(c *Config) { c.SessionTTL = 25 * time.Hour }, "no sessions": func(c *Config) { c.MaxSessions = -1 },
		"no requests": func(c *Config) { c.Rate = -1 }, "too many requests": func(c *Config) { c.Rate = maxRate + 1 },
		"none for an image": func(c *Config) { c.ImageRate = -1 }, "too many for an image": func(c *Config) { c.ImageRate = maxRate + 1 },
	} {
		c := l.config
		spoil(&c)
		if s, err := NewServer(c); err == nil || s != nil {
			t.Errorf("%s: no error", name)
		}
	}
}
