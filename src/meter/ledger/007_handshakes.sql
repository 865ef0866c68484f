-- Handshakes of WebSockets that were refused were written as requests to a model. What came over a
-- WebSocket has a row of its own (`ws`).
UPDATE requests SET billable = 0, cost_reason = NULL
  WHERE billable AND method IN ('GET', 'CONNECT') AND protocol <> 'ws' AND usage = 'absent'
    AND cost_nanousd IS NULL AND completeness <> 'open'
    AND (status >= 300 OR (status IS NULL AND error_class IS NOT NULL));

-- Requests that were answered without the usage being told (silent.rs has the same words).
CREATE INDEX requests_silent
  ON requests (started_at, provider, surface, model, model_requested, stream, completeness, project)
  WHERE billable AND usage = 'absent' AND cost_nanousd IS NULL AND error_class IS NULL
    AND coalesce(status, 0) < 400 AND completeness <> 'open';
