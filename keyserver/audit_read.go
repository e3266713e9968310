package keyserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/sealboot/sealboot/keyserver/auditlog"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// AuditFilter chooses rows. What is not set chooses all.
type AuditFilter struct {
	Image        string
	Event        Event
	Class        wire.Class
	Granted      bool // those without a class
	Refused      bool // those with one
	Since, Until time.Time
}

// Match says whether an entry is chosen.
func (f AuditFilter) Match(e Entry) bool {
	return (f.Image == "" || e.Image == f.Image) &&
		(f.Event == "" || e.Event == f.Event) &&
		(f.Class == "" || e.Class == f.Class) &&
		(!f.Granted || e.Class == "") && (!f.Refused || e.Class != "") &&
		(f.Since.IsZero() || !e.Time.Before(f.Since)) && (f.Until.IsZero() || e.Time.Before(f.Until))
}

// Audit walks the rows from the first to the last and checks, as it goes, the chain, the head, every checkpoint of the store, and
// the checkpoints that were kept elsewhere. A *ChainError tells of the first break; the rows given before it hang together. ErrAuditHead
// tells, after all rows, of a head that is not the store's.
func (s *Store) Audit(ctx context.Context, each func(Row) error, kept ...auditlog.Checkpoint) error {
	on, end, err := s.snapshot(ctx) // one view of rows, checkpoints and head
	if err != nil {
		return fmt.Errorf("read audit: %w", err)
	}
	defer end()
	last, headErr := s.key.readHead(ctx, on)
	if headErr != nil && !errors.Is(headErr, ErrAuditHead) {
		return fmt.Errorf("read audit: %w", headErr)
	}
	notes, err := s.readCheckpoints(ctx, on, math.MaxInt)
	if err != nil {
		return err
	}
	for _, n := range notes {
		kept = append(kept, n.Checkpoint)
	}
	if last.coveredAt != 0 && (len(notes) == 0 || notes[len(notes)-1].Size != last.covered) {
		return &ChainError{Seq: last.covered, Problem: "its checkpoint is missing"}
	}
	walk, err := auditlog.NewWalk(auditlog.Head{}, kept)
	if err != nil {
		return err
	}
	err = s.walkAudit(ctx, on, walk, math.MaxInt64, func(r auditlog.Row, e Entry) error {
		if headErr == nil && r.Seq > last.Size {
			return &ChainError{Seq: r.Seq, Problem: "row was added: the key server wrote no more"}
		}
		return each(Row{Seq: r.Seq, Entry: e, Hash: r.Hash.String()})
	})
	if err != nil {
		return err
	}
	switch at := walk.Head(); {
	case headErr != nil:
		return headErr
	case at.Size != last.Size:
		return &ChainError{Seq: at.Size + 1, Problem: fmt.Sprintf("rows are missing at the end: %d there, %d written", at.Size, last.Size)}
	case !at.Hash.Equal(last.Hash):
		return &ChainError{Seq: at.Size, Problem: "rows are not those that the key server wrote: the chain was computed anew"}
	}
	return walk.End()
}

