package keyserver

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sealboot/sealboot/keyserver/auditlog"
)

// Errors of a store.
var (
	ErrNoStore    = errors.New("no key server store")
	ErrStoreThere = errors.New("a key server store is there")
	ErrWrongKey   = errors.New("store belongs to another store key")
	ErrBusy       = errors.New("store is busy")
	errClosed     = errors.New("store is closed")
)

// connections is how many a store has to its database at most; one of them is the writer's.
const connections = 8

// Store keeps images, sealed secrets, sessions and the audit in one database: SQLite in a folder of its own, or
// PostgreSQL, found by a connection string.
//
// It is safe for concurrent use, by several processes too, and with PostgreSQL by several machines. A write that
// returns without an error is on the disk (SQLite: write-ahead log, fsync before it returns; PostgreSQL:
// synchronous_commit, fsync on) and one that returns an error, but for the commit's own, changed nothing.
// Writes that wait at the same time share one transaction and one fsync, and still succeed or fail each on
// its own, unless the commit itself fails: then all of them count as failed, even if the database turns out to have
// them because it was the answer that was lost. Nothing leaves the process for a failed write.
type Store struct {
	db         *sql.DB
	dialect    *dialect
	read       queries // on db, outside of writes
	reads      statements
	writes     *sql.Conn // used by the writer alone; nil after it broke
	statements *statements
	seen       auditlog.Head // the audit's end as the writer last left it
	key        *Key
	random     io.Reader
	parsed     imageCache
	revoked    revocationCache
	known      principalCache
	challenges challenges

	crowded atomic.Pointer[func() bool] // whether many writes are being prepared; nil: not known

	observing sync.Mutex // of those who add observers
	observers atomic.Pointer[[]Observer]

	batchTime time.Duration
	queue     chan *write
	closing   chan struct{}
	closed    chan struct{}
	once      sync.Once
}

// Queue of writes: how many may wait, and how many share a commit.
const (
	queueLength = 512
	batchLength = 64
)

// An Option says more of a location.
type Option func(*options)

type options struct {
	password func() ([]byte, error) // nil: the connection string, or the database, knows of a way
}

// WithPassword gives a database's password each time that a connection is made, so that it may change. What it
// returns is wiped.
func WithPassword(password func() ([]byte, error)) Option {
	return func(o *options) { o.password = password }
}

// openDatabase opens the database that a location names.
func openDatabase(location string, more ...Option) (*sql.DB, *dialect, error) {
	if IsPostgres(location) {
		var o options
		for _, option := range more {
			option(&o)
		}
		db, err := openPostgres(location, o)
		return db, postgresDialect, err
	}
	db, err := openSQLite(filepath.Join(location, databaseName))
	return db, sqliteDialect, err
}

// CreateStore makes a store that belongs to the key: with a folder as location, the folder if it is not there and a
// database inside; with a connection string, the tables in a database that is there. ErrStoreThere says that there is a
// store; of several servers that start at once one makes it and the others get that.
func CreateStore(ctx context.Context, location string, key *Key, now time.Time, more ...Option) error {
	return create(ctx, location, func(ctx context.Context, on queries) error {
		if err := on.dialect.migrate(ctx, on, now); err != nil {
			return err
		}
		return bindKey(ctx, on, key)
	}, more)
}

// create makes a store with what fill puts into it, or none.
func create(ctx context.Context, location string, fill func(context.Context, queries) error, more []Option) (err error) {
	if !IsPostgres(location) {
		remove, failed := claim(location)
		if failed != nil {
			return fmt.Errorf("make store: %w", failed)
		}
		defer func() {
			if err != nil {
				remove()
			}
		}()
	}
	db, d, err := openDatabase(location, more...)
	if err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	defer db.Close()
	err = d.exclusive(ctx, db, func(on queries) error {
		switch there, err := d.storeThere(ctx, on); {
		case err != nil:
			return err
		case there:
			return ErrStoreThere
		}
		return fill(ctx, on)
	})
	if err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	return nil
}

// claim makes the folder and the database's empty file, for one process alone.
func claim(dir string) (remove func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	name := filepath.Join(dir, databaseName)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) // SQLite's other files take over its mode
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%w: %w", ErrStoreThere, err)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Close(), syncFolder(dir), syncFolder(filepath.Dir(dir))); err != nil {
		return nil, err
	}
	return func() {
		for _, behind := range []string{"", "-wal", "-shm"} {
			os.Remove(name + behind)
		}
	}, nil
}

