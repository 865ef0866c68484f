-- One row per request. Times are microseconds UTC; what is not known is NULL, never 0.
CREATE TABLE requests (
  id                    BLOB PRIMARY KEY NOT NULL,  -- UUIDv7
  started_at            INTEGER NOT NULL,
  ended_at              INTEGER,
  host                  TEXT NOT NULL,
  path                  TEXT NOT NULL,
  method                TEXT NOT NULL,
  protocol              TEXT NOT NULL,
  provider              TEXT NOT NULL,
  surface               TEXT,
  billable              INTEGER NOT NULL,
  model_requested       TEXT,
  model                 TEXT,
  provider_request_id   TEXT,
  stream                INTEGER,
  status                INTEGER,
  error_class           TEXT,
  usage                 TEXT NOT NULL,
  input_tokens          INTEGER,
  cache_read_tokens     INTEGER,
  cache_write_5m_tokens INTEGER,
  cache_write_1h_tokens INTEGER,
  cache_write_other_tokens INTEGER,
  output_tokens         INTEGER,
  reasoning_tokens      INTEGER,
  audio_input_tokens    INTEGER,
  audio_output_tokens   INTEGER,
  image_input_tokens    INTEGER,
  image_output_tokens   INTEGER,
  web_searches          INTEGER,
  tier                  TEXT,
  speed                 TEXT,
  geo                   TEXT,
  cost_nanousd          INTEGER,
  price_rule            TEXT,
  cost_estimated        INTEGER NOT NULL,
  cost_reason           TEXT,
  provider_cost_nanousd INTEGER,
  billing               TEXT NOT NULL,
  completeness          TEXT NOT NULL,
  completeness_reason   TEXT,
  ttfb_ms               INTEGER,
  duration_ms           INTEGER,
  request_bytes         INTEGER,
  response_bytes        INTEGER,
  project               TEXT,
  project_source        TEXT,
  client                TEXT,
  client_pid            INTEGER,
  run                   TEXT,
  session               TEXT,
  branch                TEXT,
  cwd                   TEXT
) STRICT;

CREATE INDEX requests_by_time ON requests (started_at, id);
CREATE INDEX requests_by_project ON requests (project, started_at);
CREATE INDEX requests_by_model ON requests (coalesce(model, model_requested), started_at);
CREATE INDEX requests_by_run ON requests (run) WHERE run IS NOT NULL;
CREATE INDEX requests_open ON requests (id) WHERE completeness = 'open';

-- Connections to metered hosts that went through unmetered.
CREATE TABLE passthrough (
  at          INTEGER NOT NULL,
  host        TEXT NOT NULL,
  port        INTEGER NOT NULL,
  duration_ms INTEGER NOT NULL,
  bytes_up    INTEGER NOT NULL,
  bytes_down  INTEGER NOT NULL,
  reason      TEXT NOT NULL
) STRICT;

CREATE INDEX passthrough_by_time ON passthrough (at);

-- Spool files whose lines are in `passthrough`: what makes a second ingest do nothing.
CREATE TABLE ingested (
  seq  INTEGER PRIMARY KEY AUTOINCREMENT,
  file TEXT NOT NULL UNIQUE,
  at   INTEGER NOT NULL
) STRICT;

-- Rows that were metered but could not be kept. A row count of 0 is a note: the ledger before this
-- one was corrupt and lies elsewhere.
CREATE TABLE losses (
  at     INTEGER NOT NULL,
  rows   INTEGER NOT NULL,
  reason TEXT NOT NULL
) STRICT;

CREATE INDEX losses_by_time ON losses (at);
