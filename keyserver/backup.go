package keyserver

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// notInBackup are the tables that a backup leaves out: sessions and what challenges are made with, for a copy must not release for a
// session or challenge that the original may have released for; and what the tables' making itself fills.
var notInBackup = []string{"challenges", "migrations", "open_sessions", "sessions"}

// Backup writes the store as it stands at one moment, while servers go on: images, policies, sealed secrets, revocations, the
// whole audit. The file is encrypted and authenticated under the store key, and of no use without it. It is the same for every kind of
// database, so it is also the way from one to the other. The audit says that it was made.
func (s *Store) Backup(ctx context.Context, w io.Writer, now time.Time) error {
	if err := s.backup(ctx, w, now); err != nil {
		return fmt.Errorf("back up store: %w", err)
	}
	return nil
}

func (s *Store) backup(ctx context.Context, w io.Writer, now time.Time) error {
	err := s.write(ctx, func(t *transaction) error { return t.audit(Entry{Time: now, Event: EventBackup}.by(ctx)) })
	if err != nil {
		return err
	}
	on, end, err := s.snapshot(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := s.dialect.checkForm(ctx, on); err != nil {
		return err
	}
	chunks, err := newChunkWriter(w, s.key, s.random)
	if err != nil {
		return err
	}
	records := &recordWriter{w: chunks}
	h := backupHeader{made: now.Unix()}
	if err := on.row(ctx, `SELECT max(version) FROM migrations`).Scan(&h.form); err != nil {
		return err
	}
	if err := on.row(ctx, `SELECT n FROM open_sessions`).Scan(&h.open); err != nil {
		return err
	}
	if err := records.header(h); err != nil {
		return err
	}
	tables, err := on.tables(ctx)
	if err != nil {
		return err
	}
	for _, table := range tables {
		if err := on.dump(ctx, records, table); err != nil {
			return fmt.Errorf("table %s: %w", table, err)
		}
	}
	if err := records.end(); err != nil {
		return err
	}
	return chunks.Close()
}

// tables gives the names of the tables that a backup has, those that others refer to first.
func (q queries) tables(ctx context.Context) ([]string, error) {
	names, err := q.names(ctx, q.dialect.tables)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(notInBackup, name) })
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case a == b:
			return 0
		case a == "images":
			return -1
		case b == "images":
			return 1
		}
		return strings.Compare(a, b)
	})
	return names, nil
}