func syncFolder(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// storeThere says whether the database has a store's tables. A store is made in one transaction, so it is whole.
func (d *dialect) storeThere(ctx context.Context, on queries) (bool, error) {
	rows, err := on.rows(ctx, d.columns, "migrations")
	if err != nil {
		return false, err
	}
	defer rows.Close()
	there := rows.Next()
	return there, rows.Err()
}

// StoreExists says whether the location holds a store.
func StoreExists(ctx context.Context, location string, more ...Option) (bool, error) {
	if !IsPostgres(location) {
		_, err := os.Lstat(filepath.Join(location, databaseName))
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	db, d, err := openDatabase(location, more...)
	if err != nil {
		return false, fmt.Errorf("look for store: %w", err)
	}
	defer db.Close()
	there, err := d.storeThere(ctx, d.on(db))
	if err != nil {
		return false, fmt.Errorf("look for store: %w", err)
	}
	return there, nil
}

// OpenStore opens a store that was made with the key. The random source is for nonces.
func OpenStore(ctx context.Context, location string, key *Key, random io.Reader, now time.Time, more ...Option) (*Store, error) {
	there, err := StoreExists(ctx, location, more...)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if !there {
		return nil, fmt.Errorf("%w in %s: sealboot-keyserver register makes one", ErrNoStore, location)
	}
	db, d, err := openDatabase(location, more...)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", location, err)
	}
	s := &Store{batchTime: batchTime, db: db, dialect: d, read: d.on(db), key: key, random: random,
		queue: make(chan *write, queueLength), closing: make(chan struct{}), closed: make(chan struct{})}
	if d.prepare {
		s.reads.on = db
		s.read = d.on(&s.reads)
	}
	if err := d.exclusive(ctx, db, func(on queries) error { return s.ready(ctx, on, now) }); err != nil {
		db.Close()
		return nil, fmt.Errorf("open store %s: %w", location, err)
	}
	go s.writer()
	return s, nil
}

// ready brings the tables and what they hold to the newest form, and checks the key.
func (s *Store) ready(ctx context.Context, on queries, now time.Time) (err error) {
	if err := s.dialect.migrate(ctx, on, now); err != nil {
		return err
	}
	if err := checkKey(ctx, on, s.key); err != nil {
		return err
	}
	if err := upgrade(ctx, on, s.key, s.random); err != nil {
		return err
	}
	s.challenges, err = s.key.challenges(ctx, on, s.random)
	return err
}

// Close waits for the writes under way. Later ones fail.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.closing) })
	<-s.closed
	s.reads.close()
	return s.db.Close()
}

// busy says that what failed with err changed nothing and may succeed later.
func (s *Store) busy(err error) bool { return errors.Is(err, ErrBusy) || s.dialect.busy(err) }

// exclusive runs do in a transaction while no server writes.
func (d *dialect) exclusive(ctx context.Context, db *sql.DB, do func(queries) error) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			discard(conn)
		}
		conn.Close()
	}()
	on := d.on(conn)
	if _, err := on.exec(ctx, d.begin); err != nil {
		return err
	}
	if d.long != "" {
		if _, err := on.exec(ctx, d.long); err != nil {
			return err
		}
	}
	if err := do(on); err != nil {
		return err
	}
	return d.commit(ctx, conn)
}

// snapshot begins reading the store as it stands now; end ends that.
func (s *Store) snapshot(ctx context.Context) (on queries, end func(), err error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: s.dialect.snapshot})
	if err != nil {
		return queries{}, nil, err
	}
	on = s.dialect.on(tx)
	if s.dialect.long != "" {
		if _, err := on.exec(ctx, s.dialect.long); err != nil {
			tx.Rollback()
			return queries{}, nil, err
		}
	}
	return on, func() { tx.Rollback() }, nil
}

// keyCheck is the purpose of a sealed setting that shows whether a key is the store's.
var keyCheck = []byte("settings: key check")

func bindKey(ctx context.Context, on queries, key *Key) error {
	sealed, err := key.seal(rand.Reader, []byte("sealboot"), keyCheck)
	if err != nil {
		return err
	}
	if _, err = on.exec(ctx, `INSERT INTO settings (name, value) VALUES ('key-check', ?)`, sealed); err != nil {
		return err
	}
	return beginAudit(ctx, on, key)
}

func checkKey(ctx context.Context, on queries, key *Key) error {
	var sealed []byte
	err := on.row(ctx, `SELECT value FROM settings WHERE name = 'key-check'`).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return errors.New("it was never finished: remove the folder and register again")
	}
	if err != nil {
		return err
	}
	if _, err := key.open(sealed, keyCheck); err != nil {
		return ErrWrongKey
	}
	return takeAudit(ctx, on, key)
}
