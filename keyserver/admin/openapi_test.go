package admin_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
	"github.com/sealboot/sealboot/keyserver/snp/seal"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

// TestMain ends with the operations and problems that no exchange of any test has shown.
func TestMain(m *testing.M) {
	code := m.Run()
	whole := !slices.ContainsFunc(os.Args, func(s string) bool {
		return strings.HasPrefix(s, "-test.run=") && s != "-test.run=" || strings.HasPrefix(s, "-test.fuzz=")
	})
	if code == 0 && whole {
		for _, methods := range openAPI().Paths {
			for _, op := range methods {
				if !seen.success[op.ID] {
					fmt.Fprintf(os.Stderr, "openapi.json: no test has shown that %s succeeds\n", op.ID)
					code = 1
				}
			}
		}
		for _, class := range wire.Classes() {
			if !seen.problems[string(class)] && class != wire.Busy && class != wire.TooManyRequests {
				fmt.Fprintf(os.Stderr, "openapi.json: no test has shown problem %s\n", class)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// TestDocument holds routes, roles, problems and limits of the document against the server's.
func TestDocument(t *testing.T) {
	l := newLab(t)
	d := openAPI()
	var described, served []string
	for path, methods := range d.Paths {
		for method, op := range methods {
			route := strings.ToUpper(method) + " " + path
			described = append(described, route)
			if roles := strings.Join(op.Roles, " "); strings.HasPrefix(path, "/v1/admin/") {
				if roles != allowed(route) || len(op.Security) != 2 {
					t.Errorf("%s: roles %q", route, roles)
				}
			} else if roles != "" || op.Security != nil {
				t.Errorf("%s: roles %q", route, roles)
			}
			var names []string
			for _, p := range op.Parameters {
				if p.In == "path" && p.Required {
					names = append(names, "{"+p.Name+"}")
				} else if p.In != "query" || p.Required {
					t.Errorf("%s: parameter %+v", route, p)
				}
			}
			if in := regexp.MustCompile(`\{\w+\}`).FindAllString(path, -1); !slices.Equal(in, names) {
				t.Errorf("%s: parameters %v", route, names)
			}
			statuses := map[string]bool{}
			for _, class := range op.Problems {
				if !slices.Contains(wire.Classes(), wire.Class(class)) {
					t.Errorf("%s: problem %s", route, class)
				}
				statuses[fmt.Sprint(wire.Class(class).Status())] = true
			}
			for status := range op.Responses {
				if status >= "400" && !statuses[status] {
					t.Errorf("%s: status %s has no problem", route, status)
				}
				delete(statuses, status)
			}
			if len(statuses) != 0 {
				t.Errorf("%s: problems of other statuses: %v", route, slices.Collect(maps.Keys(statuses)))
			}
			if want := limitOf(path, op); op.Request != nil && op.Most != want {
				t.Errorf("%s: at most %d bytes, not %d", route, op.Most, want)
			}
		}
	}
	served = append(l.server.Routes(), l.handler.Routes()...)
	slices.Sort(described)
	slices.Sort(served)
	if !slices.Equal(described, served) {
		t.Errorf("described, and served:\n%s\n%s", strings.Join(described, "\n"), strings.Join(served, "\n"))
	}
	problems := d.Components.Schemas["Problem"].Properties["type"].Enum
	for _, class := range wire.Classes() {
		if !slices.Contains(problems, "urn:sealboot:problem:"+string(class)) {
			t.Errorf("no problem %s", class)
		}
	}
	if len(problems) != len(wire.Classes()) || d.OpenAPI != "3.1.0" {
		t.Errorf("%d problems, OpenAPI %s", len(problems), d.OpenAPI)
	}
}

func limitOf(path string, op operation) int64 {
	if path == "/v1/admin/images" || strings.HasSuffix(path, "/{image}") || strings.Contains(path, "/policy") {
		return wire.MaxDocuments
	}
	return wire.MaxBody
}

// messages are wire's, by the names that they have in the document.
var messages = map[string]any{
	"Nothing": wire.Nothing{}, "Registration": wire.Registration{}, "Replacement": wire.Replacement{}, "Given": wire.Given{}, "Registered": wire.Registered{},
	"Images": wire.Images{}, "Image": wire.Image{}, "Documents": wire.Documents{}, "Policies": wire.Policies{}, "Policy": wire.Policy{},
	"PolicyDocument": wire.PolicyDocument{}, "NewPolicy": wire.NewPolicy{}, "PolicyVersion": wire.PolicyVersion{}, "Trial": wire.Trial{}, "Verdict": wire.Verdict{},
	"Secrets": wire.Secrets{}, "Secret": wire.Secret{}, "SecretData": wire.SecretData{}, "SecretVersion": wire.SecretVersion{},
	"NewRevocation": wire.NewRevocation{}, "Revocations": wire.Revocations{}, "Revocation": wire.Revocation{}, "Rows": wire.Rows{}, "Row": wire.Row{},
	"Checkpoint": wire.Checkpoint{}, "AuditKey": wire.AuditKey{}, "Principals": wire.Principals{}, "Principal": wire.Principal{}, "NewPrincipal": wire.NewPrincipal{},
	"Status": wire.Status{},
}

// encoded are the hosts' messages, whose fields an encoded one shows.
var encoded = map[string]interface{ Encode() ([]byte, error) }{
	"SessionRequest": wire.SessionRequest{}, "Session": wire.Session{}, "MeasurementRequest": wire.MeasurementRequest{}, "Packet": wire.Packet{},
	"ConfirmationRequest": wire.ConfirmationRequest{}, "ChallengeRequest": wire.ChallengeRequest{}, "Challenge": wire.Challenge{},
	"ReportRequest": wire.ReportRequest{}, "SealedSecret": wire.SealedSecret{}, "Problem": wire.Problem{}, "DetailedProblem": wire.Problem{Detail: "x"},
}

// TestSchemas holds each schema against the message: its fields, all of them needed, and the form of each.
func TestSchemas(t *testing.T) {
	d := openAPI()
	for name, s := range d.Components.Schemas {
		fields := slices.Sorted(maps.Keys(s.Properties))
		needed := slices.Sorted(slices.Values(s.Required))
		if name == "DetailedProblem" {
			needed = slices.Sorted(slices.Values(append(needed, "detail")))
		}
		if s.Type != "object" || s.Additional == nil || *s.Additional || !slices.Equal(fields, needed) {
			t.Errorf("%s is not strict: fields %v, needed %v", name, fields, needed)
		}
		var own []string
		if m, ok := messages[name]; ok {
			of := reflect.TypeOf(m)
			for i := range of.NumField() {
				field := of.Field(i)
				own = append(own, field.Tag.Get("json"))
				if err := sameForm(d, s.Properties[field.Tag.Get("json")], field); err != nil {
					t.Errorf("%s.%s: %v", name, field.Name, err)
				}
			}
		} else if m, ok := encoded[name]; ok {
			text, err := m.Encode()
			must(t, err)
			var object map[string]any
			must(t, json.Unmarshal(text, &object))
			own = slices.Collect(maps.Keys(object))
		} else {
			t.Errorf("%s is no message", name)
		}
		if slices.Sort(own); !slices.Equal(own, fields) {
			t.Errorf("%s: described %v, sent %v", name, fields, own)
		}
	}
	if n := len(messages) + len(encoded); n != len(d.Components.Schemas) {
		t.Errorf("%d messages, %d schemas", n, len(d.Components.Schemas))
	}
	text, err := os.ReadFile("../openapi.json")
	must(t, err)
	decoder := json.NewDecoder(bytes.NewReader(text)) // no word of a schema that is not looked at
	decoder.DisallowUnknownFields()
	var strict struct {
		Info, Servers, OpenAPI, Paths any
		Problems                      any `json:"x-problems"`
		Components                    struct {
			SecuritySchemes, Responses any
			Schemas                    map[string]*schema
		}
	}
	must(t, decoder.Decode(&strict))
}

// sameForm holds a field's schema against its tags.
func sameForm(d *document, s *schema, field reflect.StructField) error {
	if s == nil {
		return fmt.Errorf("not described")
	}
	form := field.Tag.Get("wire")
	want := map[string]string{"[]uint8": "string", "string": "string", "int64": "integer", "uint8": "integer", "guid.GUID": "string", "time.Time": "string"}[field.Type.String()]
	if want == "" {
		want = "array"
	}
	if s.Type != want {
		return fmt.Errorf("type %s", s.Type)
	}
	switch field.Type.String() {
	case "[]uint8":
		var low, high int
		if _, err := fmt.Sscanf(form, "%d-%d", &low, &high); err != nil {
			return err
		}
		if s.Encoding != "base64" || *s.MinLength != (low+2)/3*4 || *s.MaxLength != (high+2)/3*4 {
			return fmt.Errorf("%d to %d characters for %s bytes", *s.MinLength, *s.MaxLength, form)
		}
	case "string":
		pattern := s.Pattern
		if s.Enum != nil {
			pattern = "^(" + strings.Join(s.Enum, "|") + ")$"
		}
		if pattern != wire.Form(form) || pattern == "" && *s.MaxLength != 4096 {
			return fmt.Errorf("pattern %q, not %q", pattern, wire.Form(form))
		}
	case "int64":
		if s.Minimum.Sign() != 0 || s.Maximum.String() != "9223372036854775807" {
			return fmt.Errorf("%v to %v", s.Minimum, s.Maximum)
		}
	case "uint8":
		if s.Minimum.Sign() != 0 || s.Maximum.String() != "255" {
			return fmt.Errorf("%v to %v", s.Minimum, s.Maximum)
		}
	default:
		if want == "array" && field.Type.Elem().Name() != "string" && s.Items.Ref != "#/components/schemas/"+field.Type.Elem().Name() {
			return fmt.Errorf("list of %s", s.Items.Ref)
		}
	}
	return nil
}

// TestHostsExchange goes both ways in and spoils them, so that every answer to a host or a guest is held against the document.
func TestHostsExchange(t *testing.T) {
	l := newLab(t)
	l.register("web")
	p := platform()
	c, err := client.New(l.url, l.transport())
	must(t, err)
	ask := wire.SessionRequest{Image: "web", PDH: p.Chain.PDH.Encode(), CertChain: p.Chain.EncodePlatform(), CA: p.Chain.EncodeCA()}
	s, err := c.Session(t.Context(), ask)
	must(t, err)
	g, err := p.LaunchStart(s.DHCert, s.Blob, sev.Policy(s.Policy))
	must(t, err)
	m, err := g.Measure(goodDigest, rand.Reader)
	must(t, err)
	measured := wire.MeasurementRequest{Measurement: m.Encode(), APIMajor: p.API.Major, APIMinor: p.API.Minor, Build: p.API.Build}
	_, err = c.Measurement(t.Context(), s.ID, measured)
	must(t, err)
	refusedAs := func(err error, class wire.Class) {
		t.Helper()
		if r := (*client.Refused)(nil); !errors.As(err, &r) || r.Class != class {
			t.Errorf("got %v, want %s", err, class)
		}
	}
	_, err = c.Measurement(t.Context(), s.ID, measured)
	refusedAs(err, wire.Used)
	_, err = c.Measurement(t.Context(), strings.Repeat("0", 32), measured)
	refusedAs(err, wire.UnknownSession)
	refusedAs(c.Confirm(t.Context(), s.ID, wire.ConfirmationRequest{Secret: other, MAC: make([]byte, 32)}), wire.Refused)
	_, err = l.as("register").PutSecret(t.Context(), "web", other, []byte("one"))
	must(t, err)
	_, err = l.as("register").RotateSecret(t.Context(), "web", other, []byte("two"))
	must(t, err)
	s, err = c.Session(t.Context(), ask)
	must(t, err)
	g, err = p.LaunchStart(s.DHCert, s.Blob, sev.Policy(s.Policy))
	must(t, err)
	m, err = g.Measure(goodDigest, rand.Reader)
	must(t, err)
	measured.Measurement = m.Encode()
	packet, err := c.Measurement(t.Context(), s.ID, measured)
	must(t, err)
	plain, err := g.OpenSecret(packet.Header, packet.Secret)
	must(t, err)
	table, err := sev.ParseSecretTable(plain)
	must(t, err)
	receipt, ok := table.Find(sev.ReleaseReceipt)
	if !ok {
		t.Fatal("no receipt")
	}
	must(t, c.Confirm(t.Context(), s.ID, wire.ConfirmationRequest{Secret: other, MAC: wire.ConfirmationMAC(receipt[16:], other)}))

	spoilt := ask
	spoilt.CA = bytes.Clone(ask.CA)
	spoilt.CA[100]++
	_, err = c.Session(t.Context(), spoilt)
	refusedAs(err, wire.UntrustedPlatform)
	late, err := c.Session(t.Context(), ask)
	must(t, err)
	l.wait(keyserver.DefaultSessionTTL)
	_, err = c.Measurement(t.Context(), late.ID, measured)
	refusedAs(err, wire.Expired)

	l.wait(fake.Made.AddDate(0, 3, 0).Sub(l.clock())) // while its certificates are valid
	policy := keyserver.DefaultPolicy()
	ofReports := snp.DefaultPolicy()
	ofReports.Revocation = snp.Revocation{}
	policy.SNP = &ofReports
	text, err := policy.Encode()
	must(t, err)
	_, err = l.as("register").SetPolicy(t.Context(), "web", wire.NewPolicy{Policy: text})
	must(t, err)
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(t, err)
	challenge, err := c.Challenge(t.Context(), wire.ChallengeRequest{Image: "web"})
	must(t, err)
	data, err := seal.ReportData(challenge.Nonce, key.PublicKey().Bytes(), "web")
	must(t, err)
	report := wire.ReportRequest{Image: "web", Report: l.amd.Sign(l.amd.Report(3, snpDigest, data)), Certificates: l.amd.Table(), PublicKey: key.PublicKey().Bytes()}
	_, err = c.Report(t.Context(), challenge.ID, report)
	must(t, err)
	_, err = c.Report(t.Context(), challenge.ID, report)
	refusedAs(err, wire.Used)
	v, err := l.as("audit").TestPolicy(t.Context(), "web", wire.Trial{Report: report.Report, Certificates: report.Certificates})
	must(t, err)
	if v.Verdict != "release" || v.Digest != hexOf(snpDigest[:]) {
		t.Errorf("the report under trial: %+v", v)
	}
	wrong := l.amd.Sign(l.amd.Report(3, snp.Digest{1}, data))
	if v, err = l.as("audit").TestPolicy(t.Context(), "web", wire.Trial{Report: wrong, Certificates: report.Certificates}); err != nil || v.Verdict != "refuse" {
		t.Errorf("another digest under trial: %+v, %v", v, err)
	}
	for _, path := range []string{"/v1/health", "/v1/sessions", "/v2"} {
		l.raw("GET", path, "", nil, nil)
	}
	l.raw("HEAD", "/v1/health", "", nil, nil)
	l.raw("POST", "/v1/sessions", "", nil, strings.NewReader("{}"))
	l.raw("POST", "/v1/sessions", "", jsonHeader, strings.NewReader("{}"))
	l.raw("POST", "/v1/sessions", "", jsonHeader, strings.NewReader(strings.Repeat(" ", wire.MaxBody+1)))
}
