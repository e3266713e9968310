package keyserver

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"sync"
	"time"
)

// dialect is what differs between the databases. Everything else is one set of queries, in the SQL that all of them
// know: placeholders are ?, whole numbers stand for times and for yes (1) and no (0).
type dialect struct {
	name     string             // of the folder of its schema
	integer  string             // type of 64 bits
	blob     string             // type of bytes
	strict   string             // behind CREATE TABLE
	begin    string             // of a batch; until it ends, no other server's batch begins
	next     []string           // releases the savepoint "one" and makes it anew
	long     string             // says in a transaction that it may take its time
	snapshot sql.IsolationLevel // at which all reads of a transaction see one state
	numbered bool               // placeholders are $1, $2
	prepare  bool               // the driver does not keep prepared statements by itself
	instant  bool               // a query waits for nothing but the disk
	tables   string             // one row for each table
	columns  string             // one row for each column of the table ?

	settle func(context.Context, queries) error // after rows came with numbers that the database gives

	busy   func(error) bool                     // the same may succeed later
	broken func(error) bool                     // it was the connection that failed
	bound  func(*sql.Conn, time.Duration) error // breaks a connection that is still waited for then
	warned func(driverConn any) error           // what the database remarked since it was last asked

	migrations func() ([]string, error)
	known      sync.Map // queries with their placeholders
}

// queries runs queries on a database, a connection or a transaction.
type queries struct {
	runner
	dialect *dialect
}

type runner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (d *dialect) on(r runner) queries { return queries{r, d} }

func (q queries) exec(ctx context.Context, query string, args ...any) (changed int64, err error) {
	result, err := q.ExecContext(ctx, q.dialect.placed(query), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (q queries) rows(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return q.QueryContext(ctx, q.dialect.placed(query), args...)
}

func (q queries) row(ctx context.Context, query string, args ...any) *sql.Row {
	if q.dialect.instant { // the driver would start a goroutine to wait for the context's end
		ctx = context.WithoutCancel(ctx)
	}
	return q.QueryRowContext(ctx, q.dialect.placed(query), args...)
}

// placed gives a query its placeholders. Queries are few and constant, so each is rewritten once.
func (d *dialect) placed(query string) string {
	if !d.numbered || !strings.Contains(query, "?") {
		return query
	}
	if q, ok := d.known.Load(query); ok {
		return q.(string)
	}
	var b strings.Builder
	for n, part := range strings.Split(query, "?") {
		if n > 0 {
			b.WriteString("$" + strconv.Itoa(n))
		}
		b.WriteString(part)
	}
	q := b.String()
	d.known.Store(query, q)
	return q
}
