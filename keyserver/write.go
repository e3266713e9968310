package keyserver

import (
	"context"
	"database/sql"
	"fmt"
)

// write is one change that waits for the writer.
type write struct {
	ctx  context.Context
	do   func(*transaction) error
	done chan error
}

// transaction is the inside of one write. Only do's own goroutine may use it, and only until do returns.
type transaction struct {
	ctx   context.Context
	on    queries
	store *Store
	head  *head // of the audit, with this batch's rows
}

// write runs do and commits what it did, or nothing if do fails or the commit does. do must not keep
// anything that leaves the process before write has returned nil.
func (s *Store) write(ctx context.Context, do func(*transaction) error) error {
	w := &write{ctx: ctx, do: do, done: make(chan error, 1)}
	select {
	case <-s.closing:
		return errClosed
	default:
	}
	select {
	case s.queue <- w:
	default:
		return ErrBusy
	}
	select {
	case err := <-w.done:
		return err
	case <-s.closed: // the writer may have ended between the two
		select {
		case err := <-w.done:
			return err
		default:
			return errClosed
		}
	}
}

// writer commits in batches until the store closes, and then what still waits.
func (s *Store) writer() {
	defer close(s.closed)
	defer s.writes.Close()
	for {
		select {
		case w := <-s.queue:
			s.commit(s.batch(w))
		case <-s.closing:
			for {
				select {
				case w := <-s.queue:
					s.commit(s.batch(w))
				default:
					return
				}
			}
		}
	}
}

func (s *Store) batch(first *write) []*write {
	batch := []*write{first}
	for len(batch) < batchLength {
		select {
		case w := <-s.queue:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

// commit answers each write of the batch exactly once.
func (s *Store) commit(batch []*write) {
	results := make([]error, len(batch))
	if err := s.attempt(batch, results); err != nil {
		s.writes.ExecContext(context.Background(), `ROLLBACK`) // fails if SQLite has done it
		for i := range results {
			results[i] = fmt.Errorf("write to store: %w", err)
		}
	}
	for i, w := range batch {
		w.done <- results[i]
	}
}

// attempt runs the batch in one transaction, each write in a savepoint. Its own error means that nothing was
// committed, or that it cannot be known: either way no write may count as done.
func (s *Store) attempt(batch []*write, results []error) error {
	ctx := context.Background() // a caller who goes away must not tear the others' transaction
	on := s.dialect.on(s.writes)
	exec := func(statement string) error {
		_, err := on.exec(ctx, statement)
		return err
	}
	if err := exec(s.dialect.begin); err != nil {
		return err
	}
	begun, err := readHead(ctx, on)
	if err != nil {
		return err
	}
	head := begun
	for i, w := range batch {
		if results[i] = w.ctx.Err(); results[i] != nil {
			continue
		}
		if err := exec(`SAVEPOINT one`); err != nil {
			return err
		}
		before := head
		if results[i] = w.do(&transaction{ctx: ctx, on: on, store: s, head: &head}); results[i] != nil {
			head = before
			if err := exec(`ROLLBACK TO SAVEPOINT one`); err != nil { // a full disk may have ended the whole transaction
				return fmt.Errorf("%w, after: %w", err, results[i])
			}
		}
		if err := exec(`RELEASE SAVEPOINT one`); err != nil {
			return err
		}
	}
	if head.seq != begun.seq {
		if err := writeHead(ctx, on, head); err != nil {
			return err
		}
	}
	return exec(`COMMIT`)
}

func (t *transaction) exec(query string, args ...any) (changed int64, err error) {
	return t.on.exec(t.ctx, query, args...)
}

func (t *transaction) row(query string, args ...any) *sql.Row { return t.on.row(t.ctx, query, args...) }

func (t *transaction) rows(query string, args ...any) (*sql.Rows, error) {
	return t.on.rows(t.ctx, query, args...)
}