func (q queries) names(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := q.rows(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

func (q queries) dump(ctx context.Context, records *recordWriter, table string) error {
	columns, err := q.names(ctx, q.dialect.columns, table)
	if err != nil {
		return err
	}
	if err := records.table(table, columns); err != nil {
		return err
	}
	rows, err := q.rows(ctx, `SELECT `+strings.Join(columns, ", ")+` FROM `+table)
	if err != nil {
		return err
	}
	defer rows.Close()
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := records.row(values); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Restore makes a store in a location where there is none, with what a backup has: all of it, or no store. Sessions begin anew.
// What was used up, revoked or registered after the backup is as it was before: the audit of the new store says so in its next row.
// An error of ErrBackup says that the file is not a whole backup of that key's store.
func Restore(ctx context.Context, r io.Reader, location string, key *Key, random io.Reader, now time.Time, more ...Option) error {
	chunks, err := newChunkReader(r, key)
	if err != nil {
		return fmt.Errorf("restore store: %w", err)
	}
	records := &recordReader{bufio.NewReader(chunks)}
	h, err := records.header()
	if err != nil {
		return fmt.Errorf("restore store: %w", err)
	}
	err = create(ctx, location, func(ctx context.Context, on queries) error {
		if err := on.load(ctx, records, h, now); err != nil {
			return err
		}
		s := &Store{dialect: on.dialect, key: key, random: random}
		if err := s.ready(ctx, on, now); err != nil {
			return err
		}
		return s.alone(ctx, on, func(t *transaction) error {
			return t.audit(Entry{Time: now, Event: EventRestore, Count: h.open,
				Cause: fmt.Sprintf("made from the backup of %s; %d sessions that were open then are over", time.Unix(h.made, 0).UTC().Format(time.RFC3339), h.open)})
		})
	}, more)
	if err != nil {
		return fmt.Errorf("restore store: %w", err)
	}
	return nil
}

// load makes the tables as they were for the program that made the backup, and fills them.
func (q queries) load(ctx context.Context, records *recordReader, h backupHeader, now time.Time) error {
	steps, err := q.dialect.migrations()
	if err != nil {
		return err
	}
	if h.form > int64(len(steps)) {
		return newerForm(int(h.form), len(steps))
	}
	if h.form < 1 {
		return errRecord
	}
	if err := q.dialect.take(ctx, q, steps[:h.form], now); err != nil {
		return err
	}
	left, err := q.tables(ctx)
	if err != nil {
		return err
	}
	fill := func([]any) error { return errRecord }
	var values []any
	for {
		kind, err := records.kind()
		if err != nil {
			return err
		}
		switch kind {
		case recordEnd:
			for _, table := range left { // which the store had no more
				if _, err := q.exec(ctx, `DROP TABLE `+table); err != nil {
					return err
				}
			}
			return q.dialect.settle(ctx, q)
		case recordTable:
			name, columns, err := records.table()
			if err != nil {
				return err
			}
			at := slices.Index(left, name)
			if at < 0 {
				return fmt.Errorf("%w: it has a table that form %d has not", errRecord, h.form)
			}
			left = slices.Delete(left, at, at+1)
			if fill, err = q.fill(ctx, name, columns); err != nil {
				return err
			}
			values = make([]any, len(columns))
		case recordRow:
			if err := records.row(values); err != nil {
				return err
			}
			if err := fill(values); err != nil {
				return err
			}
		}
	}
}

// fill empties a table of what its making put in and gives a function that inserts a row.
func (q queries) fill(ctx context.Context, table string, columns []string) (func([]any) error, error) {
	have, err := q.names(ctx, q.dialect.columns, table)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(have, columns) {
		return nil, fmt.Errorf("%w: table %s has other columns", errRecord, table)
	}
	if _, err := q.exec(ctx, `DELETE FROM `+table); err != nil {
		return nil, err
	}
	insert := `INSERT INTO ` + table + ` (` + strings.Join(columns, ", ") + `) VALUES (?` + strings.Repeat(", ?", len(columns)-1) + `)`
	return func(values []any) error {
		_, err := q.exec(ctx, insert, values...)
		return err
	}, nil
}

// alone runs one write in a transaction at hand.
func (s *Store) alone(ctx context.Context, on queries, do func(*transaction) error) error {
	trail, err := s.beginTrail(ctx, on)
	if err != nil {
		return err
	}
	if err := do(&transaction{ctx: ctx, on: on, store: s, trail: &trail, batch: new(batchState)}); err != nil {
		return err
	}
	return s.endTrail(ctx, on, &trail)
}

// settleIdentities sets PostgreSQL's own counters behind the numbers that rows came with.
func settleIdentities(ctx context.Context, q queries) error {
	rows, err := q.rows(ctx, `SELECT table_name, column_name FROM information_schema.columns WHERE is_identity = 'YES' AND table_schema = current_schema()`)
	if err != nil {
		return err
	}
	var found [][2]string
	for rows.Next() {
		var f [2]string
		if err := rows.Scan(&f[0], &f[1]); err != nil {
			return errors.Join(err, rows.Close())
		}
		found = append(found, f)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, f := range found {
		var next sql.NullInt64
		if err := q.row(ctx, `SELECT setval(pg_get_serial_sequence(?, ?), (SELECT coalesce(max(`+f[1]+`), 0) + 1 FROM `+f[0]+`), false)`, f[0], f[1]).Scan(&next); err != nil {
			return err
		}
	}
	return nil
}
