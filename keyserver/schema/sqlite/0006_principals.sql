-- Who may ask for what, beside whoever holds the store key. The settings have a MAC over all rows.
CREATE TABLE principals (
	name    TEXT PRIMARY KEY,
	kind    TEXT NOT NULL CHECK (kind IN ('token', 'certificate')),
	digest  TEXT NOT NULL, -- of the credential
	roles   TEXT NOT NULL,
	created INTEGER NOT NULL,
	expires INTEGER NOT NULL,
	UNIQUE (kind, digest)
) STRICT, WITHOUT ROWID;
