package wire

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// ProblemMediaType is the type of every answer that is not a success (RFC 9457).
const ProblemMediaType = "application/problem+json"

// Class is all that a host is told about a failure. The cause stands in the owner's audit log alone.
type Class string

// The classes; each has one HTTP status.
const (
	Malformed         Class = "malformed"          // 400: not a message of this protocol
	Unauthenticated   Class = "unauthenticated"    // 401: no credential that is known and valid
	Refused           Class = "refused"            // 403: no secret for this launch
	Forbidden         Class = "forbidden"          // 403: the principal's roles do not allow it
	NotFound          Class = "not-found"          // 404: no such path
	UnknownSession    Class = "unknown-session"    // 404: never was, or long gone
	NothingThere      Class = "nothing-there"      // 404: no such image, secret, revocation, principal
	MethodNotAllowed  Class = "method-not-allowed" // 405
	Used              Class = "used"               // 409: the session has had its measurement
	Conflict          Class = "conflict"           // 409: what is there does not allow it
	Expired           Class = "expired"            // 410: too late, or given way: ask for a new session
	Changed           Class = "changed"            // 412: somebody else has changed it meanwhile
	TooLarge          Class = "too-large"          // 413: more than MaxBody, or than the message may have
	UnsupportedMedia  Class = "unsupported-media"  // 415: not application/json
	UntrustedPlatform Class = "untrusted-platform" // 422: certificates do not lead to a trusted root
	Unacceptable      Class = "unacceptable"       // 422: what an administrator gives cannot be taken
	TooManyRequests   Class = "too-many-requests"  // 429: this source asks too often, or too much is asked in an image's name
	BackOff           Class = "back-off"           // 429: too many failures
	Internal          Class = "internal"           // 500: the server's own trouble
	Busy              Class = "busy"               // 503: try again later
)

const (
	problemPrefix = "urn:sealboot:problem:" // a Problem's type is this and the class
	requestPrefix = "urn:sealboot:request:" // a Problem's instance is this and the request's id
	maxInstance   = 128
	maxDetail     = maxText
)

var classes = []struct {
	class  Class
	status int
	title  string
}{
	{Malformed, http.StatusBadRequest, "not a message of this protocol"},
	{Unauthenticated, http.StatusUnauthorized, "not authenticated"},
	{Refused, http.StatusForbidden, "no secret for this launch"},
	{Forbidden, http.StatusForbidden, "not allowed"},
	{NotFound, http.StatusNotFound, "no such path"},
	{UnknownSession, http.StatusNotFound, "no such session"},
	{NothingThere, http.StatusNotFound, "nothing of that name is there"},
	{MethodNotAllowed, http.StatusMethodNotAllowed, "method not allowed here"},
	{Used, http.StatusConflict, "session has had its measurement"},
	{Conflict, http.StatusConflict, "what is there does not allow it"},
	{Expired, http.StatusGone, "session is over, ask for a new one"},
	{Changed, http.StatusPreconditionFailed, "it was changed meanwhile"},
	{TooLarge, http.StatusRequestEntityTooLarge, "request is too large"},
	{UnsupportedMedia, http.StatusUnsupportedMediaType, "request must be application/json"},
	{UntrustedPlatform, http.StatusUnprocessableEntity, "platform is not trusted"},
	{Unacceptable, http.StatusUnprocessableEntity, "what was given cannot be taken"},
	{TooManyRequests, http.StatusTooManyRequests, "too many requests"},
	{BackOff, http.StatusTooManyRequests, "too many failures"},
	{Internal, http.StatusInternalServerError, "server failed"},
	{Busy, http.StatusServiceUnavailable, "server is busy, try again later"},
}

// Classes lists every class, in the order of their statuses.
func Classes() []Class {
	list := make([]Class, len(classes))
	for i, c := range classes {
		list[i] = c.class
	}
	return list
}

// Status gives the class's HTTP status; 500 for an unknown class.
func (c Class) Status() int {
	for _, known := range classes {
		if known.class == c {
			return known.status
		}
	}
	return http.StatusInternalServerError
}

// Title says the class in words. It never depends on the request.
func (c Class) Title() string {
	for _, known := range classes {
		if known.class == c {
			return known.title
		}
	}
	return ""
}

// Problem is the answer to a request that did not succeed.
type Problem struct {
	Class   Class
	Request string // the request's id, under which the owner finds it in log and audit
	Detail  string // to an administrator whose credential was taken: what is wrong. Hosts get none
}

type problemJSON struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Instance string `json:"instance"`
	Detail   string `json:"detail,omitempty"`
}

// Encode gives the problem as JSON. Of the detail it keeps what is printable and not too long.
func (p Problem) Encode() ([]byte, error) {
	return json.Marshal(problemJSON{
		Type:     problemPrefix + string(p.Class),
		Title:    p.Class.Title(),
		Status:   p.Class.Status(),
		Instance: requestPrefix + p.Request,
		Detail:   printable(p.Detail),
	})
}

// printable keeps a text's ASCII, so that it can be shown on a terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return ';'
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), maxDetail)]
}

// DecodeProblem reads a problem that came with the given HTTP status.
func DecodeProblem(r io.Reader, status int) (Problem, error) {
	return decodeProblem(readObject(r), status)
}

// DecodeDetailed reads an administrator's problem, which may have a detail.
func DecodeDetailed(r io.Reader, status int) (Problem, error) {
	o := readObject(r)
	detail := ""
	if _, ok := o.fields["detail"]; ok {
		if detail = o.text("detail"); o.err == nil && (detail == "" || detail != printable(detail)) {
			o.err = fmt.Errorf("%w: detail is not 1 to %d printable characters", ErrMalformed, maxDetail)
		}
	}
	p, err := decodeProblem(o, status)
	if err == nil {
		p.Detail = detail
	}
	return p, err
}

func decodeProblem(o *object, status int) (Problem, error) {
	kind, title, stated, instance := o.text("type"), o.text("title"), o.number("status", 16), o.text("instance")
	if err := o.end(); err != nil {
		return Problem{}, err
	}
	class := Class(strings.TrimPrefix(kind, problemPrefix))
	request := strings.TrimPrefix(instance, requestPrefix)
	if title != class.Title() || title == "" || problemPrefix+string(class) != kind {
		return Problem{}, fmt.Errorf("%w: unknown type of problem", ErrMalformed)
	}
	if int(stated) != status || class.Status() != status {
		return Problem{}, fmt.Errorf("%w: problem of status %d came with status %d", ErrMalformed, stated, status)
	}
	if requestPrefix+request != instance || !validRequest(request) {
		return Problem{}, fmt.Errorf("%w: instance names no request", ErrMalformed)
	}
	return Problem{Class: class, Request: request}, nil
}

// validRequest keeps what a server sends out of a terminal's control sequences.
func validRequest(s string) bool {
	return len(s) <= maxInstance && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
