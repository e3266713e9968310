package keyserver

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/sev"
)

func (l *lab) look(h http.Handler, target string) string {
	l.t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
	if w.Code != http.StatusOK {
		l.t.Fatalf("%s: %d %s", target, w.Code, w.Body)
	}
	return w.Body.String()
}

// TestOwnersPage shows on the page what happened in the store.
func TestOwnersPage(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.register("old")
	l.good("web")
	bad := newLaunch(platforms()[0], "web")
	bad.digest[0] ^= 1
	if _, err := bad.run(t, l.client); err == nil {
		t.Fatal("a wrong digest was released")
	}
	stranger := newLaunch(platforms()[2], "web")
	if err := stranger.begin(t.Context(), l.client); err == nil {
		t.Fatal("a stranger's platform was taken")
	}
	open := newLaunch(platforms()[1], "not-there")
	must(t, open.begin(t.Context(), l.client))
	must(t, l.store.Revoke(t.Context(), Revocation{RevokedImage, "old", "sold", l.clock()}))
	h, err := l.server.OwnersPage("")
	must(t, err)
	for target, want := range map[string][]string{
		"/":         {"<dt>Images served</dt><dd>1<", "<dt>Images revoked</dt><dd>1<", "<dt>Open sessions</dt><dd>1<", "none of the record&#39;s digests fits", ">released<"},
		"/launches": {open.session.ID, "not registered", bad.session.ID, "<dd>sev</dd>", ">refused<"},
		"/refusals": {"untrusted-platform", sev.ErrMeasurement.Error(), "none of the record&#39;s digests fits"},
		"/changes":  {"<td role=\"cell\" data-label=\"Kind\">image</td>", "<b>old</b>", "register", "revoke", ">sold<"},
		"/audit":    {strings.ReplaceAll(l.key.AuditKey().String(), "+", "&#43;")},
	} {
		text := l.look(h, target)
		for _, s := range want {
			if !strings.Contains(text, s) {
				t.Errorf("%s does not say %q", target, s)
			}
		}
	}
	if text := l.look(h, "/changes"); strings.Contains(text, "release") || strings.Contains(text, "session</dd>") {
		t.Error("changes tell of what hosts did")
	}
	l.register("old", func(r *Registration) { r.Replace = true })
	if text := l.look(h, "/changes"); !strings.Contains(text, "Nothing is revoked") {
		t.Error("an image that is registered again is shown as revoked")
	}
}

// TestOwnersQueries asks SQLite how it finds the lists' rows: each through the index that was made for it, and without sorting.
func TestOwnersQueries(t *testing.T) {
	sqliteAlone(t, "PostgreSQL reads a small table whole, whatever indexes it has")
	l := newLab(t)
	for condition, index := range map[string]string{launchRows: "audit_launches", refusalRows: "audit_refusals", changeRows: "audit_changes"} {
		rows, err := l.store.db.Query(`EXPLAIN QUERY PLAN `+entriesQuery(condition), 1, 1)
		must(t, err)
		var plan bytes.Buffer
		for rows.Next() {
			var id, parent, unused int
			var detail string
			must(t, rows.Scan(&id, &parent, &unused, &detail))
			plan.WriteString(detail + "; ")
		}
		must(t, rows.Close())
		if !strings.Contains(plan.String(), "USING INDEX "+index+" (") || strings.Contains(plan.String(), "TEMP") {
			t.Errorf("%s: %s", condition, plan.String())
		}
	}
}
