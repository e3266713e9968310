package keyserver

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/keyserver/wire"
)

// TestRequestsOfOtherForms starts from a body that makes a session and spoils its form.
func TestRequestsOfOtherForms(t *testing.T) {
	l := newLab(t)
	l.register("web")
	good, err := newLaunch(platforms()[0], "web").request.Encode()
	must(t, err)
	goodBody := string(good)
	if status, header, body := l.raw("POST", "/v1/sessions", wire.MediaType, strings.NewReader(goodBody)); status != http.StatusCreated ||
		header.Get("Content-Type") != wire.MediaType || header.Get("Cache-Control") != "no-store" {
		t.Fatalf("the good request: %d %v %s", status, header, body)
	}
	sessions := len(l.rows())
	for _, bad := range []struct {
		name, method, path, media, body string
		class                           wire.Class
	}{
		{name: "unknown field", body: strings.Replace(goodBody, "{", `{"policy":0,`, 1), class: wire.Malformed},
		{name: "missing field", body: `{"image":"web"}`, class: wire.Malformed},
		{name: "field in capitals", body: strings.Replace(goodBody, `"image"`, `"Image"`, 1), class: wire.Malformed},
		{name: "second value of a field", body: strings.Replace(goodBody, "{", `{"image":"web",`, 1), class: wire.Malformed},
		{name: "second object", body: goodBody + goodBody, class: wire.Malformed},
		{name: "trailing byte", body: goodBody + "x", class: wire.Malformed},
		{name: "trailing brace", body: goodBody + "}", class: wire.Malformed},
		{name: "cut short", body: goodBody[:len(goodBody)-1], class: wire.Malformed},
		{name: "nothing", body: "", class: wire.Malformed},
		{name: "null", body: "null", class: wire.Malformed},
		{name: "array", body: "[" + goodBody + "]", class: wire.Malformed},
		{name: "deep array", body: strings.Repeat("[", 60_000), class: wire.Malformed},
		{name: "deep object", body: strings.Repeat(`{"image":`, 6_000), class: wire.Malformed},
		{name: "not UTF-8", body: strings.Replace(goodBody, `"web"`, "\"we\xff\"", 1), class: wire.Malformed},
		{name: "image of a path", body: strings.Replace(goodBody, `"web"`, `"../web"`, 1), class: wire.Malformed},
		{name: "image of a line end", body: strings.Replace(goodBody, `"web"`, `"web\n"`, 1), class: wire.Malformed},
		{name: "line end in base64", body: strings.Replace(goodBody, `"pdh":"`, `"pdh":"\n`, 1), class: wire.Malformed},
		{name: "number for text", body: strings.Replace(goodBody, `"web"`, "7", 1), class: wire.Malformed},
		{name: "oversized", body: goodBody + strings.Repeat(" ", wire.MaxBody), class: wire.TooLarge},
		{name: "oversized before it begins", body: strings.Repeat(" ", wire.MaxBody) + goodBody, class: wire.TooLarge},
		{name: "type of a form", media: "application/x-www-form-urlencoded", body: goodBody, class: wire.UnsupportedMedia},
		{name: "no type", media: "none", body: goodBody, class: wire.UnsupportedMedia},
		{name: "other character set", media: wire.MediaType + "; charset=utf-16", body: goodBody, class: wire.UnsupportedMedia},
		{name: "GET", method: "GET", class: wire.MethodNotAllowed},
		{name: "PUT a measurement", method: "PUT", path: "/v1/sessions/x/measurement", body: "{}", class: wire.MethodNotAllowed},
		{name: "DELETE health", method: "DELETE", path: "/v1/health", class: wire.MethodNotAllowed},
		{name: "other path", path: "/v2/sessions", body: goodBody, class: wire.NotFound},
		{name: "root", method: "GET", path: "/", class: wire.NotFound},
		{name: "session of another form", path: "/v1/sessions/ABC/measurement", body: goodMeasurement, class: wire.UnknownSession},
		{name: "number too large", path: "/v1/sessions/ABC/measurement", body: strings.Replace(goodMeasurement, ":21", ":256", 1), class: wire.Malformed},
		{name: "number below zero", path: "/v1/sessions/ABC/measurement", body: strings.Replace(goodMeasurement, ":21", ":-1", 1), class: wire.Malformed},
		{name: "number with a point", path: "/v1/sessions/ABC/measurement", body: strings.Replace(goodMeasurement, ":21", ":21.0", 1), class: wire.Malformed},
		{name: "measurement too short", path: "/v1/sessions/ABC/measurement", body: strings.Replace(goodMeasurement, "AAAA", "", 1), class: wire.Malformed},
	} {
		t.Run(bad.name, func(t *testing.T) {
			method, path, media := bad.method, bad.path, bad.media
			if method == "" {
				method = "POST"
			}
			if path == "" {
				path = "/v1/sessions"
			}
			switch media {
			case "":
				media = wire.MediaType
			case "none":
				media = ""
			}
			status, header, body := l.raw(method, path, media, io.MultiReader(strings.NewReader(bad.body)))
			if got := header.Get("Content-Type"); got != wire.ProblemMediaType {
				t.Errorf("answer is of type %q", got)
			}
			p, err := wire.DecodeProblem(strings.NewReader(body), status)
			must(t, err)
			if p.Class != bad.class {
				t.Errorf("class %s (status %d), want %s", p.Class, status, bad.class)
			}
			if !bytes.Contains(l.log.bytes(), []byte(p.Request)) {
				t.Errorf("log does not know request %s", p.Request)
			}
			if bad.class == wire.MethodNotAllowed && header.Get("Allow") == "" {
				t.Error("no Allow header")
			}
		})
	}
	if got := len(l.rows()); got != sessions {
		t.Errorf("audit grew by %d rows: what is no request of the protocol is for the log alone", got-sessions)
	}
	l.good("web")
}

var goodMeasurement = `{"measurement":"` + strings.Repeat("AAAA", 16) + `","api_major":1,"api_minor":55,"build":21}`

// TestSameAnswers holds what a host sees of an unknown image, a revoked one and a wrong digest against each other.
func TestSameAnswers(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.register("gone")
	must(t, l.store.Revoke(t.Context(), Revocation{RevokedImage, "gone", "test", l.clock()}))
	l.good("web")
	var seen []string
	for _, image := range []string{"web", "nobody", "gone"} {
		h := newLaunch(platforms()[0], image)
		must(t, h.begin(t.Context(), l.client))
		h.digest[3] ^= 1
		if image == "gone" {
			h.digest = goodDigest
		}
		h.measure(t)
		body, err := h.measured.Encode()
		must(t, err)
		status, header, text := l.raw("POST", "/v1/sessions/"+h.session.ID+"/measurement", wire.MediaType, bytes.NewReader(body))
		p, err := wire.DecodeProblem(strings.NewReader(text), status)
		must(t, err)
		header.Del("Date")
		seen = append(seen, strings.ReplaceAll(text, p.Request, "ID")+header.Get("Content-Length")+h.policy.String())
	}
	if seen[0] != seen[1] || seen[0] != seen[2] {
		t.Errorf("a host can tell them apart:\n%s", strings.Join(seen, "\n"))
	}
}

// TestHealth asks for it.
func TestHealth(t *testing.T) {
	l := newLab(t)
	if status, _, body := l.raw("GET", "/v1/health", "", nil); status != http.StatusOK || body != `{"status":"ok"}` {
		t.Errorf("%d %s", status, body)
	}
}
