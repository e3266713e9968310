package keyserver

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestMonitor counts whole exchanges, one refused, as a scrape sees them.
func TestMonitor(t *testing.T) {
	l := newLab(t)
	l.stop()
	l.monitored = true
	l.start()
	l.register("web")
	l.good("web")
	l.good("web")
	bad := newLaunch(platforms()[0], "web")
	bad.digest[0] ^= 1
	if _, err := bad.run(t, l.client); err == nil {
		t.Fatal("a wrong digest was released")
	}
	open := newLaunch(platforms()[1], "web")
	must(t, open.begin(t.Context(), l.client))
	if status, _, _ := l.raw("GET", "/v1/nothing", "", nil); status != http.StatusNotFound {
		t.Fatal(status)
	}
	text := l.look(l.server.metrics.Handler(), "/metrics")
	for _, want := range []string{
		`sealboot_keyserver_decisions_total{class="granted",event="session",kind="sev"} 4`,
		`sealboot_keyserver_decisions_total{class="granted",event="release",kind="sev"} 2`,
		`sealboot_keyserver_decisions_total{class="refused",event="release",kind="sev"} 1`,
		`sealboot_keyserver_decisions_total{class="granted",event="register",kind="none"} 1`,
		`sealboot_keyserver_audit_rows_total 8`,
		`sealboot_keyserver_sessions_open 1`,
		`sealboot_keyserver_chain_cache_total{result="hit"} 2`,
		`sealboot_keyserver_chain_cache_total{result="miss"} 2`,
		`sealboot_keyserver_requests_total{code="201",route="/v1/sessions"} 4`,
		`sealboot_keyserver_requests_total{code="200",route="/v1/sessions/{id}/measurement"} 2`,
		`sealboot_keyserver_requests_total{code="403",route="/v1/sessions/{id}/measurement"} 1`,
		`sealboot_keyserver_requests_total{code="404",route="other"} 1`,
		`sealboot_keyserver_store_failed_writes_total 0`,
		`sealboot_keyserver_store_queue_bound_writes 512`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("not counted: %s", want)
		}
	}
	if strings.Contains(text, `"web"`) || strings.Contains(text, open.session.ID) {
		t.Error("the metrics name an image or a session")
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestLoopbackOnly refuses other names, as DNS rebinding would bring them.
func TestLoopbackOnly(t *testing.T) {
	h := LoopbackOnly(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	for host, want := range map[string]int{
		"127.0.0.1:9420": 200, "127.0.0.1": 200, "[::1]:9420": 200, "localhost:9420": 200, "localhost": 200, "127.8.8.8:1": 200,
		"evil.example:9420": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example:9420": 421, "10.0.0.1:9420": 421, "": 421, "0.0.0.0:1": 421,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%q: %d", host, w.Code)
		}
	}
}

// TestServeHandler serves the owner's page on a listener of its own, and stops with the server's context.
func TestServeHandler(t *testing.T) {
	l := newLab(t)
	l.register("web")
	h, err := l.server.OwnersPage("test")
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.server.ServeHandler(ctx, listener, LoopbackOnly(h)) }()
	l.url = "http://" + listener.Addr().String()
	if status, header, text := l.raw("GET", "/", "", nil); status != http.StatusOK || header.Get("Content-Security-Policy") == "" || !strings.Contains(text, "<b>web</b>") {
		t.Errorf("%d %v %s", status, header, text)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	must(t, <-ended)
}
