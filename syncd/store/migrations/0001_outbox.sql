-- The outbox: patches, in arrival order. Producers insert the first five columns after the id.
-- A constraint's name is the sentence that a producer reads when a row is refused.
CREATE TABLE outbox (
  id              INTEGER PRIMARY KEY AUTOINCREMENT,
  workflow_run_id TEXT    NOT NULL,
  name            TEXT,
  metadata        TEXT,
  idempotency_key TEXT,
  priority        INTEGER NOT NULL DEFAULT 0,

  -- The rest is syncd's.
  state           TEXT    NOT NULL DEFAULT 'pending',
  reason          TEXT,                        -- code: why it is dead, held or discarded
  attempts        INTEGER NOT NULL DEFAULT 0,  -- answers that blamed this patch or its run
  last_error      TEXT,                        -- JSON of the last of them
  leaves_out      TEXT,                        -- JSON array: keys set by newer patches, not sent
  batch_id        INTEGER,                     -- the file it came from
  created_at      REAL    NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400.0),
  settled_at      REAL,                        -- when it became delivered, dead or discarded
  previous_id     INTEGER,                     -- the patch of this run delivered before it
  stretch         INTEGER AS (id >> 16),       -- of the index by run; see there

  CONSTRAINT "leave id out: it is given by arrival"
    CHECK (id > 0),
  CONSTRAINT "workflow_run_id must be 1 to 255 characters"
    CHECK (length(workflow_run_id) BETWEEN 1 AND 255),
  CONSTRAINT "workflow_run_id must not contain control characters"
    CHECK (instr(workflow_run_id, char(0)) = 0
           AND workflow_run_id NOT GLOB
               '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*'),
  CONSTRAINT "workflow_run_id must not be . or .."
    CHECK (workflow_run_id NOT IN ('.', '..')),
  CONSTRAINT "a patch needs a name or metadata"
    CHECK (name IS NOT NULL OR metadata IS NOT NULL),
  CONSTRAINT "name must not contain NUL"
    CHECK (name IS NULL OR instr(name, char(0)) = 0),
  CONSTRAINT "metadata must be at most 10240 bytes"
    CHECK (metadata IS NULL OR length(CAST(metadata AS BLOB)) <= 10240),
  CONSTRAINT "metadata must be a JSON object"
    CHECK (metadata IS NULL OR (json_valid(metadata) AND json_type(metadata) = 'object'
                                AND instr(metadata, char(0)) = 0)),
  CONSTRAINT "idempotency_key must be 1 to 255 characters"
    CHECK (idempotency_key IS NULL OR (length(idempotency_key) BETWEEN 1 AND 255
                                       AND instr(idempotency_key, char(0)) = 0)),
  CONSTRAINT "leave created_at out: it is the time of arrival"
    CHECK (created_at BETWEEN 0 AND 253402300799),
  CONSTRAINT "state must be one of pending, held, delivered, dead, discarded"
    CHECK (state IN ('pending', 'held', 'delivered', 'dead', 'discarded')),
  CONSTRAINT "settled_at is set exactly in the final states"
    CHECK ((state IN ('delivered', 'dead', 'discarded')) = (settled_at IS NOT NULL))
) STRICT;

-- Indexes hold what waits or is in trouble, so that cost does not grow with what was ever delivered.
CREATE INDEX outbox_turn ON outbox (priority DESC, id) WHERE state = 'pending';
-- Run ids come in no order. In one index of a million of them each row of a file would change a page
-- of its own; by stretches of 65,536 ids they change the same few again and again. Whoever looks for
-- a run looks into each stretch in which something waits: WHERE stretch IN stretches.
CREATE INDEX outbox_lane ON outbox (stretch, workflow_run_id, id) WHERE state = 'pending';
CREATE INDEX outbox_apart ON outbox (workflow_run_id, id) WHERE state IN ('dead', 'held', 'discarded');
CREATE INDEX outbox_trouble ON outbox (id) WHERE state IN ('dead', 'held');
CREATE UNIQUE INDEX outbox_key ON outbox (idempotency_key) WHERE idempotency_key IS NOT NULL;

-- A seek for each, however many rows they hold.
CREATE VIEW stretches (stretch) AS
  WITH RECURSIVE walk (stretch) AS (
    SELECT min(stretch) FROM outbox WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(stretch) FROM outbox WHERE state = 'pending' AND stretch > walk.stretch)
      FROM walk WHERE walk.stretch IS NOT NULL)
  SELECT stretch FROM walk WHERE stretch IS NOT NULL;

