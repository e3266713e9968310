package metrics

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/testtool"
)

var testNow = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// full has every metric.
func full() Config {
	return Config{
		OpenSessions: func() (int64, error) { return 7, nil },
		Chains:       func() (uint64, uint64) { return 11, 3 },
		Queue:        func() (int, int) { return 2, 512 },
		Certificates: map[string]func() (time.Time, bool){"server": func() (time.Time, bool) { return testNow.Add(36 * time.Hour), true }},
	}
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// busy has one of everything counted.
func busy(m *Metrics) {
	m.Decided("session", "sev", "", 0)
	m.Decided("release", "sev", "", 0)
	m.Decided("release", "seves", "refused", 0)
	m.Decided("session", "", "untrusted-platform", 0)
	m.Decided("expire", "", "", 5)
	m.Signed(testNow)
	m.Batch()(3, 1)
	m.KDS("answered", 0)
	m.KDS("rate-limited", 10*time.Second)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/sessions", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusCreated) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotFound) })
	h := m.Count(mux)
	for method, path := range map[string]string{"POST": "/v1/sessions", "GET": "/v1/images/of-somebody"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
	}
}

// TestCounts counts one of everything.
func TestCounts(t *testing.T) {
	m := New(full())
	busy(m)
	text := scrape(t, m)
	for _, want := range []string{
		`sealboot_keyserver_decisions_total{class="granted",event="session",kind="sev"} 1`,
		`sealboot_keyserver_decisions_total{class="granted",event="release",kind="sev"} 1`,
		`sealboot_keyserver_decisions_total{class="granted",event="release",kind="snp"} 0`,
		`sealboot_keyserver_decisions_total{class="refused",event="release",kind="seves"} 1`,
		`sealboot_keyserver_decisions_total{class="untrusted-platform",event="session",kind="none"} 1`,
		`sealboot_keyserver_sessions_expired_total 5`,
		`sealboot_keyserver_sessions_open 7`,
		`sealboot_keyserver_audit_rows_total 5`,
		`sealboot_keyserver_audit_checkpoint_timestamp_seconds 1.7956944e+09`,
		`sealboot_keyserver_store_batch_writes_sum 4`,
		`sealboot_keyserver_store_commit_duration_seconds_count 1`,
		`sealboot_keyserver_store_failed_writes_total 1`,
		`sealboot_keyserver_store_queue_writes 2`,
		`sealboot_keyserver_store_queue_bound_writes 512`,
		`sealboot_keyserver_chain_cache_total{result="hit"} 11`,
		`sealboot_keyserver_chain_cache_total{result="miss"} 3`,
		`sealboot_keyserver_certificate_end_timestamp_seconds{use="server"} 1.795824e+09`,
		`sealboot_keyserver_kds_requests_total{outcome="answered"} 1`,
		`sealboot_keyserver_kds_requests_total{outcome="withheld"} 0`,
		`sealboot_keyserver_kds_backoff_seconds 10`,
		`sealboot_keyserver_requests_total{code="201",route="/v1/sessions"} 1`,
		`sealboot_keyserver_requests_total{code="404",route="other"} 1`,
		`sealboot_keyserver_request_duration_seconds_count{route="/v1/sessions"} 1`,
		`sealboot_keyserver_requests_in_flight 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("not there: %s", want)
		}
	}
	if !strings.Contains(text, "sealboot_keyserver_build_info{") || strings.Contains(text, "of-somebody") {
		t.Error(text)
	}
}

// TestBounded sends what has no end: the number of series stays the same.
func TestBounded(t *testing.T) {
	m := New(full())
	busy(m)
	m.Decided("release", "new", "new", 0)
	m.KDS("new", 0)
	before := strings.Count(scrape(t, m), "\n")
	h := m.Count(http.NotFoundHandler())
	for i := range 100 {
		name := strings.Repeat("x", i+1)
		m.Decided("release", name, name, 0)
		m.KDS(name, 0)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/"+name, nil))
	}
	if after := strings.Count(scrape(t, m), "\n"); after != before {
		t.Errorf("%d lines, %d before", after, before)
	}
}

// TestUnreadable leaves out what cannot be read, and serves the rest.
func TestUnreadable(t *testing.T) {
	c := full()
	c.OpenSessions = func() (int64, error) { return 0, errors.New("no database") }
	c.Certificates["other"] = func() (time.Time, bool) { return time.Time{}, false }
	text := scrape(t, New(c))
	if strings.Contains(text, "sessions_open") || strings.Contains(text, `use="other"`) || !strings.Contains(text, `use="server"`) {
		t.Error(text)
	}
	scrape(t, New(Config{}))
	if New(Config{}) == New(Config{}) {
		t.Error("two servers share their metrics")
	}
}

// TestHandler refuses what only reads a body or changes something.
func TestHandler(t *testing.T) {
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "DELETE": 405} {
		w := httptest.NewRecorder()
		New(full()).Handler().ServeHTTP(w, httptest.NewRequest(method, "/metrics", nil))
		if w.Code != want {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
}

// TestPanic counts a request whose handler gives up.
func TestPanic(t *testing.T) {
	m := New(full())
	h := m.Count(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }))
	func() {
		defer func() { recover() }()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}()
	if text := scrape(t, m); !strings.Contains(text, "requests_in_flight 0") || !strings.Contains(text, `route="other"`) {
		t.Error(text)
	}
}

// promtool skips the test where Prometheus is not installed, in CI too: its package starts a server.
func promtool(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool (package prometheus) is not installed")
	}
	return program
}

// TestPromtool has Prometheus' own linter look at all metrics.
func TestPromtool(t *testing.T) {
	program := promtool(t)
	m := New(full())
	busy(m)
	var own strings.Builder // the Go runtime's are not ours to name
	for line := range strings.Lines(scrape(t, m)) {
		if strings.Contains(line, namespace) {
			own.WriteString(line)
		}
	}
	cmd := exec.Command(program, "check", "metrics")
	cmd.Stdin = strings.NewReader(own.String())
	if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	cmd = exec.Command(program, "check", "metrics")
	cmd.Stdin = strings.NewReader("# TYPE wrong counter\nwrong 1\n")
	if err := cmd.Run(); err == nil {
		t.Error("promtool complains of nothing")
	}
}

const dashboardFile = "packaging/grafana-dashboard.json"

// queries gives the dashboard's panels with their queries; rows have none.
func queries(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testtool.Project(), dashboardFile))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Title  string
		UID    string
		Panels []struct {
			ID      int
			Title   string
			Type    string
			Targets []struct{ Expr string }
			GridPos struct{ X, Y, W, H int }
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) || d.Title == "" || d.UID == "" {
		t.Fatal("not one dashboard with a title and an id")
	}
	list := map[string][]string{}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q has an id that is taken, no title, or no place", p.Title)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[at]; other != "" {
					t.Fatalf("panels %q and %q overlap", other, p.Title)
				}
				taken[at] = p.Title
			}
		}
		for _, q := range p.Targets {
			list[p.Title] = append(list[p.Title], q.Expr)
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
	}
	return list
}

// TestDashboard holds each name in the dashboard's queries to what is served, and each of our metrics to be shown.
func TestDashboard(t *testing.T) {
	m := New(full())
	busy(m)
	text := scrape(t, m)
	served := map[string]bool{}
	for _, name := range regexp.MustCompile(`(?m)^([a-z_]+)[{ ]`).FindAllStringSubmatch(text, -1) {
		served[name[1]] = true
	}
	labels := map[string]bool{"le": true, "job": true, "instance": true}
	for _, label := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(text, -1) {
		labels[label[1]] = true
	}
	names := regexp.MustCompile(`\b(sealboot|process|go)_[a-z0-9_]+`)
	selected := regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)"`)
	grouped := regexp.MustCompile(`\b(?:by|without) \(([^)]*)\)`)
	used := map[string]bool{}
	count := 0
	for title, list := range queries(t) {
		for _, q := range list {
			found := names.FindAllString(q, -1)
			if len(found) == 0 {
				t.Errorf("%s: %s names no metric", title, q)
			}
			for _, name := range found {
				count++
				if used[name] = true; !served[name] {
					t.Errorf("%s: %s is not served", title, name)
				}
			}
			for _, l := range selected.FindAllStringSubmatch(q, -1) {
				if !labels[l[1]] {
					t.Errorf("%s: label %s is not served", title, l[1])
				}
			}
			for _, g := range grouped.FindAllStringSubmatch(q, -1) {
				for l := range strings.SplitSeq(g[1], ",") {
					if l = strings.TrimSpace(l); !labels[l] {
						t.Errorf("%s: label %s is not served", title, l)
					}
				}
			}
		}
	}
	if count < 20 {
		t.Errorf("only %d names were looked at", count)
	}
	var unseen []string
	for name := range served {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count"), "_bucket")
		if strings.HasPrefix(name, namespace) && !used[base] && !used[base+"_bucket"] && !used[base+"_sum"] {
			unseen = append(unseen, name)
		}
	}
	if slices.Sort(unseen); len(unseen) != 0 {
		t.Errorf("on no panel: %v", unseen)
	}
}

// TestDashboardQueries has Prometheus parse the queries: they are written as rules for it.
func TestDashboardQueries(t *testing.T) {
	program := promtool(t)
	rules := "groups:\n- name: dashboard\n  rules:\n"
	count := 0
	for _, list := range queries(t) {
		for _, q := range list {
			count++
			quoted, err := json.Marshal(strings.ReplaceAll(q, "$__rate_interval", "5m"))
			if err != nil {
				t.Fatal(err)
			}
			rules += "  - record: query_" + strings.Repeat("x", count) + "\n    expr: " + string(quoted) + "\n"
		}
	}
	name := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(name, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, program, "check", "rules", name)
	if count < 10 {
		t.Errorf("only %d queries", count)
	}
}
