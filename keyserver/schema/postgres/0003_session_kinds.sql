-- 'sev': a launch session, of SEV or SEV-ES, with its own keys. 'snp': a challenge, which has none and knows no
-- platform ('') before the report comes.
ALTER TABLE sessions ADD COLUMN kind TEXT NOT NULL DEFAULT 'sev' CHECK (kind IN ('sev', 'snp'));

-- What is to end, and what is to go, is found without a look at the rest.
CREATE INDEX sessions_open_end ON sessions (expires) WHERE state = 'open';
DROP INDEX sessions_end;
CREATE INDEX sessions_ended ON sessions (expires) WHERE state <> 'open';
CREATE INDEX sessions_ended_seq ON sessions (seq) WHERE state <> 'open';
