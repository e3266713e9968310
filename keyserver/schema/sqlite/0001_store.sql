CREATE TABLE settings (
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
) STRICT;
