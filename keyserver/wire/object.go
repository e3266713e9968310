package wire

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
)

// object is one JSON object on its way in: the value of each field, taken out as it is used.
// The first problem is kept; after it every value is zero.
type object struct {
	fields map[string]any // quoted, numeral; and, where a message has lists, []any
	err    error
	body   *[bufferSize]byte // goes back when the object ends; nil: it was a larger one
	length int
}

// bufferSize is room for any body of MaxBody, and for one byte more, which tells that it is larger.
const bufferSize = MaxBody + 1

// buffers are used again: the body of a session request, 16 KiB, would else be most of what the garbage collector has to do.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// readObject reads a body of one flat object and nothing else.
func readObject(r io.Reader) *object { return readNested(r, MaxBody, 0) }

// readNested reads a body of at most most bytes: one object in which lists of texts or of objects are so many deep. Its values are parts of the
// body, until end.
func readNested(r io.Reader, most int64, lists int) *object {
	o := new(object)
	var body []byte
	if most < bufferSize {
		o.body = buffers.Get().(*[bufferSize]byte)
		body = o.body[:most+1]
	} else {
		body = make([]byte, most+1)
	}
	n, err := io.ReadFull(r, body)
	switch o.length = n; {
	case err == nil:
		o.err = &tooLargeError{most}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		o.fields, o.err = parseObject(body[:n], lists)
	default:
		o.err = err // not the sender's grammar: a broken connection, or http.MaxBytesError
	}
	return o
}

// end is the last look: no error yet, and no field left over.
func (o *object) end() error {
	if o.err == nil && len(o.fields) > 0 {
		o.err = fmt.Errorf("%w: %d unknown fields", ErrMalformed, len(o.fields))
	}
	o.fields = nil
	if o.body != nil {
		clear(o.body[:o.length]) // it may hold a secret
		buffers.Put(o.body)
		o.body = nil
	}
	return o.err
}

// tooLargeError is an ErrTooLarge that tells another bound than MaxBody.
type tooLargeError struct{ most int64 }

func (e *tooLargeError) Error() string        { return fmt.Sprintf("message of more than %d bytes", e.most) }
func (e *tooLargeError) Is(target error) bool { return target == ErrTooLarge }

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

func (o *object) quoted(name string) quoted {
	s, ok := o.take(name).(quoted)
	if !ok && o.err == nil {
		o.err = fmt.Errorf("%w: %s is not text", ErrMalformed, name)
	}
	return s
}

// text takes a string.
func (o *object) text(name string) string { return string(o.quoted(name)) }

// number takes a whole number of at most the given bits, written in its shortest form.
func (o *object) number(name string, bits int) uint64 {
	text, ok := o.take(name).(numeral)
	if o.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(string(text), 10, bits)
	if !ok || err != nil {
		o.err = fmt.Errorf("%w: %s is not a whole number of %d bits", ErrMalformed, name, bits)
		return 0
	}
	return n
}

var strictBase64 = base64.StdEncoding.Strict()

// bytes takes a base64 value of min to max bytes.
func (o *object) bytes(name string, min, max int) []byte {
	s := o.quoted(name)
	if o.err != nil {
		return nil
	}
	b := make([]byte, base64.StdEncoding.DecodedLen(len(s)))
	n, err := strictBase64.Decode(b, s)
	b = b[:n]
	if err != nil || bytes.ContainsAny(s, "\r\n") { // which the decoder passes over
		o.err = fmt.Errorf("%w: %s is not base64", ErrMalformed, name)
		return nil
	}
	if len(b) < min || len(b) > max {
		o.err = fmt.Errorf("%w: %s has %d bytes, not %d to %d", ErrMalformed, name, len(b), min, max)
		return nil
	}
	return b
}
