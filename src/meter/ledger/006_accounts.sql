-- Two accounts of one provider have limits of their own. '' = not told whose.
ALTER TABLE quotas RENAME TO quotas_of_one;
CREATE TABLE quotas (
  provider  TEXT NOT NULL,
  account   TEXT NOT NULL,     -- a salted hash
  name      TEXT NOT NULL,
  plan      TEXT,
  used_bp   INTEGER,           -- hundredths of a per cent
  resets_at INTEGER,
  status    TEXT,
  seen_at   INTEGER NOT NULL,
  PRIMARY KEY (provider, account, name)
) STRICT, WITHOUT ROWID;
INSERT INTO quotas
  SELECT provider, '', name, plan, used_bp, resets_at, status, seen_at FROM quotas_of_one;
DROP TABLE quotas_of_one;
