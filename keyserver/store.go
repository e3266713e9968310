package keyserver

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// databaseName is the database inside a store's folder; SQLite puts its log beside it.
const databaseName = "keyserver.db"

// Errors of a store.
var (
	ErrNoStore  = errors.New("no key server store")
	ErrWrongKey = errors.New("store belongs to another store key")
	ErrBusy     = errors.New("store is busy")
	errClosed   = errors.New("store is closed")
)

// Store keeps images, sealed secrets, sessions and the audit in one SQLite database.
//
// It is safe for concurrent use, by several processes too. A write that returns without an error is on the
// disk (write-ahead log, synchronous FULL: fsync before it returns); one that returns an error changed nothing.
// Writes that wait at the same time share one transaction and one fsync, and still succeed or fail each on
// its own, unless the commit itself fails: then all of them have failed.
type Store struct {
	db      *sql.DB
	dialect *dialect
	read    queries   // on db, outside of writes
	writes  *sql.Conn // used by the writer alone
	key     *Key
	random  io.Reader

	queue   chan *write
	closing chan struct{}
	closed  chan struct{}
	once    sync.Once
}

// Queue of writes: how many may wait, and how many share a commit.
const (
	queueLength = 512
	batchLength = 64
)

// CreateStore makes the folder if it is not there, with a database that belongs to the key.
func CreateStore(ctx context.Context, dir string, key *Key, now time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	name := filepath.Join(dir, databaseName)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) // SQLite's other files take over its mode
	if err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	f.Close()
	db, err := openDatabase(name)
	if err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	defer db.Close()
	if err := prepare(ctx, db, sqlite, now, func(q queries) error { return bindKey(ctx, q, key) }); err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	return nil
}

// StoreExists says whether the folder holds a store.
func StoreExists(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, databaseName))
	return err == nil
}

// OpenStore opens a store that was made with the key. The random source is for nonces.
func OpenStore(ctx context.Context, dir string, key *Key, random io.Reader, now time.Time) (*Store, error) {
	name := filepath.Join(dir, databaseName)
	if !StoreExists(dir) {
		return nil, fmt.Errorf("%w in %s: sealboot keyserver register makes one", ErrNoStore, dir)
	}
	db, err := openDatabase(name)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	s := &Store{db: db, dialect: sqlite, read: sqlite.on(db), key: key, random: random,
		queue: make(chan *write, queueLength), closing: make(chan struct{}), closed: make(chan struct{})}
	if err := s.begin(ctx, now); err != nil {
		db.Close()
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	go s.writer()
	return s, nil
}

func (s *Store) begin(ctx context.Context, now time.Time) error {
	if err := prepare(ctx, s.db, s.dialect, now, func(q queries) error { return checkKey(ctx, q, s.key) }); err != nil {
		return err
	}
	var err error
	s.writes, err = s.db.Conn(ctx)
	return err
}

// Close waits for the writes under way. Later ones fail.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.closing) })
	<-s.closed
	return s.db.Close()
}

func openDatabase(name string) (*sql.DB, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	options := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(5000)", // milliseconds; first, so that the others wait too
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"foreign_keys(ON)",
		"secure_delete(ON)", // an ended session's keys leave no copy in free pages
		"trusted_schema(OFF)",
	}}
	u := url.URL{Scheme: "file", Path: abs, RawQuery: options.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	var mode string
	if err := db.QueryRow(`PRAGMA journal_mode`).Scan(&mode); err != nil {
		db.Close()
		return nil, err
	}
	if mode != "wal" {
		db.Close()
		return nil, fmt.Errorf("database has journal mode %q: its file system must allow WAL", mode)
	}
	return db, nil
}

// prepare brings the tables to the newest form and checks the key, in one transaction.
func prepare(ctx context.Context, db *sql.DB, d *dialect, now time.Time, key func(queries) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := d.migrate(ctx, tx, now); err != nil {
		return err
	}
	if err := key(d.on(tx)); err != nil {
		return err
	}
	return tx.Commit()
}

// snapshot begins reading the store as it stands now; end ends that.
func (s *Store) snapshot(ctx context.Context) (on queries, end func(), err error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: s.dialect.snapshot})
	if err != nil {
		return queries{}, nil, err
	}
	return s.dialect.on(tx), func() { tx.Rollback() }, nil
}

// keyCheck is the purpose of a sealed setting that shows whether a key is the store's.
var keyCheck = []byte("settings: key check")

func bindKey(ctx context.Context, on queries, key *Key) error {
	sealed, err := key.seal(rand.Reader, []byte("sealboot"), keyCheck)
	if err != nil {
		return err
	}
	_, err = on.exec(ctx, `INSERT INTO settings (name, value) VALUES ('key-check', ?)`, sealed)
	return err
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
	return nil
}
