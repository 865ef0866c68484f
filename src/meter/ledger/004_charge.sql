-- What pricing needs besides the columns of before, and whose answer was counted.
ALTER TABLE requests ADD COLUMN response_id TEXT;
ALTER TABLE requests ADD COLUMN list_nanousd INTEGER;
ALTER TABLE requests ADD COLUMN detail TEXT;  -- JSON

CREATE INDEX requests_by_response ON requests (response_id) WHERE response_id IS NOT NULL;

CREATE INDEX requests_by_session ON requests (session, started_at) WHERE session IS NOT NULL;

-- The limits of plans as they were last seen.
CREATE TABLE quotas (
  provider  TEXT NOT NULL,
  name      TEXT NOT NULL,
  plan      TEXT,
  used_bp   INTEGER,           -- hundredths of a per cent
  resets_at INTEGER,
  status    TEXT,
  seen_at   INTEGER NOT NULL,
  PRIMARY KEY (provider, name)
) STRICT, WITHOUT ROWID;
