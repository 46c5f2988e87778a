"""Walking what waits, a page of lanes at a time, so that memory does not grow with the backlog."""

import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice

import orjson

from syncd.core.schedule import Lane, Rank, rank_of
from syncd.store.lane import AT_ONCE, TOP, is_readable, load_lane, load_lanes

STRIDE = 512  # patches walked by one statement
REACH = 500_000  # … by one that only counts them, in ten milliseconds

Found = tuple[Rank, Lane | None]
"""Where in line somebody is looked for, and who is found there."""


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
    """Loaded runs for which patches were met that they may lack, with their highest priority."""
    newest: dict[str, int]
    """By run of these, the newest of them."""
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
    db: sqlite3.Connection,
    cursor: Cursor,
    loaded: Collection[str],
    limit: int,
    now: float,
    *,
    due: tuple[int, int] | None = None,
) -> Page:
    """Up to `limit` lanes that are not loaded: first those whose backoff is over, then onward.

    `due`, if given, limits the first kind, and of these the ones that keep failing: others shall
    not wait until all of them have gone.
    Lanes in trouble are met through their due time only. With a limit of 0 only the cursor moves,
    back to where patches have arrived that go before what was walked.
    """
    due_limit, failing_limit = due or (limit, limit)
    lanes, empty = due_lanes(db, loaded, due_limit, now)
    exhausted = len(lanes) < due_limit  # else there may be more that are due
    failing_limit = min(failing_limit, due_limit - len(lanes))
    failing, nothing = due_lanes(db, loaded, failing_limit, now, failing=True)
    exhausted = exhausted and len(failing) < failing_limit
    lanes, empty = lanes + failing, empty + nothing
    next_due_at = db.execute("SELECT min(due_at) FROM lanes WHERE due_at > ?", (now,)).fetchone()[0]
    cursor = _with_arrivals(db, cursor)
    arrived: dict[str, int] = {}
    newest: dict[str, int] = {}
    met = {lane.run for lane in lanes}
    unreadable: list[int] = []
    onward, at_the_end = _onward(db, cursor), False
    while len(lanes) < limit and not at_the_end:
        room, fresh = limit - len(lanes), []
        for row_id, run, priority, troubled in onward:
            cursor = Cursor(priority, row_id, cursor.seen_id)
            if not is_readable(db, row_id, run):
                unreadable.append(row_id)
            elif run in loaded:
                arrived[run] = max(priority, arrived.get(run, priority))
                newest[run] = max(row_id, newest.get(run, row_id))
            elif not troubled and run not in met:
                met.add(run)
                fresh.append(run)
                if len(fresh) == room:
                    break
        else:
            at_the_end = True
        lanes += [lane for lane in load_lanes(db, fresh) if not lane.troubled]
    exhausted = exhausted and at_the_end
    return Page(lanes, arrived, newest, cursor, exhausted, unreadable, empty, next_due_at)


def to_probe(
    db: sqlite3.Connection, share: float | None, loaded: Collection[str], now: float
) -> Found | None:
    """Where in line that share stands before, and the lane next to there of those that have not
    failed, unless it is loaded. Without a share the lane that is due longest, and where it stands.
    """
    if share is not None:
        rank = _standing(db, share)
        return rank and (rank, beside(db, rank, 0, loaded, now))
    due = db.execute(
        "SELECT workflow_run_id FROM lanes WHERE due_at <= ? ORDER BY due_at LIMIT ?",
        (now, AT_ONCE),
    )
    lanes = load_lanes(db, [run for (run,) in due])
    return (rank_of(lanes[0]), lanes[0]) if lanes else None


def _standing(db: sqlite3.Connection, share: float) -> Rank | None:
    """Where the patch stands that has this share of all that wait before it; in the middle of a
    very long line somebody nearer to an end. None if nothing waits."""
    (count,) = db.execute("SELECT n FROM counters WHERE state = 'pending'").fetchone()
    order, skipped = (
        ("priority DESC, id", share) if share < 0.5 else ("priority, id DESC", 1 - share)
    )
    row = db.execute(
        "SELECT priority, id, workflow_run_id FROM outbox WHERE state = 'pending'"
        f" ORDER BY {order} LIMIT 1 OFFSET ?",
        (min(REACH, int(skipped * count)),),
    ).fetchone()
    return row and (-row[0], row[1], row[2])


def beside(
    db: sqlite3.Connection, rank: Rank, most_failures: float, loaded: Collection[str], now: float
) -> Lane | None:
    """The lane of the patch that stands next to there in line, at that priority, and not far from
    there, of those that are not loaded, may go, and have not failed more often in a row."""
    met: list[tuple[int, str]] = []
    for side in "id >= ? ORDER BY id", "id < ? ORDER BY id DESC":
        met += db.execute(
            "SELECT id, workflow_run_id FROM ("
            "SELECT id, workflow_run_id FROM outbox"
            f" WHERE state = 'pending' AND priority = ? AND {side} LIMIT {STRIDE}) AS waiting"
            " WHERE NOT EXISTS ("
            "         SELECT 1 FROM lanes WHERE workflow_run_id = waiting.workflow_run_id"
            "                               AND (due_at > ? OR failures > ?))",
            (-rank[0], rank[1], now, most_failures),
        )
    there = (row for row in met if row[1] not in loaded)
    nearest = min(there, key=lambda row: abs(row[0] - rank[1]), default=None)
    return None if nearest is None else load_lane(db, nearest[1])


def due_lanes(
    db: sqlite3.Connection,
    loaded: Collection[str],
    limit: int,
    now: float,
    *,
    failing: bool = False,
) -> tuple[list[Lane], list[str]]:
    """Lanes in trouble whose backoff is over, either those that keep failing or the others; and
    the runs of those that have nothing left."""
    lanes: list[Lane] = []
    empty: list[str] = []
    due = (
        run
        for (run,) in db.execute(
            "SELECT workflow_run_id FROM lanes WHERE (failures > 1) = ? AND due_at <= ?"
            " ORDER BY due_at",
            (failing, now),
        )
        if run not in loaded
    )
    while asked := list(islice(due, limit - len(lanes))):
        found = load_lanes(db, asked)
        lanes += found
        there = {lane.run for lane in found}
        empty += [run for run in asked if run not in there]
    return lanes, empty


def _onward(db: sqlite3.Connection, cursor: Cursor) -> Iterator[tuple[int, str, int, int]]:
    """What waits behind the cursor, in sending order: id, run, priority, whether in trouble."""
    # Two steps instead of one OR, so that each starts where it should in the index.
    same, lower = "priority = ? AND id > ? ORDER BY id", "priority < ? ORDER BY priority DESC, id"
    priority, upto_id = cursor.priority, cursor.id
    while some := _some(db, same, priority, upto_id) or _some(db, lower, priority):
        yield from some
        upto_id, _, priority, _ = some[-1]


def _some(db: sqlite3.Connection, where: str, *bound: int) -> list[tuple[int, str, int, int]]:
    # A lane in trouble is not loaded to find that out: of many of them that takes a minute.
    (found,) = db.execute(
        "SELECT json_group_array(json_array(id, workflow_run_id, priority, EXISTS ("
        "         SELECT 1 FROM lanes WHERE workflow_run_id = waiting.workflow_run_id))) FROM ("
        "SELECT id, workflow_run_id, priority FROM outbox"
        f" WHERE state = 'pending' AND {where} LIMIT {STRIDE}) AS waiting",
        bound,
    ).fetchone()
    rows: list[tuple[int, str, int, int]] = orjson.loads(found)
    return rows


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
