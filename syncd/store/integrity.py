"""Whether the database is what it should be: its pages, and the counters that nobody recounts."""

import sqlite3
from collections.abc import Iterator

from syncd.store.errors import recovery

SHOWN = 20  # what quick_check finds, at most


def flaws(db: sqlite3.Connection) -> Iterator[str]:
    """What is wrong, one sentence each; a reader's connection is enough.

    Reads the whole file, in one transaction, so that a writer at work makes no difference.
    """
    db.execute("BEGIN")
    try:
        yield from damaged(db)
        yield from miscounts(db)
    finally:
        db.execute("ROLLBACK")


def damage(db: sqlite3.Connection, most: int) -> list[str]:
    """What is wrong with the file, which SQLite reads whole, and with the states of patches.

    What a patch says is none of it: delivery parks what cannot be sent. Constraints about that fail
    for some texts that are not UTF-8, and to who may only read, SQLite does not tell of any.
    """
    db.execute("PRAGMA ignore_check_constraints = ON")
    try:
        found = [text for (text,) in db.execute(f"PRAGMA quick_check({most:d})") if text != "ok"]
    finally:
        db.execute("PRAGMA ignore_check_constraints = OFF")
    return [" ".join(text.split()) for text in found] or [
        f"patch {patch_id} is in no state that a patch can be in"
        for (patch_id,) in db.execute(_IN_NO_STATE, (most,))
    ]


def damaged(db: sqlite3.Connection) -> list[str]:
    """What is wrong but for the counters, and what to do about it: for every schema version."""
    found = [f"damaged: {text}" for text in damage(db, SHOWN)]
    if found:
        path = db.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()[0]
        found.append(recovery(path))
    return found


def miscounts(db: sqlite3.Connection) -> Iterator[str]:
    """Which counters are not what a recount says, one sentence each; of lanes, the first few."""
    kept: dict[str, int] = dict(db.execute("SELECT state, n FROM counters"))
    counted: dict[str, int] = dict(
        db.execute(
            "SELECT state, count(*) FROM outbox GROUP BY state"
            " UNION ALL SELECT 'snapshots', count(*) FROM snapshots"
        )
    )
    for state in (*_STATES, "snapshots"):
        if (n := kept.get(state)) != (real := counted.get(state, 0)):
            yield f"the counter of {state} says {'nothing' if n is None else n}, there are {real}"
    for run, n, real in db.execute(_LANES_MISCOUNTED, (SHOWN,)):
        yield f"the counter of what waits for {run}, a run in trouble, says {n}, there are {real}"
    for second, n, real in db.execute(_SECONDS_MISCOUNTED, (SHOWN,)):
        yield f"the counter of deferred for the second {second} says {n}, there are {real}"


_STATES = ("pending", "held", "delivered", "dead", "discarded")
_IN_NO_STATE = f"""
SELECT id FROM outbox
 WHERE state NOT IN {_STATES}
    OR (state IN ('delivered', 'dead', 'discarded')) <> (settled_at IS NOT NULL)
    OR created_at NOT BETWEEN 0 AND 253402300799
 LIMIT ?
"""
# By stretches, as the index by run has them: a look into each of them for each lane takes longer.
_LANES_MISCOUNTED = """
WITH part AS (SELECT workflow_run_id, count(*) AS n FROM outbox
               WHERE state = 'pending' AND EXISTS (SELECT 1 FROM lanes)
               GROUP BY stretch, workflow_run_id),
     real AS (SELECT part.workflow_run_id, sum(part.n) AS n
                FROM part CROSS JOIN lanes ON lanes.workflow_run_id = part.workflow_run_id
               GROUP BY part.workflow_run_id)
SELECT lanes.workflow_run_id, lanes.waiting, COALESCE(real.n, 0)
  FROM lanes LEFT JOIN real ON real.workflow_run_id = lanes.workflow_run_id
 WHERE lanes.waiting <> COALESCE(real.n, 0)
 LIMIT ?
"""
_SECONDS_MISCOUNTED = """
SELECT second, sum(kept), sum(real)
  FROM (SELECT second, n AS kept, 0 AS real FROM deferred
        UNION ALL SELECT CAST(due_at AS INTEGER), 0, waiting FROM lanes)
 GROUP BY second
HAVING sum(kept) <> sum(real)
 LIMIT ?
"""
