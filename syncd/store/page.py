"""Reading what waits, a page of lanes at a time, so that memory does not grow with the backlog."""

import json
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from syncd.core.fold import MAX_BODY_METADATA, MAX_MEMBERS, Waiting
from syncd.core.schedule import Lane

LANE_BYTES = 2 * MAX_BODY_METADATA  # more of one lane than a request can carry is not held
TOP = (1 << 63) - 1  # above every priority
REPLACED = "\ufffd"  # what bytes that are not UTF-8 are read as


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the outbox has been walked, in sending order: highest priority, then oldest."""

    priority: int = TOP
    id: int = 0
    seen_id: int = 0
    """The newest patch there was at the last look."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of lanes that may go now."""

    lanes: list[Lane]
    arrived: dict[str, int]
    """Held runs for which patches were met that may not be held, with their highest priority."""
    cursor: Cursor
    exhausted: bool
    """There was nothing more to walk."""
    unreadable: list[int]
    """Patches whose run id is not UTF-8: they belong to no lane."""
    empty: list[str]
    """Runs in trouble for which nothing waits any more."""
    next_due_at: float | None
    """When the next lane in trouble is due; seconds since the epoch."""


def page(
    db: sqlite3.Connection, cursor: Cursor, held: Collection[str], limit: int, now: float
) -> Page:
    """Up to `limit` lanes that are not held: first those whose backoff is over, then onward.

    Lanes in trouble are met through their due time only. With a limit of 0 only the cursor moves,
    back to where patches have arrived that go before what was walked.
    """
    lanes, empty = _due(db, held, limit, now)
    due = db.execute("SELECT min(due_at) FROM lanes WHERE due_at > ?", (now,)).fetchone()[0]
    cursor = _with_arrivals(db, cursor)
    arrived: dict[str, int] = {}
    met = {lane.run for lane in lanes}
    unreadable: list[int] = []
    exhausted = len(lanes) < limit  # else there may be more that are due
    for row_id, run, priority in _onward(db, cursor):
        if len(lanes) >= limit:
            exhausted = False
            break
        cursor = Cursor(priority, row_id, cursor.seen_id)
        if not _is_readable(db, row_id, run):
            unreadable.append(row_id)
        elif run in held:
            arrived[run] = max(priority, arrived.get(run, priority))
        elif run not in met:
            met.add(run)
            lane = load_lane(db, run)
            if lane is not None and not lane.troubled:
                lanes.append(lane)
    return Page(lanes, arrived, cursor, exhausted, unreadable, empty, due)


def _due(
    db: sqlite3.Connection, held: Collection[str], limit: int, now: float
) -> tuple[list[Lane], list[str]]:
    lanes: list[Lane] = []
    empty: list[str] = []
    for (run,) in db.execute(
        "SELECT workflow_run_id FROM lanes WHERE due_at <= ? ORDER BY due_at", (now,)
    ):
        if len(lanes) >= limit:
            break
        if run in held:
            continue
        lane = load_lane(db, run)
        if lane is None:
            empty.append(run)
        else:
            lanes.append(lane)
    return lanes, empty


def _onward(db: sqlite3.Connection, cursor: Cursor) -> Iterator[tuple[int, str, int]]:
    # Two steps instead of one OR, so that each starts where it should in the index.
    yield from db.execute(
        "SELECT id, workflow_run_id, priority FROM outbox"
        " WHERE state = 'pending' AND priority = ? AND id > ? ORDER BY id",
        (cursor.priority, cursor.id),
    )
    yield from db.execute(
        "SELECT id, workflow_run_id, priority FROM outbox"
        " WHERE state = 'pending' AND priority < ? ORDER BY priority DESC, id",
        (cursor.priority,),
    )


def load_lane(db: sqlite3.Connection, run: str) -> Lane | None:
    """The lane of a run as it stands in the outbox; None if nothing of it waits."""
    waiting: list[Waiting] = []
    size, more, priority = 0, False, -TOP - 1
    failures: int | None = None
    # One statement: at each this thread gives up the interpreter's lock, and waits to get it back.
    for row in db.execute(
        "SELECT id, name, metadata, created_at, leaves_out, priority,"
        "       (SELECT failures FROM lanes WHERE workflow_run_id = ?1)"
        "  FROM outbox WHERE stretch IN stretches AND workflow_run_id = ?1 AND state = 'pending'"
        " ORDER BY stretch, id LIMIT ?2",
        (run, MAX_MEMBERS + 1),
    ):
        if len(waiting) == MAX_MEMBERS or size > LANE_BYTES:
            more = True
            break
        leaves_out = frozenset(json.loads(row[4])) if row[4] else frozenset()
        readable = _is_readable(db, row[0], row[1], row[2])
        waiting.append(Waiting(row[0], row[1], row[2], row[3], leaves_out, readable))
        size += len(row[2] or "") + len(row[1] or "")
        priority, failures = max(priority, row[5]), row[6]
    if not waiting:
        return None
    return Lane(run, priority, waiting, failures or 0, troubled=failures is not None, more=more)


def _is_readable(db: sqlite3.Connection, patch_id: int, *texts: str | None) -> bool:
    """Whether a patch's text, read as `texts`, is UTF-8: bytes that are not read as U+FFFD."""
    if not any(text is not None and REPLACED in text for text in texts):
        return True
    row = db.execute(
        "SELECT CAST(workflow_run_id AS BLOB), CAST(name AS BLOB), CAST(metadata AS BLOB)"
        "  FROM outbox WHERE id = ?",
        (patch_id,),
    ).fetchone()
    try:
        for value in row:
            (value or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _with_arrivals(db: sqlite3.Connection, cursor: Cursor) -> Cursor:
    """Step back to where patches have arrived behind the cursor's back, and no further."""
    newest = db.execute("SELECT max(id) FROM outbox").fetchone()[0] or 0
    if newest <= cursor.seen_id:
        return cursor
    if cursor.priority == TOP:  # nothing goes before that
        return Cursor(cursor.priority, cursor.id, newest)
    # By id, over what has arrived: the index by priority would be walked over all that waits.
    highest = db.execute(
        "SELECT max(priority) FROM outbox NOT INDEXED WHERE id > ? AND state = 'pending'",
        (cursor.seen_id,),
    ).fetchone()[0]
    if highest is not None and highest > cursor.priority:
        return Cursor(highest, cursor.seen_id, newest)
    return Cursor(cursor.priority, cursor.id, newest)
