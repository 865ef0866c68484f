-- Which of the client's connections a request came on.
ALTER TABLE requests ADD COLUMN connection BLOB;  -- UUIDv7

CREATE INDEX requests_by_connection ON requests (connection) WHERE connection IS NOT NULL;

-- Connections to metered hosts that went through unmetered. While one lasts, and when nobody saw
-- its end, how it ended is NULL.
CREATE TABLE passed (
  id          BLOB PRIMARY KEY NOT NULL,  -- UUIDv7
  at          INTEGER NOT NULL,
  host        TEXT NOT NULL,
  port        INTEGER NOT NULL,
  reason      TEXT NOT NULL,
  duration_ms INTEGER,
  bytes_up    INTEGER,
  bytes_down  INTEGER,
  aborted     INTEGER
) STRICT;

CREATE INDEX passed_by_time ON passed (at);

INSERT INTO passed (id, at, host, port, reason, duration_ms, bytes_up, bytes_down)
  SELECT randomblob(16), at, host, port, reason, duration_ms, bytes_up, bytes_down
  FROM passthrough;

DROP TABLE passthrough;

-- An id makes a second ingest do nothing.
DROP TABLE ingested;

-- Connections of which rows may be missing: those that a daemon had in hand when it died, and
-- those whose rows found no room. What became of one is decided when it is read, by the rows that
-- are there then.
CREATE TABLE unfinished (
  id       BLOB PRIMARY KEY NOT NULL,  -- UUIDv7
  at       INTEGER NOT NULL,
  host     TEXT NOT NULL,
  requests INTEGER NOT NULL,           -- seen; those without a row are lost
  reason   TEXT NOT NULL
) STRICT;

CREATE INDEX unfinished_by_time ON unfinished (at);
