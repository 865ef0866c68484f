-- Answers that were cut short, too, are requests whose usage was not told (silent.rs has the same words;
-- row.rs says why). The index of before is small, so this costs one look through the table.
DROP INDEX requests_silent;
CREATE INDEX requests_silent
  ON requests (started_at, provider, surface, model, model_requested, stream, completeness, project,
               billable, usage, cost_nanousd, error_class, status)
  WHERE billable AND usage = 'absent' AND cost_nanousd IS NULL AND completeness <> 'open'
    AND coalesce(status, 0) < 400
    AND (error_class IS NULL
         OR (completeness = 'interrupted' AND status < 300
             AND error_class IN ('client_abort', 'upstream_cut')));
