package keyserver

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/sealboot/sealboot/keyserver/page"
)

// Owner gives what the owner's page shows (keyserver/page). It only reads.
func (s *Store) Owner() page.Source { return owner{s} }

type owner struct{ store *Store }

// Conditions of the rows that the page's lists have. Each has an index of the same condition (schema, audit).
const (
	launchRows  = `event = 'release'`
	refusalRows = `class <> ''`
	changeRows  = `event NOT IN ('session', 'release', 'expire')`
)

func (o owner) Launches(ctx context.Context, before int64, limit int) ([]page.Entry, error) {
	return o.entries(ctx, launchRows, before, limit)
}

func (o owner) Refusals(ctx context.Context, before int64, limit int) ([]page.Entry, error) {
	return o.entries(ctx, refusalRows, before, limit)
}

func (o owner) Changes(ctx context.Context, before int64, limit int) ([]page.Entry, error) {
	return o.entries(ctx, changeRows, before, limit)
}

func entriesQuery(condition string) string {
	return `SELECT seq, entry FROM audit WHERE ` + condition + ` AND seq < ? ORDER BY seq DESC LIMIT ?`
}

func (o owner) entries(ctx context.Context, condition string, before int64, limit int) ([]page.Entry, error) {
	rows, err := o.store.read.rows(ctx, entriesQuery(condition), before, limit)
	if err != nil {
		return nil, fmt.Errorf("read audit: %w", err)
	}
	defer rows.Close()
	var list []page.Entry
	for rows.Next() {
		var seq int64
		var text string
		if err := rows.Scan(&seq, &text); err != nil {
			return nil, fmt.Errorf("read audit: %w", err)
		}
		var e Entry
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			return nil, &ChainError{Seq: seq, Problem: "row does not read"}
		}
		list = append(list, page.Entry{Seq: seq, Time: e.Time, Event: string(e.Event), Principal: e.Principal, Image: e.Image, Version: e.Version,
			PolicyVersion: e.PolicyVersion, Target: e.Target, Session: e.Session, Request: e.Request, Source: e.Source, Kind: e.Kind,
			Platform: e.Platform, Chip: e.Chip, Policy: e.Policy, API: e.API, Digest: e.Digest, Class: string(e.Class), Cause: e.Cause, Reason: e.Reason})
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read audit: %w", err)
	}
	return list, nil
}

func (o owner) Images(ctx context.Context) ([]page.Image, error) {
	images, err := o.store.Images(ctx)
	if err != nil {
		return nil, err
	}
	var list []page.Image
	for _, m := range images {
		list = append(list, page.Image{Name: m.Name, Version: m.Version, PolicyVersion: m.PolicyVersion, Registered: m.Registered, Revoked: m.Revoked,
			Mode: string(m.Mode), Policy: m.Policy, Digests: m.Digests})
	}
	return list, nil
}

func (o owner) Open(ctx context.Context, limit int) ([]page.Session, int64, error) {
	count, err := o.store.OpenSessions(ctx)
	if err != nil || limit == 0 {
		return nil, count, err
	}
	rows, err := o.store.read.rows(ctx, `SELECT id, image, image_version, kind, platform, created, expires FROM sessions
		WHERE state = 'open' ORDER BY seq DESC LIMIT ?`, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("read open sessions: %w", err)
	}
	defer rows.Close()
	var list []page.Session
	for rows.Next() {
		var s page.Session
		var created, expires int64
		if err := rows.Scan(&s.ID, &s.Image, &s.Version, &s.Kind, &s.Platform, &created, &expires); err != nil {
			return nil, 0, fmt.Errorf("read open sessions: %w", err)
		}
		s.Created, s.Expires = time.Unix(created, 0), time.Unix(expires, 0)
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("read open sessions: %w", err)
	}
	return list, count, nil
}

// OpenSessions gives the number of open sessions.
func (s *Store) OpenSessions(ctx context.Context) (n int64, err error) {
	if err := s.read.row(ctx, `SELECT n FROM open_sessions`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count open sessions: %w", err)
	}
	return n, nil
}

// Queue tells how many writes wait, and how many may.
func (s *Store) Queue() (waiting, bound int) { return len(s.queue), cap(s.queue) }

func (o owner) Revocations(ctx context.Context, limit int) ([]page.Revocation, error) {
	all, err := o.store.Revocations(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b Revocation) int { return b.Time.Compare(a.Time) })
	var list []page.Revocation
	for _, r := range all[:min(limit, len(all))] {
		list = append(list, page.Revocation{Kind: string(r.Kind), Value: r.Value, Reason: r.Reason, Time: r.Time})
	}
	return list, nil
}

func (o owner) Audit(ctx context.Context, limit int) (page.Audit, error) {
	on, end, err := o.store.snapshot(ctx)
	if err != nil {
		return page.Audit{}, fmt.Errorf("read audit: %w", err)
	}
	defer end()
	h, err := o.store.key.readHead(ctx, on)
	if err != nil {
		return page.Audit{}, err
	}
	a := page.Audit{Rows: h.Size, Hash: h.Hash.String(), PublicKey: o.store.key.AuditKey().String()}
	notes, err := o.store.readCheckpoints(ctx, on, limit)
	for _, n := range slices.Backward(notes) {
		a.Checkpoints = append(a.Checkpoints, page.Checkpoint{Rows: n.Size, Hash: n.Hash.String(), Time: n.Time})
	}
	return a, err
}
