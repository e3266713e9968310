// Package page shows the owner what a key server did: images, launches, refusals with their reasons, changes such as
// revocations, and the state of the audit. It only reads: it answers GET and HEAD, has no form, no script, no cookie, and takes nothing
// from elsewhere; its content security policy says so to the browser. All text, which hosts have a part in, is escaped by
// html/template.
//
// It knows nobody: who may see it is decided in front of it. Links are relative, so it may be mounted under any path that ends
// in a slash (with http.StripPrefix).
package page

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Config says whose page it is.
type Config struct {
	Name   string // of the server; may be empty
	Source Source
	Now    func() time.Time
	Log    *slog.Logger // what could not be read
}

// Bounds of what a page shows.
const (
	pageLength  = 50
	shortLength = 5 // on the overview
)

//go:embed templates/*.html
var templates embed.FS

//go:embed style.css
var style []byte

//go:embed icon.svg
var icon []byte

// handler serves the pages.
type handler struct {
	Config
	template *template.Template
}

// New gives the page's handler.
func New(c Config) (http.Handler, error) {
	if c.Source == nil || c.Now == nil || c.Log == nil {
		return nil, errors.New("owner's page needs a source, a clock and a log")
	}
	t, err := template.New("").Option("missingkey=error").Funcs(functions).ParseFS(templates, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("make owner's page: %w", err)
	}
	h := &handler{c, t}
	mux := http.NewServeMux()
	for path, show := range map[string]func(*http.Request, int64) (string, any, error){
		"/{$}": h.overview, "/launches": h.launches, "/refusals": h.refusals, "/changes": h.changes, "/audit": h.audit,
	} {
		mux.HandleFunc("GET "+path, h.page(show))
	}
	mux.HandleFunc("GET /style.css", file("text/css; charset=utf-8", style))
	mux.HandleFunc("GET /icon.svg", file("image/svg+xml", icon))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		mux.ServeHTTP(w, r)
	}), nil
}

// secure sets what the browser must hold the page to.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

func file(media string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", media)
		w.Write(content)
	}
}

// page answers with a whole page or with an error, never with half of one.
func (h *handler) page(show func(*http.Request, int64) (name string, data any, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		before, err := position(r.URL.RawQuery)
		if err != nil {
			h.fail(w, http.StatusBadRequest, "This page does not exist.")
			return
		}
		name, data, err := show(r, before)
		if err != nil {
			h.Log.Error("owner's page cannot be shown", "path", r.URL.Path, "error", err)
			h.fail(w, http.StatusInternalServerError, "The key server's store cannot be read. Its log says why.")
			return
		}
		h.send(w, http.StatusOK, name, data)
	}
}

func (h *handler) fail(w http.ResponseWriter, status int, text string) {
	h.send(w, status, "failure", view{Title: http.StatusText(status), Data: text})
}

// view is what every template gets.
type view struct {
	Title string
	Here  string // path of the page, for the navigation
	Name  string
	Now   time.Time
	Data  any
	Older int64 // entries before this one are on the next page; 0: there is none
	Newer bool  // this is not the first page
}

