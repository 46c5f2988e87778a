-- A NULL where none may be is told in words that a producer understands, and no later than the rest.
-- In one trigger with the bound of names: each costs every row something.
DROP TRIGGER outbox_long_name;
CREATE TRIGGER outbox_refused BEFORE INSERT ON outbox
WHEN NEW.workflow_run_id IS NULL OR NEW.priority IS NULL
  OR (length(NEW.name) > 2560 AND length(CAST(NEW.name AS BLOB)) > 10240)
BEGIN
  SELECT RAISE(ABORT, 'workflow_run_id is missing') WHERE NEW.workflow_run_id IS NULL;
  SELECT RAISE(ABORT, 'priority must be an integer: leave the column out for 0') WHERE NEW.priority IS NULL;
  SELECT RAISE(ABORT, 'name must be at most 10240 bytes');
END;
