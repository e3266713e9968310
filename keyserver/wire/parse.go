package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// What the parser finds: texts and numbers are parts of the body, unless a text had escapes.
type (
	quoted  []byte
	numeral []byte
)

var errNotJSON = fmt.Errorf("%w: not JSON", ErrMalformed)

// parseObject parses one object, with lists so many deep, and nothing behind it. encoding/json takes the last of two values with one
// name, matches names whatever their case, goes as deep as the sender likes, and takes longer for a session request than all
// that the server does with it but its cryptography. The grammar is RFC 8259's; FuzzObject holds it against encoding/json.
func parseObject(body []byte, lists int) (map[string]any, error) {
	p := parser{body}
	if !p.next('{') {
		return nil, fmt.Errorf("%w: not a JSON object", ErrMalformed)
	}
	fields, err := p.fields(lists)
	if err != nil {
		return nil, err
	}
	if p.space(); len(p.rest) > 0 {
		return nil, fmt.Errorf("%w: something follows the object", ErrMalformed)
	}
	return fields, nil
}

type parser struct{ rest []byte }

func (p *parser) space() { p.rest = bytes.TrimLeft(p.rest, " \t\n\r") }

// next passes over white space and, if it is there, the given character.
func (p *parser) next(c byte) bool {
	p.space()
	if len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// fields reads what stands behind an opening brace, and the closing one.
func (p *parser) fields(lists int) (map[string]any, error) {
	fields := make(map[string]any)
	for first := true; !p.next('}'); first = false {
		if !first && !p.next(',') || !p.next('"') {
			return nil, errNotJSON
		}
		text, err := p.text()
		if err != nil {
			return nil, err
		}
		name := string(text)
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("%w: a field is there twice", ErrMalformed)
		}
		if !p.next(':') {
			return nil, errNotJSON
		}
		if fields[name], err = p.value(lists); err != nil {
			return nil, err
		}
	}
	return fields, nil
}

// list reads what stands behind an opening bracket, and the closing one.
func (p *parser) list(lists int) ([]any, error) {
	list := []any{}
	for first := true; !p.next(']'); first = false {
		if !first && !p.next(',') {
			return nil, errNotJSON
		}
		switch {
		case p.next('{'):
			fields, err := p.fields(lists)
			if err != nil {
				return nil, err
			}
			list = append(list, fields)
		case p.next('"'):
			text, err := p.text()
			if err != nil {
				return nil, err
			}
			list = append(list, string(text))
		default:
			return nil, fmt.Errorf("%w: a list holds neither text nor objects", ErrMalformed)
		}
	}
	return list, nil
}

func (p *parser) value(lists int) (any, error) {
	switch {
	case p.next('"'):
		return p.text()
	case lists > 0 && p.next('['):
		return p.list(lists - 1)
	}
	n := 0
	for n < len(p.rest) && (bytes.IndexByte([]byte("+-.eE"), p.rest[n]) >= 0 || '0' <= p.rest[n] && p.rest[n] <= '9') {
		n++
	}
	number := p.rest[:n]
	if p.rest = p.rest[n:]; !json.Valid(number) {
		return nil, fmt.Errorf("%w: a value is neither text nor a number", ErrMalformed)
	}
	return numeral(number), nil
}

// text reads a string behind its first quotation mark. No message has a value or a name outside of ASCII, so broken UTF-8 is refused
// by whoever takes it, mended (by encoding/json, which reads strings with escapes) or not.
func (p *parser) text() (quoted, error) {
	end := bytes.IndexByte(p.rest, '"')
	if end < 0 {
		return nil, errNotJSON
	}
	if text := p.rest[:end]; bytes.IndexByte(text, '\\') < 0 {
		for _, c := range text {
			if c < ' ' {
				return nil, errNotJSON
			}
		}
		p.rest = p.rest[end+1:]
		return quoted(text), nil
	}
	for end = 0; end < len(p.rest) && p.rest[end] != '"'; end++ {
		if p.rest[end] == '\\' {
			end++
		}
	}
	if end >= len(p.rest) {
		return nil, errNotJSON
	}
	var text string
	whole := append(append([]byte{'"'}, p.rest[:end]...), '"')
	defer clear(whole)
	if err := json.Unmarshal(whole, &text); err != nil {
		return nil, errNotJSON
	}
	p.rest = p.rest[end+1:]
	return quoted(text), nil
}