func (h *handler) send(w http.ResponseWriter, status int, name string, data any) {
	v, _ := data.(view)
	v.Name, v.Now = h.Config.Name, h.Now()
	var b bytes.Buffer
	if err := h.template.ExecuteTemplate(&b, name, v); err != nil {
		h.Log.Error("owner's page cannot be made", "template", name, "error", err)
		http.Error(w, "the page cannot be made; the key server's log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// position reads "before=N" or nothing.
func position(query string) (before int64, err error) {
	if query == "" {
		return 1<<63 - 1, nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return 0, err
	}
	before, err = strconv.ParseInt(values.Get("before"), 10, 64)
	if err != nil || before < 1 || "before="+strconv.FormatInt(before, 10) != query {
		return 0, errors.New("not a position")
	}
	return before, nil
}

// list shows a page of entries.
func (h *handler) list(r *http.Request, before int64, get func(context.Context, int64, int) ([]Entry, error)) (view, []Entry, error) {
	entries, err := get(r.Context(), before, pageLength+1)
	if err != nil {
		return view{}, nil, err
	}
	v := view{Newer: r.URL.RawQuery != ""}
	if len(entries) > pageLength {
		entries = entries[:pageLength]
		v.Older = entries[pageLength-1].Seq
	}
	return v, entries, nil
}

func (h *handler) overview(r *http.Request, _ int64) (string, any, error) {
	var data struct {
		Images             []Image
		Served, Revoked    int
		Open               int64
		Launches, Refusals []Entry
		Audit              Audit
	}
	var err error
	if data.Images, err = h.Source.Images(r.Context()); err != nil {
		return "", nil, err
	}
	for _, i := range data.Images {
		if i.Revoked {
			data.Revoked++
		} else {
			data.Served++
		}
	}
	if _, data.Open, err = h.Source.Open(r.Context(), 0); err != nil {
		return "", nil, err
	}
	if data.Launches, err = h.Source.Launches(r.Context(), 1<<63-1, shortLength); err != nil {
		return "", nil, err
	}
	if data.Refusals, err = h.Source.Refusals(r.Context(), 1<<63-1, shortLength); err != nil {
		return "", nil, err
	}
	if data.Audit, err = h.Source.Audit(r.Context(), 1); err != nil {
		return "", nil, err
	}
	return "overview", view{Title: "Overview", Here: "./", Data: data}, nil
}

func (h *handler) launches(r *http.Request, before int64) (string, any, error) {
	v, entries, err := h.list(r, before, h.Source.Launches)
	if err != nil {
		return "", nil, err
	}
	v.Title, v.Here = "Launches", "launches"
	data := struct {
		Open    []Session
		Count   int64
		Entries []Entry
	}{Entries: entries}
	if !v.Newer {
		if data.Open, data.Count, err = h.Source.Open(r.Context(), pageLength); err != nil {
			return "", nil, err
		}
	}
	v.Data = data
	return "launches", v, nil
}

func (h *handler) refusals(r *http.Request, before int64) (string, any, error) {
	v, entries, err := h.list(r, before, h.Source.Refusals)
	v.Title, v.Here, v.Data = "Refusals", "refusals", entries
	return "refusals", v, err
}

func (h *handler) changes(r *http.Request, before int64) (string, any, error) {
	v, entries, err := h.list(r, before, h.Source.Changes)
	if err != nil {
		return "", nil, err
	}
	v.Title, v.Here = "Revocations and changes", "changes"
	data := struct {
		Revocations []Revocation
		More        bool
		Entries     []Entry
	}{Entries: entries}
	if !v.Newer {
		if data.Revocations, err = h.Source.Revocations(r.Context(), pageLength+1); err != nil {
			return "", nil, err
		}
		if data.More = len(data.Revocations) > pageLength; data.More {
			data.Revocations = data.Revocations[:pageLength]
		}
	}
	v.Data = data
	return "changes", v, nil
}

func (h *handler) audit(r *http.Request, _ int64) (string, any, error) {
	audit, err := h.Source.Audit(r.Context(), pageLength)
	return "audit", view{Title: "Audit", Here: "audit", Data: audit}, err
}

// functions are those of the templates: for text, and for what a template gives to another.
var functions = template.FuncMap{
	"date": date, "iso": iso, "short": short,
	"tab": func(path, text, here string) any {
		return struct {
			Path, Text string
			Here       bool
		}{path, text, path == here}
	},
	"fact": func(name string, value any) any {
		return struct {
			Name  string
			Value any
		}{name, value}
	},
	"rows": func(caption string, entries []Entry) any {
		return struct {
			Caption string
			Entries []Entry
		}{caption, entries}
	},
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
func iso(t time.Time) string  { return t.UTC().Format(time.RFC3339) }

// short gives the beginning of a long id; the whole stands among the details.
func short(s string) string {
	const length = 24
	if len(s) <= length+4 {
		return s
	}
	r := []rune(s)
	if len(r) <= length+4 {
		return s
	}
	return string(r[:length]) + "…"
}
