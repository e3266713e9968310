package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzObject holds the parser against encoding/json's tokens: they take the same objects, with lists two deep, and the same names and values.
func FuzzObject(f *testing.F) {
	for _, seed := range []string{
		`{"a":"b","c":12}`, " {\t\"a\" :\r\n\"b\" , \"c\":0 } ", "{}", `{"a":"\/\u0041\ud83d\ude00\"\\"}`, `{"\u0061":1,"a":2}`,
		`{"a":-1.5e+3}`, `{"a":01}`, `{"a":1,}`, `{,"a":1}`, `{"a":1 "b":2}`, `{"a" 1}`, `{"a":1}x`, `{"a":1}{}`, `{"a":[1]}`, `{"a":["b","c"]}`, `{"a":[{"b":["c"]},{}]}`, `{"a":[]}`, `{"a":["b",]}`, `{"a":[,]}`, `{"a":["b"`, `{"a":[{"b":[{"c":["d"]}]}]}`, `{"a":{}}`,
		`{"a":null}`, `{"a":true}`, `{"a":"\q"}`, `{"a":"\`, `{"a":"\"`, "{\"a\":\"\x01\"}", "{\"a\":\"\xff\"}", `{"a":1e}`, `{"a":+1}`, `{a:1}`, "[]", `"a"`, "",
		"\ufeff{}", `{"a":"` + strings.Repeat("A", 5000) + `"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !utf8.Valid(body) { // see parser.text
			return
		}
		const lists = 2
		theirs, theirErr := byTokens(body, lists)
		ours, err := parseObject(bytes.Clone(body), lists)
		if (err == nil) != (theirErr == nil) {
			t.Fatalf("%q: %v, encoding/json says %v", body, err, theirErr)
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
		if err == nil && !reflect.DeepEqual(tokensOf(ours), theirs) {
			t.Fatalf("%q: %v, encoding/json says %v", body, ours, theirs)
		}
	})
}

// tokensOf gives values the types that encoding/json has for them.
func tokensOf(v any) any {
	switch v := v.(type) {
	case quoted:
		return string(v)
	case numeral:
		return json.Number(v)
	case []any:
		list := []any{}
		for _, item := range v {
			list = append(list, tokensOf(item))
		}
		return list
	case map[string]any:
		fields := map[string]any{}
		for name, value := range v {
			fields[name] = tokensOf(value)
		}
		return fields
	}
	return v
}

var errOther = errors.New("no object of texts, numbers and lists")

// byTokens reads an object by encoding/json's tokens.
func byTokens(body []byte, lists int) (any, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errOther
	}
	fields, err := fieldsByTokens(d, lists)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errOther
	}
	return fields, nil
}

func fieldsByTokens(d *json.Decoder, lists int) (map[string]any, error) {
	fields := make(map[string]any)
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		value, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch v := value.(type) {
		case string, json.Number:
		case json.Delim:
			if v != '[' || lists == 0 {
				return nil, errOther
			}
			if value, err = listByTokens(d, lists-1); err != nil {
				return nil, err
			}
		default:
			return nil, errOther
		}
		if _, twice := fields[name.(string)]; twice {
			return nil, errOther
		}
		fields[name.(string)] = value
	}
	_, err := d.Token()
	return fields, err
}

func listByTokens(d *json.Decoder, lists int) ([]any, error) {
	list := []any{}
	for d.More() {
		item, err := d.Token()
		if err != nil {
			return nil, err
		}
		if item == json.Delim('{') {
			if item, err = fieldsByTokens(d, lists); err != nil {
				return nil, err
			}
		} else if _, ok := item.(string); !ok {
			return nil, errOther
		}
		list = append(list, item)
	}
	_, err := d.Token()
	return list, err
}

// TestBodiesAreNotShared decodes messages whose bodies share a buffer, one after the other: what was decoded stays.
func TestBodiesAreNotShared(t *testing.T) {
	body := encode(t, goodRequest)
	first, err := DecodeSessionRequest(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := DecodeSessionRequest(strings.NewReader(strings.NewReplacer("AQ", "BB", "web", "xyz").Replace(body))); err != nil {
			t.Fatal(err)
		}
	}
	if encode(t, first) != body {
		t.Error("a message changed with the next one's body")
	}
}

// BenchmarkSessionRequest decodes the largest message that every launch sends.
func BenchmarkSessionRequest(b *testing.B) {
	body, err := goodRequest.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeSessionRequest(bytes.NewReader(body)); err != nil {
			b.Fatal(err)
		}
	}
}
