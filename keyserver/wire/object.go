package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// object is one JSON object on its way in: the value of each field, taken out as it is used.
// The first problem is kept; after it every value is zero.
type object struct {
	fields map[string]any // string, json.Number; and, where a message has lists, []any
	err    error
}

// readObject reads a body of one flat object and nothing else.
func readObject(r io.Reader) *object { return readNested(r, MaxBody, 0) }

// readNested reads a body of at most most bytes: one object in which lists of texts or of objects are so many deep.
func readNested(r io.Reader, most int64, lists int) *object {
	body, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return &object{err: err} // not the sender's grammar: a broken connection, or http.MaxBytesError
	}
	defer clear(body) // it may hold a secret
	if int64(len(body)) > most {
		return &object{err: &tooLargeError{most}}
	}
	fields, err := parseObject(body, lists)
	return &object{fields: fields, err: err}
}

// tooLargeError is an ErrTooLarge that tells another bound than MaxBody.
type tooLargeError struct{ most int64 }

func (e *tooLargeError) Error() string        { return fmt.Sprintf("message of more than %d bytes", e.most) }
func (e *tooLargeError) Is(target error) bool { return target == ErrTooLarge }

// parseObject walks the tokens itself: encoding/json takes the last of two values with one name, matches names
// whatever their case, and goes as deep as the sender likes. (It also mends broken UTF-8: no message has a
// value or a name outside of ASCII, so what was mended is refused.)
func parseObject(body []byte, lists int) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%w: not a JSON object", ErrMalformed)
	}
	fields, err := parseFields(d, lists)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows the object", ErrMalformed)
	}
	return fields, nil
}

// parseFields reads what stands behind an opening brace, and the closing one.
func parseFields(d *json.Decoder, lists int) (map[string]any, error) {
	fields := make(map[string]any)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("%w: not JSON", ErrMalformed)
		}
		name, ok := t.(string)
		if !ok {
			return nil, fmt.Errorf("%w: not JSON", ErrMalformed)
		}
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("%w: a field is there twice", ErrMalformed)
		}
		value, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("%w: not JSON", ErrMalformed)
		}
		switch v := value.(type) {
		case string, json.Number:
		case json.Delim:
			if v != '[' || lists == 0 {
				return nil, fmt.Errorf("%w: a value is neither text nor a number", ErrMalformed)
			}
			if value, err = parseList(d, lists-1); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("%w: a value is neither text nor a number", ErrMalformed)
		}
		fields[name] = value
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, fmt.Errorf("%w: not JSON", ErrMalformed)
	}
	return fields, nil
}

// parseList reads what stands behind an opening bracket, and the closing one.
func parseList(d *json.Decoder, lists int) ([]any, error) {
	list := []any{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("%w: not JSON", ErrMalformed)
		}
		switch t {
		case json.Delim('{'):
			fields, err := parseFields(d, lists)
			if err != nil {
				return nil, err
			}
			list = append(list, fields)
		default:
			text, ok := t.(string)
			if !ok {
				return nil, fmt.Errorf("%w: a list holds neither text nor objects", ErrMalformed)
			}
			list = append(list, text)
		}
	}
	if _, err := d.Token(); err != nil { // the closing bracket
		return nil, fmt.Errorf("%w: not JSON", ErrMalformed)
	}
	return list, nil
}

func (o *object) take(name string) any {
	if o.err != nil {
		return nil
	}
	value, ok := o.fields[name]
	if !ok {
		o.err = fmt.Errorf("%w: %s is missing", ErrMalformed, name)
		return nil
	}
	delete(o.fields, name)
	return value
}

// text takes a string.
func (o *object) text(name string) string {
	s, ok := o.take(name).(string)
	if !ok && o.err == nil {
		o.err = fmt.Errorf("%w: %s is not text", ErrMalformed, name)
	}
	return s
}

// number takes a whole number of at most the given bits, written in its shortest form.
func (o *object) number(name string, bits int) uint64 {
	text, ok := o.take(name).(json.Number)
	if o.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(text.String(), 10, bits)
	if !ok || err != nil {
		o.err = fmt.Errorf("%w: %s is not a whole number of %d bits", ErrMalformed, name, bits)
		return 0
	}
	return n
}

// bytes takes a base64 value of min to max bytes.
func (o *object) bytes(name string, min, max int) []byte {
	s := o.text(name)
	if o.err != nil {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	// The decoder skips line ends and unused bits: only what encodes again to the same text is taken.
	if err != nil || base64.StdEncoding.EncodeToString(b) != s {
		o.err = fmt.Errorf("%w: %s is not base64", ErrMalformed, name)
		return nil
	}
	if len(b) < min || len(b) > max {
		o.err = fmt.Errorf("%w: %s has %d bytes, not %d to %d", ErrMalformed, name, len(b), min, max)
		return nil
	}
	return b
}

// end is the last look: no error yet, and no field left over.
func (o *object) end() error {
	if o.err == nil && len(o.fields) > 0 {
		o.err = fmt.Errorf("%w: %d unknown fields", ErrMalformed, len(o.fields))
	}
	return o.err
}
