package admin_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// document is keyserver/openapi.json, as far as it is looked at.
type document struct {
	OpenAPI    string                          `json:"openapi"`
	Problems   []string                        `json:"x-problems"` // of every path
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Responses map[string]response `json:"responses"`
		Schemas   map[string]*schema  `json:"schemas"`
	} `json:"components"`
}

type operation struct {
	ID         string      `json:"operationId"`
	Roles      []string    `json:"x-roles"`
	Problems   []string    `json:"x-problems"`
	Most       int64       `json:"x-most-bytes"`
	Security   []any       `json:"security"`
	Parameters []parameter `json:"parameters"`
	Request    *struct {
		Content map[string]content `json:"content"`
	} `json:"requestBody"`
	Responses map[string]response `json:"responses"`
}

type parameter struct {
	Name     string  `json:"name"`
	In       string  `json:"in"`
	Required bool    `json:"required"`
	Schema   *schema `json:"schema"`
}

type response struct {
	Ref     string             `json:"$ref"`
	Content map[string]content `json:"content"`
}

type content struct {
	Schema *schema `json:"schema"`
}

// schema is the part of JSON Schema that the document uses; TestSchemas knows if it uses more.
type schema struct {
	Ref         string             `json:"$ref,omitempty"`
	Type        string             `json:"type,omitempty"`
	Description string             `json:"description,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Additional  *bool              `json:"additionalProperties,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Pattern     string             `json:"pattern,omitempty"`
	Format      string             `json:"format,omitempty"`
	Encoding    string             `json:"contentEncoding,omitempty"`
	MinLength   *int               `json:"minLength,omitempty"`
	MaxLength   *int               `json:"maxLength,omitempty"`
	Minimum     *big.Int           `json:"minimum,omitempty"`
	Maximum     *big.Int           `json:"maximum,omitempty"`
}

var openAPI = sync.OnceValue(func() *document {
	text, err := os.ReadFile("../openapi.json")
	if err != nil {
		panic(err)
	}
	d := new(document)
	if err := json.Unmarshal(text, d); err != nil {
		panic(err)
	}
	return d
})

func (d *document) resolve(s *schema) *schema {
	if s.Ref == "" {
		return s
	}
	return d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
}

// check holds a value against a schema; where says which.
func (d *document) check(s *schema, value any, where string) error {
	if s = d.resolve(s); s == nil {
		return fmt.Errorf("%s: no such schema", where)
	}
	switch s.Type {
	case "object":
		return d.checkObject(s, value, where)
	case "array":
		list, ok := value.([]any)
		if !ok {
			return fmt.Errorf("%s is no list", where)
		}
		for i, item := range list {
			if err := d.check(s.Items, item, fmt.Sprintf("%s[%d]", where, i)); err != nil {
				return err
			}
		}
		return nil
	case "integer":
		number, ok := value.(json.Number)
		n, whole := new(big.Int).SetString(number.String(), 10)
		if !ok || !whole || s.Minimum != nil && n.Cmp(s.Minimum) < 0 || s.Maximum != nil && n.Cmp(s.Maximum) > 0 {
			return fmt.Errorf("%s: %v is no such number", where, value)
		}
		return nil
	case "string":
		return checkText(s, value, where)
	}
	return fmt.Errorf("%s: schema is of type %q", where, s.Type)
}

func (d *document) checkObject(s *schema, value any, where string) error {
	object, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("%s is no object", where)
	}
	for _, name := range s.Required {
		if _, ok := object[name]; !ok {
			return fmt.Errorf("%s has no %s", where, name)
		}
	}
	for name, v := range object {
		field := s.Properties[name]
		if field == nil {
			return fmt.Errorf("%s has an unknown %s", where, name)
		}
		if err := d.check(field, v, where+"."+name); err != nil {
			return err
		}
	}
	return nil
}

func checkText(s *schema, value any, where string) error {
	text, ok := value.(string)
	switch {
	case !ok:
		return fmt.Errorf("%s is no text", where)
	case s.Enum != nil && !slices.Contains(s.Enum, text):
		return fmt.Errorf("%s: %q is none of %v", where, text, s.Enum)
	case s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(text):
		return fmt.Errorf("%s: %q does not match %s", where, text, s.Pattern)
	case s.MinLength != nil && len(text) < *s.MinLength, s.MaxLength != nil && len(text) > *s.MaxLength:
		return fmt.Errorf("%s has %d characters", where, len(text))
	}
	if s.Encoding == "base64" {
		if _, err := base64.StdEncoding.Strict().DecodeString(text); err != nil {
			return fmt.Errorf("%s is no base64", where)
		}
	}
	return nil
}

