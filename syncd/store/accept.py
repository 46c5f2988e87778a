"""Transactions of intake: patches into the outbox, with the place reached in their file."""

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain

from syncd.core.patch import Patch

MANY = 1000  # patches from which on it pays to treat them in bulk
# A batch of `syncd enqueue` to which nothing came for longer has lost its command.
ABANDONED_S = 60.0
CUT_OFF = "`syncd enqueue` has ended before the file did"
INTERRUPTED = "`syncd enqueue` was interrupted"


@dataclass(frozen=True, slots=True)
class Place:
    """How far a file is taken into the outbox."""

    batch_id: int
    offset: int = 0
    """Bytes of the (decompressed) file."""
    line: int = 0
    rejected: int = 0
    rejects_bytes: int = 0
    """Length of the file of rejected lines at this place."""
    taken: bool = False
    """The whole file is in the outbox."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of patches given to the outbox. Those with a known key are duplicates."""

    accepted: int
    duplicates: int
    first_id: int | None
    last_id: int | None


def open_batch(db: sqlite3.Connection, name: str, source: str, now: float) -> Place:
    """The place in a new batch; for a file of the spool in the unfinished one of its name, if any.

    There is one file of a name in the spool, but any number of commands that hand in another one.
    """
    if source == "spool":
        row = db.execute(
            "SELECT id, offset, line, rejected, rejects_bytes, taken_at IS NOT NULL"
            "  FROM batches"
            " WHERE source = 'spool' AND name = ? AND closed_at IS NULL"
            " ORDER BY id LIMIT 1",
            (name,),
        ).fetchone()
        if row is not None:
            return Place(row[0], row[1], row[2], row[3], row[4], bool(row[5]))
    cursor = db.execute(
        "INSERT INTO batches (name, source, created_at) VALUES (?, ?, ?)", (name, source, now)
    )
    assert cursor.lastrowid is not None
    return Place(cursor.lastrowid)


def accept(
    db: sqlite3.Connection, patches: Sequence[Patch], place: Place | None, now: float
) -> Accepted:
    """Append patches in the order given, all of them such as core.patch lets through.

    Raises sqlite3.IntegrityError if one is not, unless there are many: then nobody looks again.
    """
    before = _last_id(db)
    with _unchecked(db) if len(patches) >= MANY else nullcontext():
        accepted = _insert(db, patches, place.batch_id if place else None, now)
    last = _last_id(db)
    taken = Accepted(
        accepted,
        len(patches) - accepted,
        before + 1 if accepted else None,
        last if accepted else None,
    )
    if place is not None:
        _record(db, place, taken, now)
    return taken


def close_batch(
    db: sqlite3.Connection,
    batch_id: int,
    now: float,
    rejected: int | None = None,
    refused: str | None = None,
) -> Accepted:
    """The file has left the spool: another of the same name is another batch. All that is in of it.

    `rejected` is for those who have not recorded a place: how many of its lines are no patches.
    `refused` says why the file could not be read to its end.
    """
    found = db.execute(
        "UPDATE batches SET closed_at = ?1, taken_at = COALESCE(taken_at, ?1),"
        "       rejected = COALESCE(?2, rejected), refused = ?3"
        " WHERE id = ?4"
        " RETURNING accepted, duplicates, first_id, last_id",
        (now, rejected, refused, batch_id),
    ).fetchall()
    return Accepted(*found[0]) if found else Accepted(0, 0, None, None)


def close_batches_but(db: sqlite3.Connection, begun: Sequence[str], now: float) -> None:
    """Of the spool's unfinished batches only those of files that are still there go on."""
    db.execute(
        "UPDATE batches SET closed_at = ?1, taken_at = COALESCE(taken_at, ?1)"
        " WHERE source = 'spool' AND closed_at IS NULL"
        "   AND name NOT IN (SELECT value FROM json_each(?2))",
        (now, json.dumps(list(begun))),
    )


def close_abandoned(db: sqlite3.Connection, attended: Collection[int], now: float) -> None:
    """Batches of `syncd enqueue` that nobody attends to and nothing comes to are closed as cut off.

    A command that wrote into the file itself can be known by its patches only. One that was but
    slow closes its batch at its end once more, and then it is whole.
    """
    db.execute(
        "UPDATE batches SET closed_at = ?1, taken_at = COALESCE(taken_at, ?1), refused = ?2"
        " WHERE source = 'enqueue' AND closed_at IS NULL"
        "   AND id NOT IN (SELECT value FROM json_each(?3))"
        "   AND ?1 - ?4 > COALESCE("
        "       (SELECT created_at FROM outbox WHERE outbox.id = batches.last_id), created_at)",
        (now, CUT_OFF, json.dumps(list(attended)), ABANDONED_S),
    )


@contextmanager
def _unchecked(db: sqlite3.Connection) -> Iterator[None]:
    """Without the table's CHECKs, which are for other producers: a quarter of what a row costs."""
    db.execute("PRAGMA ignore_check_constraints = ON")
    try:
        yield
    finally:
        db.execute("PRAGMA ignore_check_constraints = OFF")


def _insert(
    db: sqlite3.Connection, patches: Sequence[Patch], batch_id: int | None, now: float
) -> int:
    inserted = 0
    for part in _parts(patches):
        values = chain.from_iterable(
            (p.workflow_run_id, p.name, p.metadata, p.idempotency_key, p.priority) for p in part
        )
        sql = _INSERT + ", ".join([_ROW] * len(part))
        inserted += db.execute(sql, (batch_id, now, *values)).rowcount
    return inserted


# Before each statement that fires triggers SQLite prepares to undo it alone, which costs more than
# the row: so many rows go into one. A few sizes only, as each is prepared once and kept.
_SIZES = (MANY, 100, 10, 1)
_INSERT = (
    "INSERT INTO outbox (batch_id, created_at,"
    " workflow_run_id, name, metadata, idempotency_key, priority) VALUES "
)
_ROW = "(?1, ?2, ?, ?, ?, ?, ?)"


def _parts(patches: Sequence[Patch]) -> Iterator[Sequence[Patch]]:
    begin = 0
    for size in _SIZES:
        while begin + size <= len(patches):
            yield patches[begin : begin + size]
            begin += size


def _record(db: sqlite3.Connection, place: Place, taken: Accepted, now: float) -> None:
    db.execute(
        "UPDATE batches"
        "   SET offset = ?, line = ?, rejected = ?, rejects_bytes = ?,"
        "       accepted = accepted + ?, duplicates = duplicates + ?,"
        "       first_id = COALESCE(first_id, ?), last_id = COALESCE(?, last_id),"
        "       taken_at = CASE WHEN ? THEN COALESCE(taken_at, ?) END"
        " WHERE id = ?",
        (
            place.offset,
            place.line,
            place.rejected,
            place.rejects_bytes,
            taken.accepted,
            taken.duplicates,
            taken.first_id,
            taken.last_id,
            place.taken,
            now,
            place.batch_id,
        ),
    )


def _last_id(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    return int(row[0]) if row else 0
