"""Forgetting what was delivered or discarded long ago, a little at a time."""

import sqlite3
from dataclasses import dataclass

STEP = 500  # rows looked at in one transaction
FREED = 1000  # pages given back to the file system after a sweep


@dataclass(frozen=True, slots=True)
class Swept:
    """One step of a sweep over the outbox, oldest patches first."""

    upto_id: int
    """Where the next step begins."""
    deleted: int
    done: bool


def sweep(db: sqlite3.Connection, after_id: int, before: float) -> Swept:
    """Delete patches settled before an instant, among the next few after an id.

    It ends where patches have come later than that: none of those can be old enough.

    A delivered patch stays as long as an older patch of its run is dead or held: `retry` and
    `release` must know what it has set. A batch goes with the last of its patches.
    """
    rows = db.execute(
        "SELECT id, created_at, state IN ('delivered', 'discarded') AND settled_at < ?"
        "       AND NOT EXISTS (SELECT 1 FROM outbox AS older"
        "                        WHERE older.workflow_run_id = outbox.workflow_run_id"
        "                          AND older.state IN ('dead', 'held', 'discarded')"
        "                          AND older.state <> 'discarded' AND older.id < outbox.id)"
        "       AND NOT EXISTS (SELECT 1 FROM outbox AS older"
        "                        WHERE older.stretch IN stretches"
        "                          AND older.workflow_run_id = outbox.workflow_run_id"
        "                          AND older.state = 'pending' AND older.id < outbox.id)"
        "  FROM outbox WHERE id > ? ORDER BY id LIMIT ?",
        (before, after_id, STEP),
    ).fetchall()
    old = [(row_id,) for row_id, _, is_old in rows if is_old]
    db.executemany("DELETE FROM outbox WHERE id = ?", old)
    done = all(created_at >= before for _, created_at, _ in rows)
    if done:
        db.execute(
            "DELETE FROM batches WHERE closed_at < ? AND NOT EXISTS ("
            "  SELECT 1 FROM outbox WHERE outbox.id BETWEEN batches.first_id AND batches.last_id"
            "     AND outbox.batch_id = batches.id)",
            (before,),
        )
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        for _ in range(min(free, FREED)):  # sqlite3 takes one step of a pragma: a page at a time
            db.execute("PRAGMA incremental_vacuum(1)")
    return Swept(0 if done else rows[-1][0], len(old), done)
