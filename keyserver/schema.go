package keyserver

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// migrations make the tables, in order; each runs once, in one transaction with its row in the table
// of migrations. A released step is never changed: a new one follows it.
var migrations = []string{
	// 1
	`CREATE TABLE settings (
		name  TEXT PRIMARY KEY,
		value BLOB NOT NULL
	) STRICT;

	CREATE TABLE images (
		name       TEXT PRIMARY KEY,
		version    INTEGER NOT NULL CHECK (version > 0),
		record     BLOB NOT NULL, -- the boot record, as it was checked
		policy     BLOB NOT NULL, -- Policy, as JSON
		registered INTEGER NOT NULL,
		revoked    INTEGER NOT NULL DEFAULT 0 CHECK (revoked IN (0, 1))
	) STRICT;

	CREATE TABLE secrets (
		image  TEXT NOT NULL REFERENCES images(name),
		id     TEXT NOT NULL,     -- GUID of its entry in the secret table
		sealed BLOB NOT NULL,     -- bound to image, its version, record and policy, and to id
		PRIMARY KEY (image, id)
	) STRICT, WITHOUT ROWID;

	CREATE TABLE sessions (
		seq           INTEGER PRIMARY KEY AUTOINCREMENT,
		id            TEXT NOT NULL UNIQUE,
		image         TEXT NOT NULL,
		image_version INTEGER NOT NULL, -- 0: no such image, to be refused like a wrong digest
		platform      TEXT NOT NULL,
		created       INTEGER NOT NULL,
		expires       INTEGER NOT NULL,
		state         TEXT NOT NULL CHECK (state IN ('open', 'released', 'refused', 'expired')),
		sealed        BLOB,             -- policy, TIK, TEK; gone with the end of the session
		CHECK ((state = 'open') = (sealed IS NOT NULL))
	) STRICT;
	CREATE INDEX sessions_open ON sessions (seq) WHERE state = 'open';
	CREATE INDEX sessions_end ON sessions (expires);

	-- A session that has ended never opens again, whoever writes.
	CREATE TRIGGER sessions_end_once BEFORE UPDATE ON sessions WHEN old.state <> 'open'
	BEGIN SELECT raise(ABORT, 'session has ended'); END;

	-- The number of open sessions, without counting them each time.
	CREATE TABLE open_sessions (n INTEGER NOT NULL) STRICT;
	INSERT INTO open_sessions VALUES (0);
	CREATE TRIGGER sessions_begin AFTER INSERT ON sessions WHEN new.state = 'open'
	BEGIN UPDATE open_sessions SET n = n + 1; END;
	CREATE TRIGGER sessions_end AFTER UPDATE OF state ON sessions WHEN old.state = 'open' AND new.state <> 'open'
	BEGIN UPDATE open_sessions SET n = n - 1; END;
	CREATE TRIGGER sessions_gone AFTER DELETE ON sessions WHEN old.state = 'open'
	BEGIN UPDATE open_sessions SET n = n - 1; END;

	CREATE TABLE audit (
		seq   INTEGER PRIMARY KEY,
		entry TEXT NOT NULL,
		mac   BLOB NOT NULL -- over the row before, seq and entry
	) STRICT;`,
	// 2
	`-- Digests of every version that was registered, to say in the audit which one a refused machine was started
	-- from. Bound to nothing: no decision rests on it.
	CREATE TABLE digests (
		seq     INTEGER PRIMARY KEY,
		image   TEXT NOT NULL,
		version INTEGER NOT NULL,
		digest  BLOB NOT NULL,
		about   TEXT NOT NULL,
		UNIQUE (image, version, digest)
	) STRICT;
	INSERT OR IGNORE INTO digests (image, version, digest, about)
		SELECT name, version, unhex(d.value ->> '$.digest'), 'mode ' || (d.value ->> '$.mode')
		FROM images, json_each(CAST(record AS TEXT), '$.digests') AS d WHERE length(d.value ->> '$.digest') = 64;`,
}

// migrate brings the tables to the newest form, and refuses a store that is newer than this program.
func migrate(ctx context.Context, db *sql.DB, now time.Time) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	const table = `CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, applied INTEGER NOT NULL) STRICT`
	if _, err := tx.ExecContext(ctx, table); err != nil {
		return err
	}
	var have int
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM migrations`).Scan(&have); err != nil {
		return err
	}
	if have > len(migrations) {
		return fmt.Errorf("its tables have form %d, this program knows %d: use a newer sealboot", have, len(migrations))
	}
	for version := have + 1; version <= len(migrations); version++ {
		if _, err := tx.ExecContext(ctx, migrations[version-1]); err != nil {
			return fmt.Errorf("migration %d: %w", version, err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO migrations VALUES (?, ?)`, version, now.Unix()); err != nil {
			return fmt.Errorf("migration %d: %w", version, err)
		}
	}
	return tx.Commit()
}
