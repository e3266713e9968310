package keyserver

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"time"
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
	trail *trail // the audit, with this batch's rows
	batch *batchState
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
	defer s.release(false)
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

// gathering is how long a batch waits for more writes where many are being prepared: each commit costs as much as some of them,
// and they wait for processors anyway. Others do not wait.
const gathering = 2 * time.Millisecond

func (s *Store) batch(first *write) []*write {
	if crowded := s.crowded.Load(); crowded != nil && (*crowded)() {
		time.Sleep(gathering)
	}
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

// batchTime bounds a batch from the outside: it is more than the database's own limits allow, and ends a wait for a
// database that does not answer at all.
const batchTime = 12 * time.Second

// commit answers each write of the batch exactly once.
func (s *Store) commit(batch []*write) {
	// The callers' contexts do not reach the transaction: one who goes away must not tear the others'. Nor does another of
	// its own: the drivers would start a goroutine for each statement.
	ctx := context.Background()
	ended := s.begun()
	results := make([]error, len(batch))
	on, err := s.begin(ctx)
	if err == nil {
		err = s.attempt(ctx, on, batch, results)
	}
	if err != nil {
		s.release(true)
		if s.dialect.busy(err) {
			err = fmt.Errorf("%w: %w", ErrBusy, err)
		}
		for i := range results {
			results[i] = fmt.Errorf("write to store: %w", err)
		}
	}
	failed := 0
	for i, w := range batch {
		if results[i] != nil {
			failed++
		}
		w.done <- results[i]
	}
	ended(len(batch)-failed, failed)
}

// begin begins the batch's transaction, on a new connection if the last one has broken meanwhile: nothing was asked of it
// yet.
func (s *Store) begin(ctx context.Context) (on queries, err error) {
	for range connections + 1 { // the pool's others may have broken too
		if s.writes == nil {
			if s.writes, err = s.connect(ctx); err != nil {
				return queries{}, err
			}
			s.statements = &statements{on: s.writes}
		}
		if err = s.dialect.bound(s.writes, s.batchTime); err == nil {
			_, err = s.dialect.on(s.writes).exec(ctx, s.dialect.begin)
		}
		if err == nil {
			if s.dialect.prepare {
				return s.dialect.on(s.statements), nil
			}
			return s.dialect.on(s.writes), nil
		}
		s.release(true)
		if !s.dialect.broken(err) {
			break
		}
	}
	return queries{}, err
}

func (s *Store) connect(ctx context.Context) (*sql.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.batchTime) // readers may have all connections
	defer cancel()
	return s.db.Conn(ctx)
}

// release gives up the writer's connection, back to the others or, after a failure, for good.
func (s *Store) release(failed bool) {
	if s.writes == nil {
		return
	}
	s.statements.close() // while the connection is there
	if failed {
		discard(s.writes)
	}
	s.writes.Close()
	s.writes, s.statements = nil, nil
}

// attempt runs the batch in its transaction, each write in a savepoint. Its own error means that nothing was
// committed, or that it cannot be known: either way no write may count as done.
func (s *Store) attempt(ctx context.Context, on queries, batch []*write, results []error) error {
	if err := s.dialect.checkForm(ctx, on); err != nil { // another server may have changed it
		return err
	}
	trail, err := s.beginTrail(ctx, on)
	if err != nil {
		return err
	}
	exec := func(statements ...string) (err error) {
		for _, s := range statements {
			if _, err = on.exec(ctx, s); err != nil {
				break
			}
		}
		return err
	}
	if err := exec(`SAVEPOINT one`); err != nil {
		return err
	}
	var state batchState
	for i, w := range batch {
		if results[i] = w.ctx.Err(); results[i] != nil {
			continue
		}
		beforeTrail, before := trail, state
		if results[i] = w.do(&transaction{ctx: ctx, on: on, store: s, trail: &trail, batch: &state}); results[i] != nil {
			trail, state = beforeTrail, before
			if err := exec(`ROLLBACK TO SAVEPOINT one`); err != nil { // a full disk may have ended the whole transaction
				return fmt.Errorf("%w, after: %w", err, results[i])
			}
		} else if err := exec(s.dialect.next...); err != nil {
			return err
		}
	}
	if err := s.endTrail(ctx, on, &trail); err != nil {
		return err
	}
	if err := s.dialect.commit(ctx, s.writes); err != nil {
		return err
	}
	s.committed(trail)
	return nil
}

// commit ends a transaction whose last statement succeeded. (PostgreSQL answers the commit of a failed transaction with
// success; one that has just taken a statement has not failed.) An error means that it may not have been committed.
func (d *dialect) commit(ctx context.Context, conn *sql.Conn) error {
	conn.Raw(d.warned) // what came before says nothing of the commit
	if _, err := conn.ExecContext(ctx, `COMMIT`); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return conn.Raw(d.warned)
}

// discard ends a connection's transaction, if it can, and takes the connection out of use.
func discard(conn *sql.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn.ExecContext(ctx, `ROLLBACK`) // fails where there is no transaction any more
	conn.Raw(func(any) error { return driver.ErrBadConn })
}

func (t *transaction) exec(query string, args ...any) (changed int64, err error) {
	return t.on.exec(t.ctx, query, args...)
}

func (t *transaction) row(query string, args ...any) *sql.Row { return t.on.row(t.ctx, query, args...) }

func (t *transaction) rows(query string, args ...any) (*sql.Rows, error) {
	return t.on.rows(t.ctx, query, args...)
}
