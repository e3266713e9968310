package keyserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// halves are requests that do not go on.
var halves = map[string]string{
	"nothing":       "",
	"half a line":   "POST /v1/sess",
	"half a header": "POST /v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Type: appl",
	"half a body":   "POST /v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"image\":",
}

const health = "GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n"

// TestSlowClients are those who say half a request and no more: they lose their connection, the others are served.
func TestSlowClients(t *testing.T) {
	for name, words := range halves {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.register("web")
			l.stop()
			if l.limits.header, l.limits.read = 200*time.Millisecond, time.Minute; name == "half a body" {
				l.limits.read = 400 * time.Millisecond
			}
			l.start()
			c := l.dial("")
			_, err := io.WriteString(c, words)
			must(t, err)
			l.good("web")
			must(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("the connection stays open: %v", err)
			}
		})
	}
}

// TestDeafClients ask on and on and read no answer: they lose their connection too, once the answers fill what lies between.
func TestDeafClients(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.stop()
	l.limits.write = 400 * time.Millisecond
	l.start()
	c := l.dial("")
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	for {
		if _, err := io.WriteString(c, strings.Repeat(health, 1000)); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays open")
			}
			break
		}
	}
	l.good("web")
}

// dial connects from a loopback address.
func (l *lab) dial(from string) net.Conn {
	l.t.Helper()
	var d net.Dialer
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.DialContext(l.t.Context(), "tcp", strings.TrimPrefix(l.url, "http://"))
	must(l.t, err)
	l.t.Cleanup(func() { c.Close() })
	return c
}

// answered says whether a request on the connection is.
func answered(c net.Conn) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, health); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// gaveWay waits for the server to close a connection.
func gaveWay(t *testing.T, c net.Conn) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a connection that should have given way stays open: %d bytes, %v", n, err)
	}
}

// TestConnectionsGiveWay: the one that has waited longest gives way to one too many, of the source that has the most, but none with
// a request that is worked on.
func TestConnectionsGiveWay(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.stop()
	l.limits.connections = 3
	l.start()
	const other = "127.0.0.2"
	first, alone, second := l.dial(""), net.Conn(nil), net.Conn(nil)
	must(t, answered(first))
	alone = l.dial(other)
	must(t, answered(alone))
	second = l.dial("")
	must(t, answered(second))
	must(t, answered(first)) // which makes second the one that has waited longest of its source, and alone of all
	third := l.dial("")
	must(t, answered(third))
	gaveWay(t, second)
	for name, c := range map[string]net.Conn{"first": first, "alone": alone, "third": third} {
		if err := answered(c); err != nil {
			t.Errorf("%s gave way: %v", name, err)
		}
	}

	// A release that is worked on, while others come and go.
	hold, held := make(chan struct{}), make(chan struct{})
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	go l.store.write(context.Background(), func(*transaction) error { close(held); <-hold; return nil })
	<-held
	got := make(chan error, 1)
	go func() {
		packet, err := h.finish(context.Background(), l.client)
		if err == nil {
			h.unlocked(t, packet)
		}
		got <- err
	}()
	for deadline := time.Now().Add(10 * time.Second); len(l.store.queue) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the release does not begin")
		}
	}
	for range 20 {
		must(t, answered(l.dial("")))
	}
	close(hold)
	must(t, <-got)
}

// TestManyConnections opens three times as many connections as there may be, of each kind that says nothing useful: whoever comes
// after is served at once, far before any of them is over.
func TestManyConnections(t *testing.T) {
	l := newLab(t)
	l.register("web")
	var all []net.Conn
	for name, words := range halves {
		for range 3 * defaultLimits.connections / len(halves) {
			c := l.dial("")
			if _, err := io.WriteString(c, words); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			all = append(all, c)
		}
		h, err := client.New(l.url, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: defaultLimits.header / 2})
		must(t, err)
		launch := newLaunch(platforms()[0], "web")
		packet, err := launch.run(t, h)
		must(t, err)
		launch.unlocked(t, packet)
	}
	open := 0
	for _, c := range all {
		must(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			open++
		}
	}
	if open > defaultLimits.connections {
		t.Errorf("%d of %d connections are open", open, len(all))
	}
}

// TestAllWorking has as many requests under way as there may be connections: one more is closed, and those are answered.
func TestAllWorking(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l := limit(inner, 2)
	hold, working := make(chan struct{}), make(chan struct{}, 2)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		working <- struct{}{}
		<-hold
		io.WriteString(w, wire.MediaType)
	})}
	l.bind(server)
	go server.Serve(l)
	defer server.Close()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		must(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	got := make(chan error, 2)
	for range 2 {
		c := dial()
		go func() { got <- answered(c) }()
		<-working
	}
	gaveWay(t, dial())
	close(hold)
	must(t, <-got)
	must(t, <-got)
}
