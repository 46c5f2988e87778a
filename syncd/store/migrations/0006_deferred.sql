-- How many patches wait in each lane in trouble, and in all lanes that are due within one second: so
-- `status` counts the deferred ones, which time alone makes due, without looking at each lane.
ALTER TABLE lanes ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0;

CREATE TABLE deferred (
  second INTEGER PRIMARY KEY,  -- the due times within it, since the epoch
  n      INTEGER NOT NULL
) STRICT;

-- One walk over the index instead of a look into each of its stretches for each lane.
UPDATE lanes SET waiting = found.n
  FROM (SELECT part.workflow_run_id, sum(part.n) AS n
          FROM (SELECT workflow_run_id, count(*) AS n FROM outbox
                 WHERE state = 'pending' AND EXISTS (SELECT 1 FROM lanes)
                 GROUP BY stretch, workflow_run_id) AS part
         CROSS JOIN lanes ON lanes.workflow_run_id = part.workflow_run_id
         GROUP BY part.workflow_run_id) AS found
 WHERE lanes.workflow_run_id = found.workflow_run_id;

INSERT INTO deferred (second, n)
SELECT CAST(due_at AS INTEGER), sum(waiting) FROM lanes WHERE waiting > 0 GROUP BY 1;

CREATE TRIGGER lanes_inserted AFTER INSERT ON lanes
BEGIN
  UPDATE lanes
     SET waiting = (SELECT count(*) FROM outbox
                     WHERE stretch IN stretches AND workflow_run_id = NEW.workflow_run_id
                       AND state = 'pending')
   WHERE workflow_run_id = NEW.workflow_run_id;
END;

CREATE TRIGGER lanes_moved AFTER UPDATE OF due_at, waiting ON lanes
WHEN OLD.waiting <> NEW.waiting OR CAST(OLD.due_at AS INTEGER) <> CAST(NEW.due_at AS INTEGER)
BEGIN
  UPDATE deferred SET n = n - OLD.waiting WHERE second = CAST(OLD.due_at AS INTEGER);
  INSERT INTO deferred (second, n) VALUES (CAST(NEW.due_at AS INTEGER), NEW.waiting)
      ON CONFLICT (second) DO UPDATE SET n = n + excluded.n;
  DELETE FROM deferred WHERE second = CAST(OLD.due_at AS INTEGER) AND n = 0;
END;

CREATE TRIGGER lanes_deleted AFTER DELETE ON lanes
BEGIN
  UPDATE deferred SET n = n - OLD.waiting WHERE second = CAST(OLD.due_at AS INTEGER);
  DELETE FROM deferred WHERE second = CAST(OLD.due_at AS INTEGER) AND n = 0;
END;

CREATE TRIGGER outbox_joins_lane AFTER INSERT ON outbox
BEGIN
  UPDATE lanes SET waiting = waiting + 1 WHERE workflow_run_id = NEW.workflow_run_id;
END;

-- Not at a delivery, which would cost each patch a look: it ends the trouble, and deletes the lane.
CREATE TRIGGER outbox_changes_lane AFTER UPDATE OF state ON outbox
WHEN NEW.state <> 'delivered' AND (OLD.state = 'pending') <> (NEW.state = 'pending')
BEGIN
  UPDATE lanes SET waiting = waiting + (NEW.state = 'pending') - (OLD.state = 'pending')
   WHERE workflow_run_id = NEW.workflow_run_id;
END;
