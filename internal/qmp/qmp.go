// Package qmp speaks the QEMU Machine Protocol (QEMU's docs/interop/qmp-spec): [Client] to a
// QEMU, [Server] as one. Commands are executed one after another; the out-of-band capability is
// neither used nor offered. What the other side sends is bounded in size and checked in form.
package qmp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Bounds of one message. QEMU's longest answer, query-qmp-schema, takes some 300 KiB.
const (
	MaxReply   = 8 << 20
	MaxCommand = 1 << 20
)

var (
	// ErrTooLong: a message above its bound. The connection is of no more use.
	ErrTooLong = errors.New("QMP message too long")
	// ErrProtocol: the other side does not speak QMP.
	ErrProtocol = errors.New("not a QMP message")
	// ErrClosed: the connection has ended.
	ErrClosed = errors.New("QMP connection closed")
)

// Classes of errors (QEMU's qapi/error.json).
const (
	GenericError    = "GenericError"
	CommandNotFound = "CommandNotFound"
)

// Error is QEMU's answer to a command that failed.
type Error struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *Error) Error() string { return e.Desc }

// Errorf makes an error of the generic class.
func Errorf(format string, args ...any) *Error {
	return &Error{Class: GenericError, Desc: fmt.Sprintf(format, args...)}
}

// Version is what a QEMU calls itself.
type Version struct {
	QEMU struct {
		Major int `json:"major"`
		Minor int `json:"minor"`
		Micro int `json:"micro"`
	} `json:"qemu"`
	Package string `json:"package"`
}

// Event is something that happened in the machine.
type Event struct {
	Name      string          `json:"event"`
	Data      json.RawMessage `json:"data,omitempty"`
	Timestamp Timestamp       `json:"timestamp"`
}

// Timestamp is when, since 1970; -1 where the host's clock failed.
type Timestamp struct {
	Seconds      int64 `json:"seconds"`
	Microseconds int64 `json:"microseconds"`
}

// greeting is a server's first message.
type greeting struct {
	QMP struct {
		Version      Version           `json:"version"`
		Capabilities []json.RawMessage `json:"capabilities"`
	} `json:"QMP"`
}

// reply is any later message of a server: exactly one of return, error and event is there.
type reply struct {
	ID     json.RawMessage `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *Error          `json:"error"`
	Event
}

func parseGreeting(line []byte) (Version, error) {
	var g struct {
		QMP *struct {
			Version Version `json:"version"`
		} `json:"QMP"`
	}
	if err := json.Unmarshal(line, &g); err != nil || g.QMP == nil {
		return Version{}, fmt.Errorf("%w: no greeting", ErrProtocol)
	}
	return g.QMP.Version, nil
}

func parseReply(line []byte) (reply, error) {
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return reply{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	kinds := 0
	for _, there := range []bool{r.Return != nil, r.Error != nil, r.Name != ""} {
		if there {
			kinds++
		}
	}
	if kinds != 1 {
		return reply{}, fmt.Errorf("%w: neither an answer nor an event", ErrProtocol)
	}
	return r, nil
}

// encode writes one message as a line, without the escapes that are for web pages.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return append(bytes.TrimSuffix(b.Bytes(), []byte("\n")), '\r', '\n'), nil
}
