-- In which minutes (since 1970, UTC) a name occurs among the requests: one entry for all rows that a
-- minute has of it, in place of an entry of an index for each. An entry may be superfluous, as after a
-- change of project; none may be missing. Who looks for rows looks at those of the minutes (seen.rs).
CREATE TABLE seen (
  kind   INTEGER NOT NULL,
  name   ANY NOT NULL,
  minute INTEGER NOT NULL,
  PRIMARY KEY (kind, name, minute)
) STRICT, WITHOUT ROWID;

-- What is to be in it. The quotient is rounded down, also before 1970; rows without a project are asked
-- for as well.
CREATE VIEW names (request, kind, name, minute) AS
  SELECT rowid, 1, ifnull(project, x''),
    (started_at - 59999999 * (started_at < 0)) / 60000000 FROM requests
  UNION ALL
  SELECT rowid, 2, coalesce(model, model_requested),
    (started_at - 59999999 * (started_at < 0)) / 60000000 FROM requests
  UNION ALL
  SELECT rowid, 3, session,
    (started_at - 59999999 * (started_at < 0)) / 60000000 FROM requests
  UNION ALL
  SELECT rowid, 4, connection,
    (started_at - 59999999 * (started_at < 0)) / 60000000 FROM requests
  UNION ALL
  SELECT rowid, 5, run,
    (started_at - 59999999 * (started_at < 0)) / 60000000 FROM requests;

-- In the order of the indexes that are to go: each entry comes behind the last, in the room of the index
-- before.
INSERT OR IGNORE INTO seen
  SELECT 1, project, (started_at - 59999999 * (started_at < 0)) / 60000000
  FROM requests INDEXED BY requests_by_project WHERE project IS NOT NULL
  ORDER BY project, started_at;
INSERT OR IGNORE INTO seen
  SELECT 1, x'', (started_at - 59999999 * (started_at < 0)) / 60000000
  FROM requests INDEXED BY requests_by_project WHERE project IS NULL
  ORDER BY started_at;
DROP INDEX requests_by_project;
INSERT OR IGNORE INTO seen
  SELECT 2, coalesce(model, model_requested), (started_at - 59999999 * (started_at < 0)) / 60000000
  FROM requests INDEXED BY requests_by_model WHERE coalesce(model, model_requested) IS NOT NULL
  ORDER BY coalesce(model, model_requested), started_at;
DROP INDEX requests_by_model;
INSERT OR IGNORE INTO seen
  SELECT 3, session, (started_at - 59999999 * (started_at < 0)) / 60000000
  FROM requests INDEXED BY requests_by_session WHERE session IS NOT NULL
  ORDER BY session, started_at;
DROP INDEX requests_by_session;
INSERT OR IGNORE INTO seen
  SELECT 4, connection, (started_at - 59999999 * (started_at < 0)) / 60000000
  FROM requests INDEXED BY requests_by_connection WHERE connection IS NOT NULL
  ORDER BY connection;
DROP INDEX requests_by_connection;
INSERT OR IGNORE INTO seen
  SELECT 5, run, (started_at - 59999999 * (started_at < 0)) / 60000000
  FROM requests INDEXED BY requests_by_run WHERE run IS NOT NULL
  ORDER BY run;
DROP INDEX requests_by_run;

-- 1: who inserted the row has himself entered its names, and seen that its hour is not rolled up. Looked
-- at by the trigger, and never again. All others (another program, a daemon of before that is still there)
-- leave it NULL, and the trigger does it.
ALTER TABLE requests ADD COLUMN noted INTEGER;

DROP TRIGGER rollups_insert;
DROP TRIGGER rollups_delete;
DROP TRIGGER rollups_update;

-- Those that fire for each request are small, as room is made for all that a trigger can do each time.
-- Nor does one look at an old value behind the 32nd column: SQLite then fetches all old ones.
CREATE TRIGGER requests_insert AFTER INSERT ON requests WHEN new.noted IS NULL
BEGIN
  INSERT INTO changes VALUES (new.rowid, new.id, new.started_at, new.connection, NULL, NULL);
