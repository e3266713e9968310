package storekey

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Size is the length of a store key in bytes.
const Size = 32

// prefix begins the text form; 64 lower-case hexadecimal digits and a line feed follow.
const prefix = "sealboot-store-key-1 "

// TextSize is the length of the text form in bytes.
const TextSize = len(prefix) + 2*Size + 1

// ErrNotKey says that a text is no store key. The text is not repeated: it may be one with a slip in it.
var ErrNotKey = errors.New(`not a store key: it must be one line, "sealboot-store-key-1 " and 64 hexadecimal digits`)

// New makes a store key. The caller wipes it.
func New(random io.Reader) ([]byte, error) {
	raw := make([]byte, Size)
	if _, err := io.ReadFull(random, raw); err != nil {
		clear(raw)
		return nil, fmt.Errorf("make store key: %w", err)
	}
	return raw, nil
}

// Text gives the text form of a store key. The caller wipes it.
func Text(raw []byte) ([]byte, error) {
	if len(raw) != Size {
		return nil, fmt.Errorf("store key of %d bytes, not %d", len(raw), Size)
	}
	text := make([]byte, 0, TextSize)
	return append(hex.AppendEncode(append(text, prefix...), raw), '\n'), nil
}

// ParseText reads the text form. The caller wipes the key.
func ParseText(text []byte) ([]byte, error) {
	if len(text) != TextSize || string(text[:len(prefix)]) != prefix || text[TextSize-1] != '\n' {
		return nil, ErrNotKey
	}
	digits := text[len(prefix) : TextSize-1]
	if bytes.ContainsAny(digits, "ABCDEF") {
		return nil, ErrNotKey
	}
	raw := make([]byte, Size)
	if _, err := hex.Decode(raw, digits); err != nil {
		clear(raw)
		return nil, ErrNotKey
	}
	return raw, nil
}
