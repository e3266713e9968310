package page

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var testNow = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// fake is a source of what a test puts into it.
type fake struct {
	images      []Image
	open        []Session
	entries     []Entry // the newest first
	revocations []Revocation
	audit       Audit
	err         error
}

func (f *fake) Images(context.Context) ([]Image, error) { return f.images, f.err }
func (f *fake) Open(_ context.Context, limit int) ([]Session, int64, error) {
	return f.open[:min(limit, len(f.open))], int64(len(f.open)), f.err
}
func (f *fake) choose(before int64, limit int, want func(Entry) bool) (list []Entry, err error) {
	for _, e := range f.entries {
		if e.Seq < before && len(list) < limit && want(e) {
			list = append(list, e)
		}
	}
	return list, f.err
}
func (f *fake) Launches(_ context.Context, before int64, limit int) ([]Entry, error) {
	return f.choose(before, limit, func(e Entry) bool { return e.Event == "release" })
}
func (f *fake) Refusals(_ context.Context, before int64, limit int) ([]Entry, error) {
	return f.choose(before, limit, func(e Entry) bool { return e.Class != "" })
}
func (f *fake) Changes(_ context.Context, before int64, limit int) ([]Entry, error) {
	return f.choose(before, limit, func(e Entry) bool { return e.Event == "revoke" || e.Event == "register" })
}
func (f *fake) Revocations(_ context.Context, limit int) ([]Revocation, error) {
	return f.revocations[:min(limit, len(f.revocations))], f.err
}
func (f *fake) Audit(_ context.Context, limit int) (Audit, error) {
	a := f.audit
	a.Checkpoints = a.Checkpoints[:min(limit, len(a.Checkpoints))]
	return a, f.err
}