// checkBody holds a message against a schema.
func (d *document) checkBody(s *schema, body []byte, where string) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	return d.check(s, value, where)
}

// find gives the operation that a request is for.
func (d *document) find(r *http.Request) (path string, op operation, ok bool) {
	at := strings.Split(r.URL.EscapedPath(), "/")
	for path, methods := range d.Paths {
		parts := strings.Split(path, "/")
		fits := len(parts) == len(at)
		for i := 0; fits && i < len(parts); i++ {
			fits = parts[i] == at[i] || strings.HasPrefix(parts[i], "{") && at[i] != ""
		}
		if fits && !slices.ContainsFunc(at, func(s string) bool { return s == "." || s == ".." }) {
			method := strings.ToLower(r.Method)
			if method == "head" {
				method = "get"
			}
			op, ok := methods[method]
			return path, op, ok
		}
	}
	return "", operation{}, false
}

// documented is a transport that holds every exchange against the document, and remembers what it saw.
type documented struct {
	t    *testing.T
	base http.RoundTripper
}

var seen struct {
	sync.Mutex
	success  map[string]bool // operations
	problems map[string]bool // classes
}

func (c documented) RoundTrip(r *http.Request) (*http.Response, error) {
	var request []byte
	if r.Body != nil {
		request, _ = io.ReadAll(r.Body)
		r.Body.Close()
		r.Body = io.NopCloser(bytes.NewReader(request))
	}
	answer, err := c.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, readErr := io.ReadAll(answer.Body)
	answer.Body.Close()
	answer.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{readErr}))
	if err := openAPI().exchange(r, request, answer, body); err != nil {
		c.t.Errorf("openapi.json: %s %s: %v", r.Method, r.URL.Path, err)
	}
	return answer, nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

// exchange holds a request that was taken, and any answer, against the document.
func (d *document) exchange(r *http.Request, request []byte, answer *http.Response, body []byte) error {
	path, op, known := d.find(r)
	media := answer.Header.Get("Content-Type")
	seen.Lock()
	defer seen.Unlock()
	if seen.success == nil {
		seen.success, seen.problems = map[string]bool{}, map[string]bool{}
	}
	if answer.StatusCode >= 400 {
		var p struct{ Type string }
		if err := json.Unmarshal(body, &p); err != nil {
			return err
		}
		class := strings.TrimPrefix(p.Type, "urn:sealboot:problem:")
		seen.problems[class] = true
		if !known || slices.Contains(d.Problems, class) {
			if !slices.Contains(d.Problems, class) {
				return fmt.Errorf("%s where nothing is", class)
			}
			return d.checkBody(d.Components.Schemas["DetailedProblem"], body, "problem")
		}
		if !slices.Contains(op.Problems, class) {
			return fmt.Errorf("operation %s has no problem %s", op.ID, class)
		}
	} else if !known {
		return fmt.Errorf("not described: %s", path)
	}
	said, ok := op.Responses[fmt.Sprint(answer.StatusCode)]
	if !ok {
		return fmt.Errorf("status %d is not described", answer.StatusCode)
	}
	if name, ok := strings.CutPrefix(said.Ref, "#/components/responses/"); ok {
		said = d.Components.Responses[name]
	}
	if len(said.Content) == 0 {
		if len(body) != 0 || media != "" {
			return fmt.Errorf("body of %d bytes, of type %q", len(body), media)
		}
	} else if c, ok := said.Content[media]; !ok {
		return fmt.Errorf("answer is of type %q", media)
	} else if media != "application/octet-stream" && r.Method != http.MethodHead {
		if err := d.checkBody(c.Schema, body, "answer"); err != nil {
			return err
		}
	}
	if answer.StatusCode >= 400 {
		return nil
	}
	seen.success[op.ID] = true
	if op.Request == nil {
		if len(request) != 0 {
			return fmt.Errorf("a body was taken")
		}
		return nil
	}
	if int64(len(request)) > op.Most {
		return fmt.Errorf("%d bytes were taken", len(request))
	}
	return d.checkBody(op.Request.Content["application/json"].Schema, request, "request")
}
