-- Which of a session's agents asked, where the client tells.
ALTER TABLE requests ADD COLUMN agent TEXT;
ALTER TABLE requests ADD COLUMN agent_parent TEXT;
ALTER TABLE requests ADD COLUMN agent_kind TEXT;

-- What a row that somebody gave to another project said before: `project_source` is then 'retag'.
ALTER TABLE requests ADD COLUMN project_was TEXT;
ALTER TABLE requests ADD COLUMN project_source_was TEXT;