END;

CREATE TRIGGER rollups_update AFTER UPDATE ON requests
WHEN old.started_at / 3600000000 <= (SELECT max(hour) FROM rollups)
BEGIN
  DELETE FROM rollups WHERE hour = old.started_at / 3600000000;
END;

CREATE TRIGGER requests_model AFTER UPDATE OF model, model_requested ON requests
WHEN coalesce(new.model, new.model_requested) IS NOT coalesce(old.model, old.model_requested)
  AND coalesce(new.model, new.model_requested) IS NOT NULL
BEGIN
  INSERT INTO seen
    VALUES (2, coalesce(new.model, new.model_requested),
      (new.started_at - 59999999 * (new.started_at < 0)) / 60000000)
    ON CONFLICT DO NOTHING;
END;

-- What the end of a request leaves as it is (record.rs).
CREATE TRIGGER requests_moved
AFTER UPDATE OF started_at, project, session, connection, run ON requests
BEGIN
  INSERT INTO changes
    VALUES (new.rowid, new.id, new.started_at, new.connection, old.started_at, old.connection);
END;

CREATE TRIGGER rollups_delete AFTER DELETE ON requests
BEGIN
  INSERT INTO changes VALUES (NULL, old.id, NULL, NULL, old.started_at, old.connection);
END;

-- Holds nothing, and has what is rarely to be done.
CREATE VIEW changes (request, id, at, connection, was_at, was_connection) AS
  SELECT 0, x'', 0, x'', 0, x'' WHERE false;

CREATE TRIGGER changes_names INSTEAD OF INSERT ON changes WHEN new.request IS NOT NULL
BEGIN
  INSERT INTO seen SELECT kind, name, minute FROM names
    WHERE request = new.request AND name IS NOT NULL ON CONFLICT DO NOTHING;
END;

-- As in 003: the roll-ups of the row's hour go, and those of all hours of a connection that gets another
-- first row. No function may be called (min, max of two): SQLite then takes each statement that fires a
-- trigger for one that may fail half way, and copies every page that it changes.
CREATE TRIGGER changes_rollups INSTEAD OF INSERT ON changes
WHEN ifnull(new.at, new.was_at) / 3600000000 <= (SELECT max(hour) FROM rollups)
  OR ifnull(new.was_at, new.at) / 3600000000 <= (SELECT max(hour) FROM rollups)
BEGIN
  DELETE FROM rollups WHERE hour IN (new.at / 3600000000, new.was_at / 3600000000);
  DELETE FROM rollups
    WHERE (new.at IS NOT new.was_at OR new.connection IS NOT new.was_connection)
      AND hour IN (SELECT minute / 60 FROM seen WHERE kind = 4 AND name = new.connection)
      AND NOT EXISTS (SELECT 1 FROM seen CROSS JOIN requests
                      WHERE kind = 4 AND name = new.connection AND minute <= new.at / 60000000
                      AND started_at >= minute * 60000000 AND started_at < (minute + 1) * 60000000
                      AND started_at <= new.at
                      AND requests.connection = new.connection AND requests.id <> new.id);
  DELETE FROM rollups
    WHERE (new.at IS NOT new.was_at OR new.connection IS NOT new.was_connection)
      AND hour IN (SELECT minute / 60 FROM seen WHERE kind = 4 AND name = new.was_connection)
      AND NOT EXISTS (SELECT 1 FROM seen CROSS JOIN requests
                      WHERE kind = 4 AND name = new.was_connection AND minute <= new.was_at / 60000000
                      AND started_at >= minute * 60000000 AND started_at < (minute + 1) * 60000000
                      AND started_at <= new.was_at
                      AND requests.connection = new.was_connection AND requests.id <> new.id);
END;
