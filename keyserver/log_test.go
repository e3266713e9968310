package keyserver

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/keyserver/wire"
)

// logLine is what the test reads of a line of the log.
type logLine struct {
	Level, Msg, Request, Source, Route, Class string
	Status                                    int
}

// TestLogLines makes requests of every kind, one after the other. What the log says of each carries one id: the one in
// the answer, if that is a problem, and in the audit, if a decision was made.
func TestLogLines(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.good("web")
	read, audited, ids := len(l.log.bytes()), len(l.rows()), map[string]bool{}
	check := func(name, instance string, decisions int) {
		t.Helper()
		text := l.log.bytes()[read:]
		read += len(text)
		var id string
		lines := 0
		for line := range bytes.Lines(text) {
			var at logLine
			must(t, json.Unmarshal(line, &at))
			if at.Msg == "audit signed" {
				continue // the store's, with the batch
			}
			if lines++; id == "" {
				id = at.Request
			}
			if len(at.Request) != 16 || at.Request != id || at.Source != "127.0.0.1" || at.Status == 0 || at.Route == "" {
				t.Errorf("%s: %s", name, line)
			}
		}
		if lines != 1 || ids[id] {
			t.Errorf("%s: %d lines, id %q\n%s", name, lines, id, text)
		}
		ids[id] = true
		if instance != "" && instance != "urn:sealboot:request:"+id {
			t.Errorf("%s: the answer names %s, the log %s", name, instance, id)
		}
		rows := l.rows()
		if len(rows)-audited != decisions {
			t.Errorf("%s: %d decisions", name, len(rows)-audited)
		}
		for _, row := range rows[audited:] {
			if row.Request != id {
				t.Errorf("%s: the audit names %s, the log %s", name, row.Request, id)
			}
		}
		audited = len(rows)
	}
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	check("session", "", 1)
	h.measure(t)
	_, err := h.finish(t.Context(), l.client)
	must(t, err)
	check("release", "", 1)
	body, err := h.measured.Encode()
	must(t, err)
	stranger, err := newLaunch(platforms()[2], "web").request.Encode()
	must(t, err)
	large := `{"image":"` + strings.Repeat("x", wire.MaxBody) + `"}`
	path := "/v1/sessions/" + h.session.ID + "/measurement"
	for _, r := range []struct {
		name, method, path, media, body string
		status, decisions               int
	}{
		{"used session", "POST", path, wire.MediaType, string(body), http.StatusConflict, 1},
		{"unknown session", "POST", "/v1/sessions/" + strings.Repeat("0", 32) + "/measurement", wire.MediaType, string(body), http.StatusNotFound, 0},
		{"untrusted platform", "POST", "/v1/sessions", wire.MediaType, string(stranger), http.StatusUnprocessableEntity, 1},
		{"malformed", "POST", path, wire.MediaType, "{", http.StatusBadRequest, 0},
		{"too large", "POST", "/v1/sessions", wire.MediaType, large, http.StatusRequestEntityTooLarge, 0},
		{"another media type", "POST", path, "text/plain", string(body), http.StatusUnsupportedMediaType, 0},
		{"another method", "GET", path, "", "", http.StatusMethodNotAllowed, 0},
		{"no such path", "GET", "/v2", "", "", http.StatusNotFound, 0},
	} {
		var in io.Reader
		if r.body != "" {
			in = strings.NewReader(r.body)
		}
		status, _, answer := l.raw(r.method, r.path, r.media, in)
		var problem struct{ Instance string }
		must(t, json.Unmarshal([]byte(answer), &problem))
		if status != r.status || problem.Instance == "" {
			t.Fatalf("%s: %d %s", r.name, status, answer)
		}
		check(r.name, problem.Instance, r.decisions)
	}
	if len(ids) != 10 {
		t.Errorf("%d requests", len(ids))
	}
}

// TestPanicIsLogged has the work of a request give up: the owner finds it under the request's id, the host is told "internal".
func TestPanicIsLogged(t *testing.T) {
	l := newLab(t)
	h := answer(l.server, anybody, http.StatusOK, wire.DecodeMeasurementRequest,
		func(context.Context, *http.Request, Source, wire.MeasurementRequest) (wire.Packet, error) {
			panic("of the test")
		})
	r := httptest.NewRequest("POST", "/", strings.NewReader(goodMeasurement))
	r.Header.Set("Content-Type", wire.MediaType)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	problem, err := wire.DecodeProblem(w.Body, http.StatusInternalServerError)
	must(t, err)
	log := string(l.log.bytes())
	if problem.Class != wire.Internal || !strings.Contains(log, "panic: of the test") || !strings.Contains(log, problem.Request) {
		t.Errorf("%+v\n%s", problem, log)
	}
}