-- Runs in trouble: those whose last request failed for a reason that may pass. One due time and one
-- backoff for all patches of the run. A run without trouble has no row.
CREATE TABLE lanes (
  workflow_run_id TEXT    PRIMARY KEY,
  due_at          REAL    NOT NULL,
  failures        INTEGER NOT NULL,
  upto_id         INTEGER NOT NULL,  -- the last patch that the failed request carried
  last_error      TEXT    NOT NULL,  -- JSON
  failed_at       REAL    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX lanes_due ON lanes (due_at);

-- Runs with a request that got no answer: it may still be applied, late, and undo newer values.
CREATE TABLE suspects (
  workflow_run_id TEXT    PRIMARY KEY,
  due_at          REAL    NOT NULL,  -- by then it has been applied, or never will be
  since_id        INTEGER NOT NULL,  -- the oldest patch that such a request may carry …
  upto_id         INTEGER NOT NULL   -- … and the newest
) STRICT, WITHOUT ROWID;
CREATE INDEX suspects_due ON suspects (due_at);

-- The WorkflowRun as the vendor last sent it, with what is searched for beside it.
CREATE TABLE snapshots (
  id              INTEGER PRIMARY KEY,
  workflow_run_id TEXT    NOT NULL UNIQUE,
  fetched_at      REAL    NOT NULL,
  status          TEXT,
  name            TEXT,
  metadata        TEXT,
  patch_ids       TEXT    NOT NULL,  -- JSON array: the patches that this answer confirmed
  last_patch_id   INTEGER NOT NULL,  -- head of the run's chain of delivered patches (previous_id)
  body            BLOB    NOT NULL   -- zstd
) STRICT;

-- One row for each file taken in.
CREATE TABLE batches (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  name          TEXT    NOT NULL,
  source        TEXT    NOT NULL CHECK (source IN ('spool', 'enqueue')),
  offset        INTEGER NOT NULL DEFAULT 0,  -- how far the file is taken
  line          INTEGER NOT NULL DEFAULT 0,
  rejects_bytes INTEGER NOT NULL DEFAULT 0,
  accepted      INTEGER NOT NULL DEFAULT 0,
  duplicates    INTEGER NOT NULL DEFAULT 0,
  rejected      INTEGER NOT NULL DEFAULT 0,
  delivered     INTEGER NOT NULL DEFAULT 0,
  dead          INTEGER NOT NULL DEFAULT 0,
  discarded     INTEGER NOT NULL DEFAULT 0,
  held          INTEGER NOT NULL DEFAULT 0,
  refused       TEXT,                        -- why the file could not be read to its end
  first_id      INTEGER,
  last_id       INTEGER,
  created_at    REAL    NOT NULL,
  taken_at      REAL,                        -- the whole file is in the outbox
  closed_at     REAL                         -- the file has left the spool
) STRICT;
CREATE INDEX batches_open ON batches (source, name) WHERE closed_at IS NULL;

-- How many patches there are in each state, and how many snapshots: nobody counts rows.
CREATE TABLE counters (
  state TEXT    PRIMARY KEY,
  n     INTEGER NOT NULL CHECK (n >= 0)
) STRICT, WITHOUT ROWID;
INSERT INTO counters VALUES
  ('pending', 0), ('held', 0), ('delivered', 0), ('dead', 0), ('discarded', 0), ('snapshots', 0);

-- Small facts that outlive the daemon, such as that an operator has paused it.
CREATE TABLE facts (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER outbox_begins BEFORE INSERT ON outbox
WHEN NEW.id <> -1 OR NEW.state <> 'pending' OR NEW.attempts <> 0 OR NEW.reason IS NOT NULL
  OR NEW.last_error IS NOT NULL OR NEW.leaves_out IS NOT NULL OR NEW.previous_id IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'outbox: insert only workflow_run_id, name, metadata, idempotency_key, priority: id is given by arrival, and a patch begins as pending');
END;

CREATE TRIGGER outbox_known_key BEFORE INSERT ON outbox WHEN NEW.idempotency_key IS NOT NULL
BEGIN
  SELECT RAISE(IGNORE) FROM outbox WHERE idempotency_key = NEW.idempotency_key;
END;

CREATE TRIGGER outbox_inserted AFTER INSERT ON outbox
BEGIN
  UPDATE counters SET n = n + 1 WHERE state = 'pending';
END;

CREATE TRIGGER outbox_moved AFTER UPDATE OF state ON outbox WHEN OLD.state <> NEW.state
BEGIN
  UPDATE counters SET n = n - 1 WHERE state = OLD.state;
  UPDATE counters SET n = n + 1 WHERE state = NEW.state;
  UPDATE batches
     SET delivered = delivered + (NEW.state = 'delivered') - (OLD.state = 'delivered'),
         dead      = dead      + (NEW.state = 'dead')      - (OLD.state = 'dead'),
         discarded = discarded + (NEW.state = 'discarded') - (OLD.state = 'discarded'),
         held      = held      + (NEW.state = 'held')      - (OLD.state = 'held')
   WHERE id = NEW.batch_id;
END;

CREATE TRIGGER outbox_deleted AFTER DELETE ON outbox
BEGIN
  UPDATE counters SET n = n - 1 WHERE state = OLD.state;
END;

CREATE TRIGGER outbox_is_history
BEFORE UPDATE OF id, workflow_run_id, name, metadata, idempotency_key, priority, created_at ON outbox
BEGIN
  SELECT RAISE(ABORT, 'outbox: what a patch says is never changed: insert a newer one');
END;

CREATE TRIGGER outbox_undelivered BEFORE DELETE ON outbox WHEN OLD.state = 'pending'
BEGIN
  SELECT RAISE(ABORT, 'outbox: a pending patch is not deleted: use syncd discard');
END;

CREATE TRIGGER snapshots_inserted AFTER INSERT ON snapshots
BEGIN
  UPDATE counters SET n = n + 1 WHERE state = 'snapshots';
END;

CREATE TRIGGER snapshots_deleted AFTER DELETE ON snapshots
BEGIN
  UPDATE counters SET n = n - 1 WHERE state = 'snapshots';
END;
