-- Who may ask for what, beside whoever holds the store key. The settings have a MAC over all rows.
CREATE TABLE principals (
	name    TEXT COLLATE "C" PRIMARY KEY,
	kind    TEXT NOT NULL CHECK (kind IN ('token', 'certificate')),
	digest  TEXT NOT NULL, -- of the credential
	roles   TEXT NOT NULL,
	created BIGINT NOT NULL,
	expires BIGINT NOT NULL,
	UNIQUE (kind, digest)
);
