-- 'sev': a launch session, of SEV or SEV-ES, with its own keys. 'snp': a challenge, which has none and knows no
-- platform ('') before the report comes.
ALTER TABLE sessions ADD COLUMN kind TEXT NOT NULL DEFAULT 'sev' CHECK (kind IN ('sev', 'snp'));

-- A full table ends its sessions in time without a look at those that have ended.
CREATE INDEX sessions_open_end ON sessions (expires) WHERE state = 'open';
