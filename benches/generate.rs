// A ledger as somebody has it who works a lot: 8 projects, 12 models, 5 clients, a session (of two
// models) for each 200 requests, 12 hours of each day, over 400 days up to now. Written by SQL, as that is quick.

use halton_meter::home::Home;
use halton_meter::meter::ledger::{Limits, WriterConfig, start_writer};
use jiff::Timestamp;
use rusqlite::{Connection, params};
use slog::{Discard, Logger, o};
use std::time::{Duration, Instant};

pub const DAYS: i64 = 400;

pub fn config(home: &Home) -> WriterConfig {
    let mut config = WriterConfig::new(home, Logger::root(Discard, o!()));
    config.limits = Limits::default();
    config
}

/// Makes the file by the program's own means, then fills it.
pub fn generate(home: &Home, rows: i64) {
    home.create().unwrap();
    let (intake, writer) = start_writer(config(home)).unwrap();
    assert!(intake.flush(Instant::now() + Duration::from_secs(60)));
    assert!(writer.stop(Instant::now() + Duration::from_secs(60)));
    let mut conn = Connection::open(home.ledger_file()).unwrap();
    conn.execute_batch("PRAGMA synchronous = off; PRAGMA cache_size = -200000").unwrap();
    let day = 86_400_000_000_i64;
    let begin = Timestamp::now().as_microsecond() - DAYS * day;
    let a_day = (rows / DAYS).max(1);
    for number in 0..DAYS {
        let tx = conn.transaction().unwrap();
        tx.execute(FILL, params![a_day, begin + number * day, day / 2 / a_day, number]).unwrap();
        tx.commit().unwrap();
    }
    conn.execute_batch("PRAGMA wal_checkpoint(truncate)").unwrap();
}

const FILL: &str = "
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1),
d AS (SELECT i, ?2 + i * ?3 AS at, abs(random()) AS x, abs(random()) AS y FROM n),
r AS (SELECT *, iif(x % 5 = 0, 11, i / 200 % 11) AS model FROM d)
INSERT INTO requests (id, started_at, ended_at, host, path, method, protocol, provider, surface,
  billable, model_requested, model, provider_request_id, stream, status, usage, input_tokens,
  cache_read_tokens, output_tokens, cost_nanousd, price_rule, cost_estimated, billing,
  completeness, ttfb_ms, duration_ms, request_bytes, response_bytes, project, project_source,
  client, client_pid, session, branch, cwd, connection, error_class)
SELECT unhex(printf('%016x%016x', at, y)), at, at + x % 60000000, 'api.anthropic.com',
  '/v1/messages', 'POST', 'h2', iif(i / 200 % 11 < 6, 'anthropic', 'openai'), 'anthropic.messages',
  x % 20 > 0, 'model-' || model, 'model-' || model, printf('req_%016x', y), 1,
  iif(y % 50 = 0, 429, 200), 'reported', x % 3000, x % 90000, y % 2000, x % 40000000,
  '2026-11-24:anthropic/model', 0, 'metered', 'complete', 200 + x % 3000, 800 + y % 50000,
  x % 100000, y % 100000, 'project-' || (i / 200 % 8), 'git', 'client-' || (i / 200 % 5), 4242,
  printf('%08x-session', ?4 * 1000 + i / 200), 'main', '/home/somebody/src/project',
  unhex(printf('%016x%016x', ?4, i / 10)), iif(y % 50 = 0, 'rate_limit', NULL)
FROM r";