// example is an owner's ordinary week.
func example() *fake {
	f := &fake{
		images: []Image{
			{Name: "build-runner", Version: 2, PolicyVersion: 1, Registered: testNow.Add(-20 * 24 * time.Hour), Mode: "sev", Policy: "NODBG,NOKS,NOSEND", Digests: []string{strings.Repeat("7c21", 16)}},
			{Name: "db", Version: 5, PolicyVersion: 3, Registered: testNow.Add(-3 * 24 * time.Hour), Mode: "snp", Policy: "NODBG, TCB 4.0.22.213", Digests: []string{strings.Repeat("91ab", 24), strings.Repeat("fe02", 24)}},
			{Name: "web-2025", Version: 9, PolicyVersion: 4, Registered: testNow.Add(-90 * 24 * time.Hour), Revoked: true, Mode: "seves", Policy: "NODBG,NOKS,ES,NOSEND"},
			{Name: "web1", Version: 1, PolicyVersion: 1, Registered: testNow.Add(-2 * time.Hour), Mode: "seves", Policy: "NODBG,NOKS,ES,NOSEND", Digests: []string{strings.Repeat("0d5e", 16)}},
		},
		open: []Session{
			{ID: "5be0c1d29f6a4c0d8f0a1b2c3d4e5f60", Image: "web1", Version: 1, Kind: "sev", Platform: "Milan/4f1c09aa82d5be71", Created: testNow.Add(-40 * time.Second), Expires: testNow.Add(260 * time.Second)},
		},
		revocations: []Revocation{
			{Kind: "image", Value: "web-2025", Reason: "replaced by web1", Time: testNow.Add(-2 * time.Hour)},
			{Kind: "chip", Value: "3d1f" + strings.Repeat("0a", 62), Reason: "returned to the vendor", Time: testNow.Add(-50 * time.Hour)},
		},
	}
	add := func(ago time.Duration, e Entry) {
		e.Time = testNow.Add(-ago)
		e.Request = fmt.Sprintf("%016x", 0x9e3779b97f4a7c15*uint64(len(f.entries)+1))
		f.entries = append(f.entries, e)
	}
	released := Entry{Event: "release", Image: "web1", Version: 1, PolicyVersion: 1, Kind: "seves", Platform: "Milan/4f1c09aa82d5be71", Source: "198.51.100.7", Session: "c0ffee00c0ffee00c0ffee00c0ffee00", Policy: "NODBG,NOKS,ES,NOSEND", API: "1.55.21", Digest: strings.Repeat("0d5e", 16)}
	snp := released
	snp.Image, snp.Version, snp.PolicyVersion, snp.Kind, snp.Platform, snp.Source, snp.Digest = "db", 5, 3, "snp", "Genoa/b07a55e1c3d2f490", "203.0.113.40", strings.Repeat("91ab", 24)
	wrong := released
	wrong.Digest, wrong.Class, wrong.Cause, wrong.Reason = "", "refused", "measurement is not the expected one", "the digest is that of version 4 of image db, mode snp; the image is db, version 5"
	wrong.Image, wrong.Version, wrong.Kind, wrong.Platform = "db", 5, "snp", "Genoa/b07a55e1c3d2f490"
	old := released
	old.Image, old.Version, old.Class, old.Cause, old.Digest = "web-2025", 9, "refused", "image is revoked", ""
	line := released
	line.Class, line.Cause, line.Reason, line.Digest = "refused", "measurement is not the expected one", "the digest fits under policy NODBG,NOKS,NOSEND, the session's is NODBG,NOKS,ES,NOSEND", ""
	add(2*time.Minute, released)
	add(9*time.Minute, wrong)
	add(31*time.Minute, snp)
	add(55*time.Minute, Entry{Event: "session", Image: "web1", Source: "192.0.2.99", Class: "untrusted-platform", Cause: "verify certificates: root key 5a3c… is trusted by nobody here"})
	add(66*time.Minute, old)
	add(2*time.Hour, Entry{Event: "revoke", Principal: "anna (admin)", Image: "web-2025", Reason: "replaced by web1"})
	add(2*time.Hour+time.Minute, Entry{Event: "register", Principal: "ci (register)", Image: "web1", Version: 1})
	add(3*time.Hour, line)
	add(4*time.Hour, snp)
	add(26*time.Hour, released)
	late := released
	late.Class, late.Cause, late.Digest = "expired", "session was over at 2026-11-25T08:11:04Z or gave way to newer ones", ""
	add(28*time.Hour, late)
	add(50*time.Hour, Entry{Event: "revoke", Principal: "anna (admin)", Target: "chip 3d1f0a0a…", Reason: "returned to the vendor"})
	for i := range f.entries {
		f.entries[i].Seq = 1204 - int64(i)*3
	}
	f.audit = Audit{Rows: 1204, Hash: strings.Repeat("a1b2c3d4", 8), PublicKey: "sealboot-audit-0123456789abcdef+1a2b3c4d+AWEvIjsPlvtX+E0g+Fg8ggi7BEWX6qJLh3qM89n68JGT",
		Checkpoints: []Checkpoint{{Rows: 1200, Hash: strings.Repeat("b1", 32), Time: testNow.Add(-7 * time.Minute)}, {Rows: 1187, Hash: strings.Repeat("c2", 32), Time: testNow.Add(-67 * time.Minute)}}}
	return f
}

var pages = []string{"/", "/launches", "/refusals", "/changes", "/audit"}

