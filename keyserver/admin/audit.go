package admin

import (
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/auditlog"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// rows gives rows of the audit, oldest first.
func (h *Handler) rows(c *call) (wire.Rows, error) {
	filter, after, limit, err := auditQuery(c.asked)
	if err != nil {
		return wire.Rows{}, &refusal{wire.Malformed, err}
	}
	rows, next, size, err := h.Store.AuditRows(c, after, limit, filter)
	if err != nil {
		return wire.Rows{}, err
	}
	m := wire.Rows{Next: next, Size: size}
	for _, r := range rows {
		m.Rows = append(m.Rows, wire.Row{Seq: r.Seq, Entry: r.Entry, Hash: r.Hash.String()})
	}
	return m, nil
}

// auditQuery refuses a value that could match nothing: an empty list would look like good news.
func auditQuery(q map[string]string) (f keyserver.AuditFilter, after int64, limit int, err error) {
	no := func(text string) (keyserver.AuditFilter, int64, int, error) {
		return keyserver.AuditFilter{}, 0, 0, errors.New(text)
	}
	limit = wire.MaxRows
	if text, ok := q["after"]; ok {
		if after, err = strconv.ParseInt(text, 10, 64); err != nil || after < 0 || strconv.FormatInt(after, 10) != text {
			return no("after is no number of a row")
		}
	}
	if text, ok := q["limit"]; ok {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > wire.MaxRows || strconv.Itoa(limit) != text {
			return no("limit is not 1 to " + strconv.Itoa(wire.MaxRows))
		}
	}
	if f.Image = q["image"]; f.Image != "" && !wire.ValidImage(f.Image) {
		return no("image is no image's name")
	}
	if f.Event = keyserver.Event(q["event"]); f.Event != "" && !slices.Contains(keyserver.Events(), f.Event) {
		return no("event is not known")
	}
	switch class := q["class"]; {
	case class == "granted":
		f.Granted = true
	case class == "refusals":
		f.Refused = true
	case class == "" || slices.Contains(wire.Classes(), wire.Class(class)):
		f.Class = wire.Class(class)
	default:
		return no("class is not known")
	}
	for name, to := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
		if text, ok := q[name]; ok {
			if *to, err = time.Parse(time.RFC3339, text); err != nil {
				return no(name + " is no time of RFC 3339")
			}
		}
	}
	return f, after, limit, nil
}

func (h *Handler) auditKey(c *call) (wire.AuditKey, error) {
	return wire.AuditKey{Key: h.Store.AuditKey().String()}, nil
}

func (h *Handler) lastCheckpoint(c *call) (wire.Checkpoint, error) {
	note, err := h.Store.LastCheckpoint(c)
	if err == nil && note == nil {
		err = &refusal{wire.NothingThere, errors.New("audit has no row yet")}
	}
	return wire.Checkpoint{Note: note}, err
}

func (h *Handler) checkpoint(c *call, _ wire.Nothing) (wire.Checkpoint, error) {
	note, err := h.Store.Checkpoint(c, c.now)
	return wire.Checkpoint{Note: note}, err
}

// export writes the audit from its beginning, or behind a checkpoint.
func (h *Handler) export(c *call, w io.Writer) error {
	if err := c.noBody("after"); err != nil {
		return err
	}
	var after []byte
	if text, ok := c.asked["after"]; ok {
		var err error
		if after, err = base64.RawURLEncoding.Strict().DecodeString(text); err != nil || len(after) > auditlog.MaxNote {
			return &refusal{wire.Malformed, errors.New("after is no checkpoint in base64url")}
		}
	}
	return h.Store.ExportAudit(c, w, c.now, after)
}

// backup writes the whole store, encrypted under the store key.
func (h *Handler) backup(c *call, w io.Writer) error {
	if err := c.noBody(); err != nil {
		return err
	}
	return h.Store.Backup(c, w, c.now)
}
