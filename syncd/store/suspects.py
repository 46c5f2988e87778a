"""Runs whose last values may still be undone by a request that got no answer."""

import json
import sqlite3
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from syncd.core import repair
from syncd.core.answer import Run
from syncd.core.fold import Waiting, keys_of
from syncd.core.suspect import Suspect, shown
from syncd.store.facts import RUNNING, UNCLEAN, fact, set_fact

MOST = 1000  # patches of one run in memory, of each kind


def add(db: sqlite3.Connection, run: str, due_at: float, since_id: int, upto_id: int) -> None:
    """A request with these patches of a run got no answer."""
    db.execute(
        "INSERT INTO suspects (workflow_run_id, due_at, since_id, upto_id) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (workflow_run_id) DO UPDATE"
        "    SET due_at = max(due_at, excluded.due_at),"
        "        since_id = min(since_id, excluded.since_id),"
        "        upto_id = max(upto_id, excluded.upto_id)",
        (run, due_at, since_id, upto_id),
    )


def due(
    db: sqlite3.Connection, now: float, busy: Collection[str]
) -> tuple[Suspect | None, float | None]:
    """A suspect whose time has come and that is not busy; and when the next one is due."""
    for row in db.execute(f"{_DUE} ORDER BY due_at", (now,)):
        if row[0] not in busy:
            return _suspect(db, *row), now
    (next_due,) = db.execute("SELECT min(due_at) FROM suspects WHERE due_at > ?", (now,)).fetchone()
    return None, next_due


def of(db: sqlite3.Connection, run: str, now: float) -> Suspect | None:
    """The suspicion against a run as it stands now, if it is due."""
    row = db.execute(f"{_DUE} AND workflow_run_id = ?", (now, run)).fetchone()
    return None if row is None else _suspect(db, *row)


_DUE = "SELECT workflow_run_id, since_id, upto_id, seen FROM suspects WHERE due_at <= ?"


def _suspect(
    db: sqlite3.Connection, run: str, since_id: int, upto_id: int, seen: str | None
) -> Suspect:
    delivered = _delivered_since(db, run, since_id, upto_id)
    withdrawn = _withdrawn(db, run, since_id, upto_id)
    return Suspect(run, since_id, upto_id, delivered, withdrawn, json.loads(seen or "{}"))


def note(db: sqlite3.Connection, delivered: Collection[tuple[Run, Sequence[int]]]) -> None:
    """What the answers to deliveries (the run, its patches) show of what these have set.

    Of suspects only: it tells later whether something has changed since.
    """
    known = db.execute(
        "SELECT workflow_run_id, seen FROM suspects"
        " WHERE workflow_run_id IN (SELECT value FROM json_each(?))",
        (json.dumps([run.id for run, _ in delivered]),),
    ).fetchall()
    runs = {run.id: (run, patch_ids) for run, patch_ids in delivered} if known else {}
    for run_id, text in known:
        run, patch_ids = runs[run_id]
        rows = db.execute(
            f"SELECT {_COLUMNS} FROM outbox WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(patch_ids)),),
        )
        seen = json.loads(text or "{}") | shown(run, [_waiting(row) for row in rows])
        db.execute(
            "UPDATE suspects SET seen = ? WHERE workflow_run_id = ?", (json.dumps(seen), run_id)
        )


def put_off(db: sqlite3.Connection, suspect: Suspect, due_at: float) -> None:
    """It could not be read back: others have their turn before it is tried again."""
    db.execute(
        "UPDATE suspects SET due_at = max(due_at, ?) WHERE workflow_run_id = ?",
        (due_at, suspect.run),
    )


def clear(db: sqlite3.Connection, suspect: Suspect) -> None:
    """The run is beyond suspicion, unless something new has come up meanwhile."""
    db.execute(
        "DELETE FROM suspects WHERE workflow_run_id = ? AND since_id = ? AND upto_id = ?",
        (suspect.run, suspect.since_id, suspect.upto_id),
    )


def send_again(db: sqlite3.Connection, suspect: Suspect, keys: Collection[str]) -> Collection[int]:
    """These keys of the run are not seen to be right: what it takes to mend them is pending again.

    Returns the patches.
    """
    going = repair.again(_chain(db, suspect.run, suspect.since_id), keys)
    if going:
        _unchain(db, suspect.run, going)
        db.executemany(
            "UPDATE outbox SET state = 'pending', reason = 'unconfirmed', settled_at = NULL,"
            "       previous_id = NULL, leaves_out = ?"
            " WHERE id = ? AND state = 'delivered'",
            [
                (json.dumps(sorted(leaves_out)) if leaves_out else None, patch_id)
                for patch_id, leaves_out in going.items()
            ],
        )
    clear(db, suspect)
    return going.keys()


def _unchain(db: sqlite3.Connection, run: str, going: Collection[int]) -> None:
    """Take patches out of the chain of the run's delivered ones."""
    oldest = min(going)
    newer: int | None = None  # the last one met that stays
    gap = False  # between it and this one
    for patch in _chain(db, run, oldest):
        if patch.id in going:
            gap = True
            continue
        if gap:
            _let_follow(db, run, newer, patch.id)
        newer, gap = patch.id, False
    (before,) = db.execute("SELECT previous_id FROM outbox WHERE id = ?", (oldest,)).fetchone()
    _let_follow(db, run, newer, before)