// walkAudit gives the rows behind the walk's head up to last. They must follow from it.
func (s *Store) walkAudit(ctx context.Context, on queries, walk *auditlog.Walk, last int64, each func(auditlog.Row, Entry) error) error {
	rows, err := on.rows(ctx, `SELECT seq, event, class, entry, hash FROM audit WHERE seq > ? AND seq <= ? ORDER BY seq`, walk.Head().Size, last)
	if err != nil {
		return fmt.Errorf("read audit: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var row auditlog.Row
		var event, class, entry string
		var hash []byte
		if err := rows.Scan(&row.Seq, &event, &class, &entry, &hash); err != nil {
			return fmt.Errorf("read audit: %w", err)
		}
		row.Entry = []byte(entry)
		copy(row.Hash[:], hash) // a hash of another length is another hash
		if err := walk.Row(row); err != nil {
			return err
		}
		var e Entry
		if err := json.Unmarshal(row.Entry, &e); err != nil {
			return &ChainError{Seq: row.Seq, Problem: "row does not read"}
		}
		if string(e.Event) != event || string(e.Class) != class || len(hash) != len(row.Hash) {
			return &ChainError{Seq: row.Seq, Problem: "row's columns are not its entry's"}
		}
		if err := each(row, e); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read audit: %w", err)
	}
	return nil
}

// readCheckpoints gives the store's last checkpoints in order. Each must be signed, and stand at its own place.
func (s *Store) readCheckpoints(ctx context.Context, on queries, limit int) ([]signed, error) {
	rows, err := on.rows(ctx, `SELECT seq, note FROM checkpoints ORDER BY seq DESC LIMIT ?`, limit)
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	defer rows.Close()
	var list []signed
	for rows.Next() {
		var seq int64
		var note string
		if err := rows.Scan(&seq, &note); err != nil {
			return nil, fmt.Errorf("read checkpoints: %w", err)
		}
		c, err := s.key.AuditKey().Open([]byte(note))
		if err != nil || c.Size != seq {
			return nil, &ChainError{Seq: seq, Problem: "its checkpoint is not the key server's"}
		}
		list = append(list, signed{c, []byte(note)})
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	slices.Reverse(list)
	return list, nil
}

// AuditKey gives the public key under which the audit's checkpoints and exports are checked.
func (s *Store) AuditKey() auditlog.PublicKey { return s.key.AuditKey() }

// Checkpoints gives the number of checkpoints in the store.
func (s *Store) Checkpoints(ctx context.Context) (n int, err error) {
	if err := s.read.row(ctx, `SELECT count(*) FROM checkpoints`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count checkpoints: %w", err)
	}
	return n, nil
}

// Checkpoint gives the signed checkpoint of the audit as it stands, for keeping it elsewhere. One is made if the last does
// not cover all rows.
func (s *Store) Checkpoint(ctx context.Context, now time.Time) (note []byte, err error) {
	note, _, err = s.checkpoint(ctx, now, func(h head) bool { return h.coveredAt == 0 || h.covered != h.Size })
	return note, err
}

// LastCheckpoint gives the newest checkpoint that there is; nil if there is none.
func (s *Store) LastCheckpoint(ctx context.Context) ([]byte, error) {
	notes, err := s.readCheckpoints(ctx, s.read, 1)
	if err != nil || len(notes) == 0 {
		return nil, err
	}
	return notes[0].note, nil
}

// CheckpointDue signs the rows that have waited for a checkpoint long enough: those after which no other came. It gives
// nothing if none is due.
func (s *Store) CheckpointDue(ctx context.Context, now time.Time) (note []byte, err error) {
	if h, err := s.key.readHead(ctx, s.read); err != nil || !h.due(now) {
		return nil, err
	}
	note, made, err := s.checkpoint(ctx, now, func(h head) bool { return h.due(now) })
	if !made {
		note = nil
	}
	return note, err
}

func (s *Store) checkpoint(ctx context.Context, now time.Time, wanted func(head) bool) (note []byte, made bool, err error) {
	err = s.write(ctx, func(t *transaction) error {
		if made = wanted(t.trail.head); made {
			if err := s.sign(t.ctx, t.on, t.trail, now); err != nil {
				return err
			}
			if err := s.key.writeHead(t.ctx, t.on, t.trail.head); err != nil {
				return err
			}
		} else if t.trail.coveredAt == 0 {
			return nil
		}
		var text string
		if err := t.row(`SELECT note FROM checkpoints WHERE seq = ?`, t.trail.covered).Scan(&text); err != nil {
			return fmt.Errorf("read checkpoint of row %d: %w", t.trail.covered, err)
		}
		note = []byte(text)
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("make checkpoint: %w", err)
	}
	return note, made, nil
}

// ExportAudit writes the rows with their checkpoints in auditlog's form, checking the chain as it goes, up to a checkpoint that is made for it.
// With a checkpoint of an earlier export's end, it writes that one and the rows behind it.
func (s *Store) ExportAudit(ctx context.Context, w io.Writer, now time.Time, after []byte) error {
	if _, err := s.Checkpoint(ctx, now); err != nil {
		return fmt.Errorf("export audit: %w", err)
	}
	on, end, err := s.snapshot(ctx)
	if err != nil {
		return fmt.Errorf("export audit: %w", err)
	}
	defer end()
	notes, err := s.readCheckpoints(ctx, on, math.MaxInt)
	if err != nil {
		return fmt.Errorf("export audit: %w", err)
	}
	if len(notes) == 0 {
		return fmt.Errorf("export audit: %w", ErrAuditHead)
	}
	last := notes[len(notes)-1].Size
	out := auditlog.NewWriter(w)
	start := auditlog.Checkpoint{}
	if after != nil {
		if start, err = s.key.AuditKey().Open(after); err != nil {
			return fmt.Errorf("export audit: %w", err)
		}
		if err := out.Checkpoint(after); err != nil {
			return err
		}
	}
	if start.Size > last {
		return &ChainError{Seq: last + 1, Problem: fmt.Sprintf("rows are missing at the end: %d there, %d were signed", last, start.Size)}
	}
	var kept []auditlog.Checkpoint
	bySize := map[int64][]byte{}
	for _, n := range notes {
		if n.Size >= start.Size {
			kept = append(kept, n.Checkpoint)
			bySize[n.Size] = n.note
		}
	}
	walk, err := auditlog.NewWalk(start.Head, kept)
	if err != nil {
		return err
	}
	if note := bySize[start.Size]; note != nil && after == nil { // of the audit without rows
		if err := out.Checkpoint(note); err != nil {
			return err
		}
	}
	err = s.walkAudit(ctx, on, walk, last, func(r auditlog.Row, _ Entry) error {
		if err := out.Row(r); err != nil {
			return err
		}
		if note := bySize[r.Seq]; note != nil {
			return out.Checkpoint(note)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if walk.Head().Size != last {
		return &ChainError{Seq: walk.Head().Size + 1, Problem: "row is missing"}
	}
	return nil
}
