-- Rows of a hash chain that holds without a key, and signed checkpoints of it. Rows of the first form are taken over,
-- and their table dropped, when the store is opened with its key.
ALTER TABLE audit RENAME TO audit_1;

CREATE TABLE audit (
	seq   INTEGER PRIMARY KEY,
	event TEXT NOT NULL, -- event and class stand in the entry too; verifying compares
	class TEXT NOT NULL, -- '': granted
	entry TEXT NOT NULL,
	hash  BLOB NOT NULL  -- over the row before, seq and entry
) STRICT;
-- What the owner's page shows, the newest first; its queries have these conditions to the letter.
CREATE INDEX audit_launches ON audit (seq) WHERE event = 'release';
CREATE INDEX audit_changes ON audit (seq) WHERE event NOT IN ('session', 'release', 'expire');
CREATE INDEX audit_refusals ON audit (seq) WHERE class <> '';

CREATE TABLE checkpoints (
	seq  INTEGER PRIMARY KEY, -- number of rows that it covers
	note TEXT NOT NULL        -- signed note
) STRICT;
