package keyserver

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Records of a backup.
const (
	recordEnd = iota
	recordTable
	recordRow
)

// Tags of a row's values.
const (
	valueNull = iota
	valueNumber
	valueText
	valueBytes
)

// Bounds of what a backup may have: more is not what this program writes.
const (
	maxColumns = 64
	maxName    = 63 // PostgreSQL's
	maxValue   = 64 << 20
)

// recordWriter writes records.
type recordWriter struct {
	w   io.Writer
	buf []byte
}

func (w *recordWriter) send() error {
	_, err := w.w.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

func (w *recordWriter) header(h backupHeader) error {
	for _, n := range []int64{h.form, h.made, h.open} {
		w.buf = binary.AppendVarint(w.buf, n)
	}
	return w.send()
}

func (w *recordWriter) bytes(b []byte) {
	w.buf = append(binary.AppendUvarint(w.buf, uint64(len(b))), b...)
}

func (w *recordWriter) table(name string, columns []string) error {
	w.buf = append(w.buf, recordTable)
	w.bytes([]byte(name))
	w.buf = binary.AppendUvarint(w.buf, uint64(len(columns)))
	for _, c := range columns {
		w.bytes([]byte(c))
	}
	return w.send()
}

func (w *recordWriter) row(values []any) error {
	w.buf = append(w.buf, recordRow)
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			w.buf = append(w.buf, valueNull)
		case int64:
			w.buf = binary.AppendVarint(append(w.buf, valueNumber), v)
		case string:
			w.buf = append(w.buf, valueText)
			w.bytes([]byte(v))
		case []byte:
			w.buf = append(w.buf, valueBytes)
			w.bytes(v)
		default:
			return fmt.Errorf("backup cannot have a value of type %T", v)
		}
	}
	return w.send()
}

func (w *recordWriter) end() error {
	w.buf = append(w.buf, recordEnd)
	return w.send()
}

// recordReader reads records, and nothing that a recordWriter would write otherwise.
type recordReader struct{ r *bufio.Reader }

var errRecord = fmt.Errorf("%w: a record does not read", ErrBackup)

// backupHeader is what a backup says of itself.
type backupHeader struct {
	form int64 // of the tables: the last migration
	made int64 // Unix seconds
	open int64 // sessions that were open and are not in it
}

func (r *recordReader) header() (h backupHeader, err error) {
	for _, n := range []*int64{&h.form, &h.made, &h.open} {
		if *n, err = r.number(); err != nil {
			return backupHeader{}, err
		}
	}
	return h, nil
}

// kind gives the next record's kind. recordEnd is the file's end.
func (r *recordReader) kind() (byte, error) {
	kind, err := r.r.ReadByte()
	switch {
	case err != nil:
		return 0, broken(err)
	case kind > recordRow:
		return 0, errRecord
	case kind == recordEnd:
		if _, err := r.r.ReadByte(); !errors.Is(err, io.EOF) {
			return 0, errors.Join(errRecord, err)
		}
	}
	return kind, nil
}

// size reads a number without a sign.
func (r *recordReader) size() (uint64, error) {
	c := varint{r: r.r}
	n, err := binary.ReadUvarint(&c)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errRecord, err)
	}
	if c.n > 1 && c.last == 0 {
		return 0, errRecord // not the shortest form
	}
	return n, nil
}

func (r *recordReader) number() (int64, error) {
	u, err := r.size()
	n := int64(u >> 1)
	if u&1 != 0 {
		n = ^n
	}
	return n, err
}

// varint counts the bytes of a number.
type varint struct {
	r    *bufio.Reader
	n    int
	last byte
}

func (c *varint) ReadByte() (b byte, err error) {
	b, err = c.r.ReadByte()
	c.n, c.last = c.n+1, b
	return b, err
}

func (r *recordReader) bytes(limit uint64) ([]byte, error) {
	size, err := r.size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, errRecord
	}
	var b bytes.Buffer // grows with what is there, not with what was announced
	if _, err := io.CopyN(&b, r.r, int64(size)); err != nil {
		return nil, broken(err)
	}
	return b.Bytes(), nil
}

func (r *recordReader) table() (name string, columns []string, err error) {
	b, err := r.bytes(maxName)
	if err != nil {
		return "", nil, err
	}
	n, err := r.size()
	if err != nil {
		return "", nil, err
	}
	if n == 0 || n > maxColumns {
		return "", nil, errRecord
	}
	for range n {
		c, err := r.bytes(maxName)
		if err != nil {
			return "", nil, err
		}
		columns = append(columns, string(c))
	}
	return string(b), columns, nil
}

func (r *recordReader) row(values []any) error {
	for i := range values {
		tag, err := r.r.ReadByte()
		if err != nil {
			return broken(err)
		}
		switch tag {
		case valueNull:
			values[i] = nil
		case valueNumber:
			if values[i], err = r.number(); err != nil {
				return err
			}
		case valueText, valueBytes:
			b, err := r.bytes(maxValue)
			if err != nil {
				return err
			}
			values[i] = append([]byte{}, b...) // never nil
			if tag == valueText {
				if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 { // PostgreSQL has neither in a text
					return errRecord
				}
				values[i] = string(b)
			}
		default:
			return errRecord
		}
	}
	return nil
}
