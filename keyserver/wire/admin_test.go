package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/guid"
)

// formed are good texts of each form.
var formed = map[string]string{
	"": "any text", "name": "web-1.2_x", "sha256": strings.Repeat("0f", 32), "digest": strings.Repeat("0f", 48), "address": "2001:db8::1",
	"state": "valid", "verdict": "refuse", "kind": "chip", "holder": "token", "roles": "register,audit",
}

// example fills a message with good values.
func example(v reflect.Value) {
	for i := range v.NumField() {
		form := v.Type().Field(i).Tag.Get("wire")
		switch to := v.Field(i).Addr().Interface().(type) {
		case *[]byte:
			_, high := bounds(form)
			*to = fill(min(high, 48), byte(i))
		case *string:
			*to = formed[form]
		case *int64:
			*to = 1<<53 - int64(i)
		case *uint8:
			*to = 255
		case *guid.GUID:
			*to = guid.MustParse("736869e5-84f0-4973-92ec-06879ce3da0b")
		case *time.Time:
			*to = time.Unix(1_800_000_000, 0).UTC()
		case *[]string:
			*to = []string{"one", "two <&>"}
		default:
			list := reflect.MakeSlice(v.Field(i).Type(), 2, 2)
			example(list.Index(0))
			example(list.Index(1))
			v.Field(i).Set(list)
		}
	}
}

// admin is one of an administrator's messages, for tests that treat them alike.
type admin struct {
	name   string
	good   any
	encode func(any) ([]byte, error)
	decode func(io.Reader, int64) (any, error)
}

func message[M any]() admin {
	var m M
	example(reflect.ValueOf(&m).Elem())
	return admin{fmt.Sprintf("%T", m), m, func(m any) ([]byte, error) { return Encode(m.(M)) },
		func(r io.Reader, most int64) (any, error) { return Decode[M](r, most) }}
}

var admins = []admin{message[Registration](), message[Replacement](), message[Registered](), message[Images](), message[Documents](), message[Policies](),
	message[PolicyDocument](), message[NewPolicy](), message[PolicyVersion](), message[Trial](), message[Verdict](), message[Secrets](), message[SecretData](),
	message[SecretVersion](), message[NewRevocation](), message[Revocations](), message[Revocation](), message[Rows](), message[Checkpoint](), message[AuditKey](),
	message[Principals](), message[NewPrincipal](), message[Principal](), message[Status]()}

// TestAdminMessages encodes and decodes each message, and spoils each of its fields in every way.
func TestAdminMessages(t *testing.T) {
	for _, a := range admins {
		t.Run(a.name, func(t *testing.T) {
			text, err := a.encode(a.good)
			if err != nil {
				t.Fatal(err)
			}
			good := string(text)
			m, err := a.decode(strings.NewReader(good), MaxBody)
			if err != nil || !reflect.DeepEqual(m, a.good) {
				t.Fatalf("%+v, %v", m, err)
			}
			bad := map[string]string{
				"empty": "", "null": "null", "unknown field": `{"x":"1",` + good[1:], "second object": good + good, "trailing byte": good + "\x00",
				"cut short": good[:len(good)-1], "in an array": "[" + good + "]", "empty object": "{}",
			}
			var fields map[string]json.RawMessage
			if err := json.Unmarshal(text, &fields); err != nil {
				t.Fatal(err)
			}
			for name, value := range fields {
				field := fmt.Sprintf("%q:%s", name, value)
				if !strings.Contains(good, field) {
					t.Fatalf("no %s in %s", field, good)
				}
				put := func(as string) string { return strings.Replace(good, field, as, 1) }
				bad[name+" twice"] = put(field + "," + field)
				bad[name+" missing"] = strings.NewReplacer(",}", "}", "{,", "{", ",,", ",").Replace(put(""))
				bad[name+" in capitals"] = put(strings.ToUpper(name))
				bad[name+" null"] = put(fmt.Sprintf("%q:null", name))
				bad[name+" true"] = put(fmt.Sprintf("%q:true", name))
				bad[name+" object"] = put(fmt.Sprintf("%q:{}", name))
				bad[name+" list of numbers"] = put(fmt.Sprintf("%q:[1]", name))
				bad[name+" list of lists"] = put(fmt.Sprintf("%q:[[]]", name))
				bad[name+" deep"] = put(fmt.Sprintf("%q:%s", name, strings.Repeat("[", 60_000)))
				bad[name+" deeper"] = put(fmt.Sprintf("%q:%s", name, strings.Repeat(fmt.Sprintf(`[{%q:`, name), 5_000)))
				bad[name+" unprintable"] = put(fmt.Sprintf("%q:\"a\\u001b[2J\"", name))
				bad[name+" not UTF-8"] = put(fmt.Sprintf("%q:\"a\xff\"", name))
				bad[name+" negative"] = put(fmt.Sprintf("%q:-1", name))
				bad[name+" too large"] = put(fmt.Sprintf("%q:9223372036854775808", name))
				bad[name+" with a point"] = put(fmt.Sprintf("%q:1.0", name))
			}
			for what, body := range bad {
				if m, err := a.decode(strings.NewReader(body), 1<<20); !errors.Is(err, ErrMalformed) || !reflect.ValueOf(m).IsZero() {
					t.Errorf("%s: %v\n%s", what, err, body[:min(len(body), 200)])
				}
			}
			most := int64(len(good)) + 1
			if _, err := a.decode(strings.NewReader(good+" "), most); err != nil {
				t.Errorf("of exactly the largest size: %v", err)
			}
			if _, err := a.decode(strings.NewReader(good+"  "), most); !errors.Is(err, ErrTooLarge) {
				t.Errorf("one byte too many: %v", err)
			}
			if _, err := a.decode(io.MultiReader(strings.NewReader(good), failing{}), most); !errors.Is(err, errBroken) {
				t.Errorf("broken connection: %v", err)
			}
		})
	}
}

