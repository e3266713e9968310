package keyserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sealboot/sealboot/keyserver/auditlog"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// Documents are an image's own, as they were given.
type Documents struct {
	Version, PolicyVersion int64
	Revoked                bool
	Record, Policy         []byte
}

// Documents gives the record and the policy of an image.
func (s *Store) Documents(ctx context.Context, name string) (Documents, error) {
	f, err := s.find(ctx, name)
	if err != nil {
		return Documents{}, fmt.Errorf("read image: %w", err)
	}
	if f.image == nil {
		return Documents{}, fmt.Errorf("read image: %w: %s", ErrNoImage, clean(name))
	}
	m := f.image
	return Documents{Version: m.version, PolicyVersion: m.policyVersion, Revoked: m.sealed == nil, Record: m.recordB, Policy: m.policyB}, nil
}

// maxLooked bounds the rows that AuditRows looks at in one call.
const maxLooked = 10_000

// AuditRows gives up to limit of the rows behind after that the filter chooses, the number of the last row that it looked at, and how many
// rows there are; it looks at a bounded number. The chain is not checked: Audit and ExportAudit do.
func (s *Store) AuditRows(ctx context.Context, after int64, limit int, filter AuditFilter) (rows []auditlog.Row, next, size int64, err error) {
	on, end, err := s.snapshot(ctx)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read audit: %w", err)
	}
	defer end()
	last, err := s.key.readHead(ctx, on)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read audit: %w", err)
	}
	found, err := on.rows(ctx, `SELECT seq, entry, hash FROM audit WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?`, after, last.Size, maxLooked)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read audit: %w", err)
	}
	defer found.Close()
	next = min(after, last.Size)
	for len(rows) < limit && found.Next() {
		var r auditlog.Row
		var entry string
		var hash []byte
		if err := found.Scan(&r.Seq, &entry, &hash); err != nil {
			return nil, 0, 0, fmt.Errorf("read audit: %w", err)
		}
		var e Entry
		if err := json.Unmarshal([]byte(entry), &e); err != nil || len(hash) != len(r.Hash) {
			return nil, 0, 0, &ChainError{Seq: r.Seq, Problem: "row does not read"}
		}
		if next = r.Seq; filter.Match(e) {
			copy(r.Hash[:], hash)
			r.Entry = []byte(entry)
			rows = append(rows, r)
		}
	}
	if err := found.Err(); err != nil {
		return nil, 0, 0, fmt.Errorf("read audit: %w", err)
	}
	return rows, next, last.Size, nil
}

// AuditSize gives the number of rows.
func (s *Store) AuditSize(ctx context.Context) (int64, error) {
	h, err := s.key.readHead(ctx, s.read)
	return h.Size, err
}

// RefuseAdmin writes into the audit that a request of the context's actor was refused, and why.
func (s *Store) RefuseAdmin(ctx context.Context, request string, class wire.Class, cause error, now time.Time) error {
	e := Entry{Time: now, Event: EventAdmin, Target: clean(request)}.by(ctx)
	e.refuse(&Refusal{Class: class, Cause: cause})
	return s.write(ctx, func(t *transaction) error { return t.audit(e) })
}

// Busy says whether an error is one of being asked too much at the moment, or of being stopped: the same may succeed later.
func (s *Store) Busy(err error) bool {
	return s.busy(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errClosed)
}
