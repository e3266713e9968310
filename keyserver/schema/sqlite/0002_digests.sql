-- Digests of every version that was registered, to say in the audit which one a refused machine was started
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
	FROM images, json_each(CAST(record AS TEXT), '$.digests') AS d WHERE length(d.value ->> '$.digest') = 64;
