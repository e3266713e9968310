-- Goes up with each change of an image, policy, secret or revocation: what was judged before it is judged again.
CREATE TABLE generation (n INTEGER NOT NULL) STRICT;
INSERT INTO generation VALUES (0);

-- 0: of the first form, which the server changes when it opens the store.
ALTER TABLE images ADD COLUMN policy_version INTEGER NOT NULL DEFAULT 0;

-- Every policy that an image has had, the newest one in images too.
CREATE TABLE policies (
	image         TEXT NOT NULL REFERENCES images(name),
	version       INTEGER NOT NULL CHECK (version > 0), -- goes on through the image's versions
	image_version INTEGER NOT NULL,
	policy        BLOB NOT NULL,
	made          INTEGER NOT NULL,
	PRIMARY KEY (image, version)
) STRICT, WITHOUT ROWID;

-- All secrets of an image, sealed as one: bound to the image, its version, record and policy. No row: revoked.
ALTER TABLE secrets RENAME TO secrets_1; -- emptied when the server opens the store
CREATE TABLE secrets (
	image  TEXT PRIMARY KEY REFERENCES images(name),
	sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- How many releases an image's version has had.
CREATE TABLE releases (
	image TEXT PRIMARY KEY REFERENCES images(name),
	n     INTEGER NOT NULL,
	mac   BLOB NOT NULL -- over image, version and n
) STRICT, WITHOUT ROWID;

-- The settings have a MAC over all rows.
CREATE TABLE revocations (
	kind   TEXT NOT NULL CHECK (kind IN ('image', 'digest', 'chip', 'secret')),
	value  TEXT NOT NULL,
	reason TEXT NOT NULL,
	made   INTEGER NOT NULL,
	PRIMARY KEY (kind, value)
) STRICT, WITHOUT ROWID;
INSERT INTO revocations (kind, value, reason, made)
	SELECT 'image', name, 'revoked', registered FROM images WHERE revoked = 1;
ALTER TABLE images DROP COLUMN revoked;

-- The chip that a session is for: bound, like the platform, into what is sealed, so open sessions of the first form end.
ALTER TABLE sessions ADD COLUMN chip TEXT NOT NULL DEFAULT '';
UPDATE sessions SET state = 'expired', sealed = NULL WHERE state = 'open';
