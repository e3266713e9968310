package admin

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/auditlog"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

// classes are those of the errors that come from elsewhere.
var classes = []struct {
	err   error
	class wire.Class
}{
	{access.ErrUnauthenticated, wire.Unauthenticated},
	{access.ErrForbidden, wire.Forbidden},
	{access.ErrBackOff, wire.BackOff},

	{keyserver.ErrNoImage, wire.NothingThere},
	{keyserver.ErrNoSuchSecret, wire.NothingThere},
	{keyserver.ErrNotRevoked, wire.NothingThere},
	{access.ErrNoPrincipal, wire.NothingThere},

	{keyserver.ErrChanged, wire.Changed},

	{keyserver.ErrImageThere, wire.Conflict},
	{keyserver.ErrSecretThere, wire.Conflict},
	{keyserver.ErrRotating, wire.Conflict},
	{keyserver.ErrNotRotating, wire.Conflict},
	{keyserver.ErrStaysRevoked, wire.Conflict},
	{keyserver.ErrRevoked, wire.Conflict},
	{access.ErrThere, wire.Conflict},

	{keyserver.ErrNoSecret, wire.Unacceptable},
	{keyserver.ErrNoDigest, wire.Unacceptable},
	{keyserver.ErrSecretID, wire.Unacceptable},
	{keyserver.ErrEmptySecret, wire.Unacceptable},
	{keyserver.ErrRevocation, wire.Unacceptable},
	{access.ErrPrincipal, wire.Unacceptable},
	{access.ErrRoles, wire.Unacceptable},
	{sev.ErrTableTooLarge, wire.Unacceptable},
	{sev.ErrDuplicateSecret, wire.Unacceptable},
	{auditlog.ErrNote, wire.Unacceptable},
	{auditlog.ErrSignature, wire.Unacceptable},
}

// classOf says what the error is to the administrator.
func (h *Handler) classOf(err error) wire.Class {
	if r := (*refusal)(nil); errors.As(err, &r) {
		return r.class
	}
	for _, known := range classes {
		if errors.Is(err, known.err) {
			return known.class
		}
	}
	if h.Store.Busy(err) {
		return wire.Busy
	}
	return wire.Internal
}

// problem answers a request that did not succeed.
func (h *Handler) problem(c *call, err error) {
	class, detail, cause := h.classOf(err), "", err
	var wait time.Duration
	noted := c.who.Name != "" && c.r.Method != http.MethodGet // a wrong try to change something
	if f := (*access.Failure)(nil); errors.As(err, &f) {
		cause, wait = f.Cause, f.Wait
		noted = !errors.Is(f.Cause, access.ErrNoCredential) && !errors.Is(f, access.ErrBackOff)
	} else if c.who.Roles != 0 && (class != wire.Internal || tampered(err)) {
		detail = err.Error()
	}
	level := slog.LevelWarn
	if class == wire.Internal {
		level = slog.LevelError
	}
	h.log(c, level, "not administered", "status", class.Status(), "class", class, "cause", cause)
	if noted && class != wire.Busy {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context), workTime)
		defer cancel()
		if err := h.Store.RefuseAdmin(ctx, c.r.Pattern, class, cause, c.now); err != nil {
			h.log(c, slog.LevelError, "cannot write the refusal into the audit", "error", err)
		}
	}
	head := c.w.Header()
	switch class {
	case wire.Unauthenticated:
		head.Set("WWW-Authenticate", `Bearer realm="sealboot"`)
	case wire.BackOff:
		head.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
	case wire.Busy, wire.TooManyRequests:
		head.Set("Retry-After", "1")
	}
	body, err := wire.Problem{Class: class, Request: c.id, Detail: detail}.Encode()
	if err != nil {
		body = nil
	}
	h.send(c.w, class.Status(), wire.ProblemMediaType, body)
}

// tampered says whether somebody without the store key changed the store: that is for its administrators to know.
func tampered(err error) bool {
	chain := (*keyserver.ChainError)(nil)
	return errors.As(err, &chain) || errors.Is(err, keyserver.ErrAuditHead) || errors.Is(err, keyserver.ErrRevocations) || errors.Is(err, keyserver.ErrPrincipals)
}