def _let_follow(db: sqlite3.Connection, run: str, newer: int | None, patch_id: int | None) -> None:
    """Behind a patch of the chain comes this one; or it is the head."""
    if newer is None:
        db.execute(
            "UPDATE snapshots SET last_patch_id = ? WHERE workflow_run_id = ?", (patch_id or 0, run)
        )
    else:
        db.execute("UPDATE outbox SET previous_id = ? WHERE id = ?", (patch_id, newer))


def begin(db: sqlite3.Connection, now: float, suspect_s: float) -> bool:
    """A daemon starts. True if the one before it has not stopped in order.

    Then whatever waits may have been in flight, and the first delivery to each such run makes it
    suspect for as long as a request of the old daemon may live.
    """
    # A clock that was put back while nobody ran makes nobody wait for longer.
    db.execute("UPDATE suspects SET due_at = ?1 WHERE due_at > ?1", (now + suspect_s,))
    if (text := fact(db, UNCLEAN)) is not None:
        known = json.loads(text)
        until = min(known["until"], now + suspect_s)
        set_fact(db, UNCLEAN, json.dumps(known | {"until": until}))
    unclean = fact(db, RUNNING) is not None
    if unclean:
        upto_id = db.execute("SELECT max(id) FROM outbox").fetchone()[0] or 0
        value = json.dumps({"until": now + suspect_s, "upto_id": upto_id})
        set_fact(db, UNCLEAN, value)
    set_fact(db, RUNNING, str(now))
    return unclean


def end(db: sqlite3.Connection) -> None:
    """A daemon stops in order: nothing of it is in flight."""
    set_fact(db, RUNNING, None)


def delivered_after_unclean_stop(
    db: sqlite3.Connection, now: float, firsts: Collection[tuple[str, int]]
) -> None:
    """First deliveries (run, oldest patch) while a dead daemon's requests may still be alive.

    What an operator has withdrawn may have been in flight too: nobody runs who would know.
    """
    text = fact(db, UNCLEAN)
    if text is None:
        return
    unclean = json.loads(text)
    if now > unclean["until"]:
        set_fact(db, UNCLEAN, None)
        return
    for run, oldest in firsts:
        (withdrawn,) = db.execute(
            "SELECT min(id) FROM outbox WHERE workflow_run_id = ? AND reason = 'operator'"
            " AND state IN ('dead', 'held', 'discarded')",
            (run,),
        ).fetchone()
        since_id = min(oldest, withdrawn or oldest)
        if since_id <= unclean["upto_id"]:
            add(db, run, unclean["until"], since_id, unclean["upto_id"])


def _delivered_since(
    db: sqlite3.Connection, run: str, since_id: int, upto_id: int
) -> list[Waiting]:
    """The run's delivered patches from an id on that count, oldest first.

    If there are too many of them: the newest, of the older ones those that are the last to give
    a key its value, and the oldest of those that a late request may carry.
    """
    newest, last, carried = list[Waiting](), list[Waiting](), deque[Waiting](maxlen=MOST)
    keys: set[str] = set()
    for patch in _chain(db, run, since_id):
        if len(newest) < MOST:
            newest.append(patch)
            continue
        keys = keys or {key for one in newest for key in _keys(one)}
        if len(last) < MOST and not keys.issuperset(_keys(patch)):
            last.append(patch)
            keys |= _keys(patch)
        elif patch.id <= upto_id:
            carried.append(patch)
    return sorted([*newest, *last, *carried], key=lambda patch: patch.id)


def _chain(db: sqlite3.Connection, run: str, since_id: int) -> Iterator[Waiting]:
    """The run's delivered patches from an id on, newest first."""
    head = db.execute(
        "SELECT last_patch_id FROM snapshots WHERE workflow_run_id = ?", (run,)
    ).fetchone()
    following = head[0] if head else None
    while following is not None and following >= since_id:
        row = db.execute(
            f"SELECT {_COLUMNS}, previous_id FROM outbox WHERE id = ?", (following,)
        ).fetchone()
        if row is None:
            break
        yield _waiting(row)
        following = row[5]


def _keys(patch: Waiting) -> frozenset[str]:
    try:
        return keys_of(patch.name, patch.metadata) - patch.leaves_out
    except ValueError:
        return frozenset()


def _withdrawn(db: sqlite3.Connection, run: str, since_id: int, upto_id: int) -> list[Waiting]:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM outbox"
        " WHERE workflow_run_id = ? AND state IN ('dead', 'held', 'discarded')"
        "   AND id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        (run, since_id, upto_id, MOST),
    )
    return [_waiting(row) for row in rows]


_COLUMNS = "id, name, metadata, created_at, leaves_out"


def _waiting(row: tuple[Any, ...]) -> Waiting:
    leaves_out = frozenset(json.loads(row[4])) if row[4] else frozenset()
    return Waiting(row[0], row[1], row[2], row[3], leaves_out)
