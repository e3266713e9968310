package keyserver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"modernc.org/sqlite" // the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// databaseName is the database inside a store's folder; SQLite puts its log beside it.
const databaseName = "keyserver.db"

var sqliteDialect = &dialect{
	name:       "sqlite",
	integer:    "INTEGER",
	blob:       "BLOB",
	strict:     " STRICT",
	begin:      `BEGIN IMMEDIATE`,
	next:       []string{`RELEASE SAVEPOINT one`, `SAVEPOINT one`},
	snapshot:   sql.LevelDefault,
	prepare:    true,
	instant:    true,
	migrations: sync.OnceValues(func() ([]string, error) { return readMigrations("sqlite") }),
	tables:     `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name`,
	settle:     func(context.Context, queries) error { return nil }, // it counts on from the largest
	columns:    `SELECT name FROM pragma_table_info(?) ORDER BY cid`,
	busy: func(err error) bool {
		failed := (*sqlite.Error)(nil)
		return errors.As(err, &failed) && failed.Code()&0xff == sqlite3.SQLITE_BUSY
	},
	broken: func(error) bool { return false },
	bound:  func(*sql.Conn, time.Duration) error { return nil }, // no statement waits for anything but the disk, and a lock for busy_timeout
	warned: func(any) error { return nil },
}

// openSQLite opens a store's database, which is durable: write-ahead log, synchronous FULL (fsync before a commit
// returns).
func openSQLite(name string) (*sql.DB, error) {
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
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
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