func serve(t testing.TB, source Source) http.Handler {
	t.Helper()
	h, err := New(Config{Name: "keys-1", Source: source, Now: func() time.Time { return testNow }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

// TestPages reads every page, and what each must say.
func TestPages(t *testing.T) {
	h := serve(t, example())
	for target, want := range map[string][]string{
		"/":         {"web-2025", "revoked", "Last refusals", "that of version 4 of image db", "<dd>1204</dd>", strings.Repeat("91ab", 24), "2026-11-26 11:53:00"},
		"/launches": {"5be0c1d29f6a4c0d8f0a1b2c3d4e5f60", "1 open", "released", "Genoa/b07a55e1c3d2f490", "c0ffee00c0ffee00c0ffee00c0ffee00"},
		"/refusals": {"the session&#39;s is", "untrusted-platform", "trusted by nobody", "192.0.2.99"},
		"/changes":  {"returned to the vendor", "anna (admin)", "chip 3d1f0a0a…", "register"},
		"/audit":    {"sealboot-audit-0123456789abcdef&#43;1a2b3c4d", strings.Repeat("b1", 32), "does not verify"},
	} {
		w := get(h, "GET", target)
		if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
			t.Fatalf("%s: %d %v", target, w.Code, w.Header())
		}
		text := w.Body.String()
		for _, s := range want {
			if !strings.Contains(text, s) {
				t.Errorf("%s does not say %q", target, s)
			}
		}
		if strings.Contains(text, "<script") || strings.Contains(text, "style=") || strings.Contains(text, "http://") || strings.Contains(text, "https://") || strings.Contains(text, "ZgotmplZ") {
			t.Errorf("%s has a script, a style or something from elsewhere", target)
		}
		for _, s := range []string{`<html lang="en">`, "<h1>", "<main", "<title>", `name="viewport"`} {
			if strings.Count(text, s) != 1 {
				t.Errorf("%s has %d of %s", target, strings.Count(text, s), s)
			}
		}
		if strings.Count(text, "<table") != strings.Count(text, "<caption>") || strings.Count(text, "<th ") != strings.Count(text, `<th scope="col"`) {
			t.Errorf("%s has a table without a caption, or a head without a scope", target)
		}
	}
}

// TestEmpty shows a store with nothing in it.
func TestEmpty(t *testing.T) {
	h := serve(t, &fake{})
	for _, target := range pages {
		if w := get(h, "GET", target); w.Code != 200 || strings.Contains(w.Body.String(), "<table") {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

// TestOnlyReads refuses every method but two, paths that are not there, and positions that are none.
func TestOnlyReads(t *testing.T) {
	h := serve(t, example())
	for _, target := range append(pages, "/style.css", "/icon.svg") {
		for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "PATCH": 405, "DELETE": 405, "OPTIONS": 405, "TRACE": 405} {
			w := get(h, method, target)
			if w.Code != want {
				t.Errorf("%s %s: %d", method, target, w.Code)
			}
			checkHeader(t, w.Header())
		}
	}
	for target, want := range map[string]int{
		"/nothing": 404, "/style.css/": 404, "/launches/": 404, "/launches?before=1150": 200,
		"/launches?before=0": 400, "/launches?before=-1": 400, "/launches?before=x": 400, "/launches?before=": 400, "/launches?before=01": 400,
		"/launches?before=9223372036854775808": 400, "/launches?before=1&before=2": 400, "/launches?after=1": 400, "/launches?before=1;": 400,
		"/launches?before=%3Cscript%3E": 400,
	} {
		w := get(h, "GET", target)
		if w.Code != want || strings.Contains(w.Body.String(), "<script") {
			t.Errorf("%s: %d", target, w.Code)
		}
		checkHeader(t, w.Header())
	}
}

func checkHeader(t *testing.T, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"X-Frame-Options":         "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := h.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if h.Get("Set-Cookie") != "" {
		t.Error("a cookie is set")
	}
}

// TestPagination walks over 123 launches, each shown once.
func TestPagination(t *testing.T) {
	f := example()
	f.entries = nil
	for i := range int64(123) {
		f.entries = append(f.entries, Entry{Seq: 1000 - 2*i, Event: "release", Class: "refused", Image: fmt.Sprintf("image-%03d.", i)})
	}
	h := serve(t, f)
	for _, list := range []string{"launches", "refusals"} {
		target, seen, requests := "/"+list, 0, 0
		for target != "" {
			text := get(h, "GET", target).Body.String()
			if requests++; requests > 10 {
				t.Fatal("it does not end")
			}
			for strings.Contains(text, fmt.Sprintf("<b>image-%03d.</b>", seen)) {
				seen++
			}
			if strings.Contains(text, ">Newest</a>") != (target != "/"+list) {
				t.Errorf("%s: the way back is missing, or there where it leads nowhere", target)
			}
			_, after, more := strings.Cut(text, `<a rel="next" href="`)
			link, _, _ := strings.Cut(after, `"`)
			if target = ""; more {
				target = "/" + link
			}
		}
		if seen != 123 || requests != 3 {
			t.Errorf("%s: %d rows on %d pages", list, seen, requests)
		}
	}
}

// hostile is text that wants to be markup, in each place where html/template escapes otherwise.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `javascript:alert(1)`,
	`</td></table><h1>owned</h1>`, `{{.Now}}`, "a\x00b\u202ec", `&lt;b&gt;`, `<!--`, `]]>`, `<style>*{display:none}</style>`,
}

// everywhere puts one text into every field.
func everywhere(s string) *fake {
	e := Entry{Seq: 1, Time: testNow, Event: s, Principal: s, Image: s, Target: s, Session: s, Request: s, Source: s, Kind: s, Platform: s, Chip: s, Policy: s,
		API: s, Digest: s, Class: s, Cause: s, Reason: s, Version: 1}
	f := &fake{
		images:      []Image{{Name: s, Version: 1, Mode: s, Policy: s, Digests: []string{s}}},
		open:        []Session{{ID: s, Image: s, Kind: s, Platform: s, Version: 1}},
		revocations: []Revocation{{Kind: s, Value: s, Reason: s}},
		audit:       Audit{Hash: s, PublicKey: s, Checkpoints: []Checkpoint{{Hash: s}}},
	}
	for i, event := range []string{"release", "revoke", "session"} {
		e.Seq, e.Event = int64(3-i), event
		f.entries = append(f.entries, e)
	}
	return f
}

// TestHostileText has hosts and administrators write markup: the page's own tags stay the only ones.
func TestHostileText(t *testing.T) {
	tags := func(s string) (n int) { return strings.Count(s, "<") }
	for _, target := range pages {
		plain := get(serve(t, everywhere("plain")), "GET", target).Body.String()
		if strings.Count(plain, "plain") < 3 {
			t.Fatalf("%s shows too little", target)
		}
		for _, text := range hostile {
			w := get(serve(t, everywhere(text)), "GET", target)
			if w.Code != 200 || tags(w.Body.String()) != tags(plain) {
				t.Errorf("%s with %q: %d, %d tags, not %d", target, text, w.Code, tags(w.Body.String()), tags(plain))
			}
		}
	}
}

// TestBrokenSource has the store fail: the answer is an error, not a page that says that there is nothing.
func TestBrokenSource(t *testing.T) {
	f := example()
	f.err = errors.New("disk on fire at /var/lib/secret-place")
	for _, target := range pages {
		w := get(serve(t, f), "GET", target)
		if w.Code != 500 || strings.Contains(w.Body.String(), "secret-place") || !strings.Contains(w.Body.String(), "cannot be read") {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
		checkHeader(t, w.Header())
	}
	for _, c := range []Config{{}, {Source: f, Now: time.Now}, {Source: f, Log: slog.Default()}, {Now: time.Now, Log: slog.Default()}} {
		if _, err := New(c); err == nil {
			t.Error("a page without what it needs")
		}
	}
}

// TestMounted serves the page under a path: its links stay below it.
func TestMounted(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/owner/", http.StripPrefix("/owner", serve(t, example())))
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, path := range []string{"", "launches", "style.css", "icon.svg"} {
		r, err := http.Get(server.URL + "/owner/" + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != 200 || strings.Contains(string(text), `href="/`) {
			t.Errorf("%s: %d, %v", path, r.StatusCode, err)
		}
	}
}
