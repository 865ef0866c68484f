-- What the rows of a whole hour add up to, encoded (rollup/codec.rs). Only a copy: a report reads
-- the rows themselves of every hour that has none. `ticket` is of who is building it; until that is
-- done `cells` is NULL.
CREATE TABLE rollups (
  hour    INTEGER PRIMARY KEY NOT NULL,  -- since 1970, UTC
  version INTEGER NOT NULL,
  ticket  BLOB NOT NULL,
  cells   BLOB
) STRICT;

-- Whoever changes a row takes the roll-up of its hour away, in the same transaction. Hours are
-- rolled up some time after they ended, so all that a new row costs is the look at max(hour).
--
-- A roll-up counts the connections whose first row is in its hour: when a connection gets another
-- first row, the roll-ups of all its hours go.
CREATE TRIGGER rollups_insert AFTER INSERT ON requests
WHEN new.started_at / 3600000000 <= (SELECT max(hour) FROM rollups)
BEGIN
  DELETE FROM rollups WHERE hour = new.started_at / 3600000000;
  DELETE FROM rollups
    WHERE new.connection IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM requests WHERE connection = new.connection
                      AND started_at <= new.started_at AND id <> new.id)
      AND hour IN (SELECT started_at / 3600000000 FROM requests WHERE connection = new.connection);
END;

CREATE TRIGGER rollups_delete AFTER DELETE ON requests
WHEN old.started_at / 3600000000 <= (SELECT max(hour) FROM rollups)
BEGIN
  DELETE FROM rollups WHERE hour = old.started_at / 3600000000;
  DELETE FROM rollups
    WHERE old.connection IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM requests WHERE connection = old.connection
                      AND started_at <= old.started_at)
      AND hour IN (SELECT started_at / 3600000000 FROM requests WHERE connection = old.connection);
END;

CREATE TRIGGER rollups_update AFTER UPDATE ON requests
WHEN min(old.started_at, new.started_at) / 3600000000 <= (SELECT max(hour) FROM rollups)
BEGIN
  DELETE FROM rollups
    WHERE hour IN (old.started_at / 3600000000, new.started_at / 3600000000);
  DELETE FROM rollups
    WHERE (old.started_at <> new.started_at OR old.connection IS NOT new.connection)
      AND hour IN (SELECT started_at / 3600000000 FROM requests
                   WHERE connection IN (old.connection, new.connection));
END;
