package keyserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
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
