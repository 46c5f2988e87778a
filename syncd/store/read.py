"""What readers see: rows as JSON-ready dicts, read-only, with the daemon up or down."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson

from syncd.core.fold import NAME
from syncd.core.sending import Sending
from syncd.store import found, wanted
from syncd.store.facts import CLOSED_UNTIL, LAST_ERROR, PAUSED, fact
from syncd.store.settle import body_of_snapshot

Row = dict[str, Any]
LIMIT = 50


def encode(row: object) -> bytes:
    """One row as one line of JSON, numbers of metadata as their producer wrote them."""
    # Line ends can only stand between the tokens of somebody's own text, never inside a string.
    return orjson.dumps(row).replace(b"\n", b" ").replace(b"\r", b" ")


def instant(at: float | None) -> str | None:
    """An instant in RFC 3339, UTC, with a Z."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextmanager
def at_once(db: sqlite3.Connection) -> Iterator[None]:
    """Whatever is read within the block is of one moment."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("ROLLBACK")


def stopped(db: sqlite3.Connection, now: float) -> Sending:
    """How sending stands while no daemon runs."""
    reason = "nothing is sent while the daemon is down"
    if fact(db, PAUSED) is not None:
        reason += "; an operator has paused sending: it will start paused"
    until = float(fact(db, CLOSED_UNTIL) or 0.0)
    return Sending("stopped", reason, until if until > now else None)


def outbox(db: sqlite3.Connection, now: float) -> Row:
    """The parts of `status` that the database knows."""
    counts: dict[str, int] = dict(db.execute("SELECT state, n FROM counters"))
    (suspect,) = db.execute("SELECT count(*) FROM suspects").fetchone()
    return {
        "outbox": {
            "pending": counts.get("pending", 0),
            "deferred": deferred(db, now),
            "in_flight": 0,
            "held": counts.get("held", 0),
            "dead": counts.get("dead", 0),
            "delivered": counts.get("delivered", 0),
            "discarded": counts.get("discarded", 0),
            "suspect": suspect,
            "oldest_pending_s": _oldest_pending_s(db, now),
        },
        "snapshots": {"count": counts.get("snapshots", 0)},
        "last_error": last_error(db),
        "paused": fact(db, PAUSED) is not None,
    }


def anything_waits(db: sqlite3.Connection) -> bool:
    """Whether a patch is pending, or in flight."""
    (pending,) = db.execute("SELECT n FROM counters WHERE state = 'pending'").fetchone()
    return bool(pending)


def last_error(db: sqlite3.Connection) -> Row | None:
    """What went wrong last, whoever was to blame."""
    return _error(fact(db, LAST_ERROR))


def patches(
    db: sqlite3.Connection,
    now: float,
    *,
    state: str | None = None,
    run: str | None = None,
    batch: str | None = None,
    since: float | None = None,
    limit: int | None = LIMIT,
    in_flight: Collection[int] = (),
) -> Iterator[Row]:
    """Patches, newest trouble first: dead, held, deferred, waiting, then the newest settled.

    With `since`, only what was settled from that instant on. Which are in flight only the daemon
    knows: in the database they are pending. As in `runs` and `batches`, a row is shown as it is
    when it is read, and what no longer fits by then is left out.
    """
    given = {
        "state": state,
        "run": run,
        "batch": batch,
        "since": since,
        "now": now,
        "in_flight": json.dumps(sorted(in_flight)),
    }
    fits = wanted.fits(state)
    found.find(db, wanted.patches(state, run, batch), given, limit)
    for row in found.rows(db, f"SELECT f.place, {_PATCH} {_FOUND} WHERE {fits}", given):
        yield _patch(row[1:], now, in_flight)


def patch(
    db: sqlite3.Connection, patch_id: int, now: float, in_flight: Collection[int] = ()
) -> Row | None:
    """One patch."""
    row = db.execute(
        f"SELECT {_PATCH} FROM outbox AS o {_BESIDE} WHERE o.id = ?", (patch_id,)
    ).fetchone()
    return _patch(row, now, in_flight) if row else None


def snapshot(db: sqlite3.Connection, run: str) -> Row | None:
    """The cached WorkflowRun, as the vendor sent it."""
    row = db.execute(
        "SELECT workflow_run_id, fetched_at, patch_ids, body FROM snapshots"
        " WHERE workflow_run_id = ?",
        (run,),
    ).fetchone()
    if row is None:
        return None
    return {
        "workflow_run_id": row[0],
        "fetched_at": instant(row[1]),
        "patch_ids": json.loads(row[2]),
        "workflow_run": orjson.Fragment(body_of_snapshot(row[3])),
    }


def runs(
    db: sqlite3.Connection,
    *,
    status: str | None = None,
    where: Iterable[tuple[str, str]] = (),
    limit: int | None = None,
) -> Iterator[Row]:
    """Cached runs whose status and metadata match, newest first.

    A value matches a metadata string, with or without JSON's quotes, true, false or null, or a
    number as the vendor wrote it or in its shortest form: 1.50 is found by 1.50 and by 1.5.
    """
    fits, given = wanted.runs(status, list(where))
    find = f"SELECT s.id FROM snapshots AS s WHERE {fits} ORDER BY s.fetched_at DESC, s.id DESC"
    read = (
        "SELECT f.place, s.workflow_run_id, s.fetched_at, s.status, s.name, s.metadata"
        "  FROM temp.found AS f CROSS JOIN snapshots AS s ON s.id = f.id"
        f" WHERE {fits}"
    )
    found.find(db, [find], given, limit)
    for _, run, fetched_at, its_status, name, metadata in found.rows(db, read, given):
        yield {
            "workflow_run_id": run,
            "fetched_at": instant(fetched_at),
            "status": its_status,
            "name": name,
            "metadata": orjson.Fragment(metadata.encode()) if metadata else None,
        }


def batches(
    db: sqlite3.Connection,
    *,
    name: str | None = None,
    limit: int | None = LIMIT,
    attended: Collection[int] | None = None,
) -> Iterator[Row]:
    """Files taken in, newest first; only those of that name if one is given.

    Which batches have their command only the daemon knows: `attended` are those, where one runs.
    """
    given = {"name": name}
    find = "SELECT id FROM batches WHERE :name IS NULL OR name = :name ORDER BY id DESC"
    read = (
        "SELECT f.place, b.id, b.name, b.source, b.accepted, b.duplicates, b.rejected, b.delivered,"
        "       b.dead, b.discarded, b.created_at, b.taken_at, b.closed_at, b.held, b.refused,"
        "       CASE WHEN b.source = 'enqueue' AND b.closed_at IS NULL"
        "            THEN COALESCE((SELECT created_at FROM outbox WHERE id = b.last_id),"
        "                          b.created_at)"
        "       END"
        "  FROM temp.found AS f CROSS JOIN batches AS b ON b.id = f.id"
        " WHERE 1"
    )
    found.find(db, [find], given, limit)
    for _, *row in found.rows(db, read, given):
        accepted, delivered, dead, discarded = row[3], row[6], row[7], row[8]
        yield {
            "id": row[0],
            "name": row[1],
            "source": row[2],
            "accepted": accepted,
            "refused": row[13],
            "duplicates": row[4],
            "rejected": row[5],
            "waiting": accepted - delivered - dead - discarded,
            "held": row[12],
            "delivered": delivered,
            "dead": dead,
            "discarded": discarded,
            "created_at": instant(row[9]),
            "taken_at": instant(row[10]),
            "closed_at": instant(row[11]),
            "unattended_since": (
                None if attended is None or row[0] in attended else instant(row[14])
            ),
        }


_PATCH = (
    "o.id, o.workflow_run_id, o.name, o.metadata, o.state, o.attempts, l.due_at,"
    " o.last_error, b.name, o.created_at, o.settled_at, o.reason, o.priority,"
    " o.idempotency_key, o.leaves_out, l.failures, l.last_error, l.upto_id, s.due_at"
)
_BESIDE = (
    "  LEFT JOIN batches AS b ON b.id = o.batch_id"
    "  LEFT JOIN lanes AS l ON l.workflow_run_id = o.workflow_run_id AND o.state = 'pending'"
    "  LEFT JOIN suspects AS s ON s.workflow_run_id = o.workflow_run_id AND o.id >= s.since_id"
)
_FOUND = f"FROM temp.found AS f CROSS JOIN outbox AS o ON o.id = f.id {_BESIDE}"


def _patch(row: tuple[Any, ...], now: float, in_flight: Collection[int]) -> Row:
    state = "in_flight" if row[4] == "pending" and row[0] in in_flight else row[4]
    lane_error = row[16] if row[17] is not None and row[0] <= row[17] else None
    leaves_out = [("name" if key == NAME else key) for key in json.loads(row[14] or "[]")]
    return {
        "id": row[0],
        "workflow_run_id": row[1],
        "name": row[2],
        "metadata": orjson.Fragment(row[3].encode()) if row[3] is not None else None,
        "state": state,
        "deferred": state == "pending" and row[6] is not None and row[6] > now,
        "attempts": row[5],
        "next_attempt_at": instant(row[6]),
        "last_error": _newer(_error(row[7]), _error(lane_error)),
        "batch": row[8],
        "created_at": instant(row[9]),
        "delivered_at": instant(row[10]) if row[4] == "delivered" else None,
        "settled_at": instant(row[10]),
        "reason": row[11],
        "priority": row[12],
        "idempotency_key": row[13],
        "leaves_out": leaves_out,
        "failures": row[15] or 0,
        "suspect_until": instant(row[18]),
    }


def _newer(own: Row | None, of_lane: Row | None) -> Row | None:
    """The last error of a patch that was refused, then retried, may be one of its run."""
    if own is None or of_lane is None:
        return own or of_lane
    return of_lane if (of_lane["at"] or "") >= (own["at"] or "") else own


def _error(text: str | None) -> Row | None:
    if text is None:
        return None
    error: Row = json.loads(text)
    return error | {"at": instant(error.get("at"))}


def deferred(db: sqlite3.Connection, now: float) -> int:
    """Patches that wait for their run's next attempt. Only of lanes due in this second each is
    looked at; of the later ones there is a counter for each second."""
    row = db.execute(
        "SELECT (SELECT COALESCE(sum(n), 0) FROM deferred WHERE second > CAST(?1 AS INTEGER))"
        "     + (SELECT COALESCE(sum(waiting), 0) FROM lanes"
        "         WHERE due_at > ?1 AND due_at < CAST(?1 AS INTEGER) + 1)",
        (now,),
    ).fetchone()
    return int(row[0])


def last_due_s(db: sqlite3.Connection, now: float) -> float:
    """How long it takes until no run in trouble waits for its time any more."""
    (due_at,) = db.execute("SELECT max(due_at) FROM lanes").fetchone()
    return max(0.0, (due_at or now) - now)


def _oldest_pending_s(db: sqlite3.Connection, now: float) -> float | None:
    oldest: float | None = None
    (priority,) = db.execute("SELECT max(priority) FROM outbox WHERE state = 'pending'").fetchone()
    for _ in range(100):  # priorities in use, highest first; more of them are not looked at
        if priority is None:
            break
        (created_at,) = db.execute(
            "SELECT created_at FROM outbox WHERE state = 'pending' AND priority = ?"
            " ORDER BY id LIMIT 1",
            (priority,),
        ).fetchone()
        oldest = created_at if oldest is None else min(oldest, created_at)
        (priority,) = db.execute(
            "SELECT max(priority) FROM outbox WHERE state = 'pending' AND priority < ?", (priority,)
        ).fetchone()
    return None if oldest is None else max(0.0, round(now - oldest, 3))