// TestAdminValues spoils single values.
func TestAdminValues(t *testing.T) {
	for _, bad := range []struct{ from, to string }{
		{`"image":"web-1.2_x"`, `"image":"../x"`}, {`"image":"web-1.2_x"`, `"image":""`},
		{`"secret":"7`, `"secret":"A`}, {"736869e5-84f0-4973-92ec-06879ce3da0b", "00000000-0000-0000-0000-000000000000"}, {"736869e5-", "736869E5-"},
		{`"record":"`, `"record":"\n`}, {`"passphrase":"`, `"passphrase":"=`},
	} {
		text, err := admins[0].encode(admins[0].good)
		if err != nil {
			t.Fatal(err)
		}
		spoilt := strings.Replace(string(text), bad.from, bad.to, 1)
		if spoilt == string(text) {
			t.Fatalf("no %s in %s", bad.from, text)
		}
		if _, err := Decode[Registration](strings.NewReader(spoilt), MaxBody); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", bad.to, err)
		}
	}
	if _, err := Decode[Principal](strings.NewReader(`{"name":"a","kind":"token","digest":"`+formed["sha256"]+`","roles":"root","created":"2026-01-01T00:00:00Z","expires":"2026-01-01T00:00:00Z"}`), MaxBody); !errors.Is(err, ErrMalformed) {
		t.Errorf("role root: %v", err)
	}
	if _, err := Decode[Status](strings.NewReader(`{"principal":"a","roles":"audit","time":"2026-01-01T00:00:00.5Z","open_sessions":1,"audit_rows":1}`), MaxBody); !errors.Is(err, ErrMalformed) {
		t.Errorf("half a second: %v", err)
	}
}

// TestEncodeMakesPlain encodes what does not come from a decoder: it must be a message all the same, and leave the caller's value alone.
func TestEncodeMakesPlain(t *testing.T) {
	v := Verdict{Verdict: "refuse", Complaints: []string{"ä\x1b[2J"}, Reason: strings.Repeat("x", 2*maxText)}
	text, err := Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Decode[Verdict](bytes.NewReader(text), MaxBody)
	if err != nil || m.Complaints[0] != "??[2J" || len(m.Reason) != maxText || v.Complaints[0] != "ä\x1b[2J" {
		t.Errorf("%+v, %v", m, err)
	}
	text, err = Encode(Images{Images: []Image{{Registered: time.Unix(1, 5), State: "valid", Image: "a"}}})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := Decode[Images](bytes.NewReader(text), MaxBody); err != nil || m.Images[0].Digests == nil || m.Images[0].Registered.Unix() != 1 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestDetail reads problems with and without one.
func TestDetail(t *testing.T) {
	p := Problem{Class: Conflict, Request: "1", Detail: "an image of that name\nis there"}
	text := encode(t, p)
	again, err := DecodeDetailed(strings.NewReader(text), 409)
	if err != nil || again.Detail != "an image of that name;is there" || again.Class != Conflict {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := DecodeProblem(strings.NewReader(text), 409); !errors.Is(err, ErrMalformed) {
		t.Errorf("a host takes it: %v", err)
	}
	p.Detail = ""
	if again, err := DecodeDetailed(strings.NewReader(encode(t, p)), 409); err != nil || again != p {
		t.Errorf("%+v, %v", again, err)
	}
	for _, detail := range []string{`""`, `"\u001b"`, `1`} {
		if _, err := DecodeDetailed(strings.NewReader(strings.Replace(encode(t, p), "{", `{"detail":`+detail+",", 1)), 409); !errors.Is(err, ErrMalformed) {
			t.Errorf("detail %s: %v", detail, err)
		}
	}
}

// FuzzAdmin decodes each message; what decodes encodes to the same message again.
func FuzzAdmin(f *testing.F) {
	for i, a := range admins {
		text, err := a.encode(a.good)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), text)
		f.Add(uint8(i), text[:len(text)/2])
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		a := admins[int(which)%len(admins)]
		m, err := a.decode(bytes.NewReader(data), MaxBody)
		if err != nil {
			if !reflect.ValueOf(m).IsZero() {
				t.Fatal("a message came with the error")
			}
			return
		}
		text, err := a.encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := a.decode(bytes.NewReader(text), MaxAnswer); err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v became %+v: %v", m, again, err)
		}
	})
}
