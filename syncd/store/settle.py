"""Writing down what an answer meant: the patch's new state and the snapshot in one transaction."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import orjson
import zstandard

from syncd.core.outcome import Blame, Trouble
from syncd.core.settlement import Dead, Deferred, Delivered, Noted, RunDead, Settlement
from syncd.store import suspects
from syncd.store.facts import CLOSED_AT, CLOSED_UNTIL, LAST_ERROR, fact, set_fact

_compressor = zstandard.ZstdCompressor(level=1)
_decompress = zstandard.ZstdDecompressor().decompress


def settle(db: sqlite3.Connection, settlements: Sequence[Settlement], now: float) -> None:
    """Settle a group of answers, at most one for each run.

    Only pending patches change state: what an operator has decided meanwhile stands.
    """
    _deliver(db, [s for s in settlements if isinstance(s, Delivered)], now)
    for settlement in settlements:
        match settlement:
            case Deferred():
                _defer(db, settlement, now)
            case Dead():
                _park(db, settlement, now)
            case RunDead():
                _park_run(db, settlement, now)
            case Delivered() | Noted():
                pass
        if not isinstance(settlement, Delivered):
            set_fact(db, LAST_ERROR, _as_json(settlement.trouble, now))


def stay_silent(db: sqlite3.Connection, until: float, now: float) -> None:
    """The server asks for silence: what it has asked for before is not made shorter by that."""
    if until > float(fact(db, CLOSED_UNTIL) or 0.0):
        set_fact(db, CLOSED_UNTIL, str(until))
        set_fact(db, CLOSED_AT, str(now))


def untrouble(db: sqlite3.Connection, runs: Iterable[str]) -> None:
    """These lanes are no longer in trouble: they were delivered, or have nothing left to say."""
    db.executemany("DELETE FROM lanes WHERE workflow_run_id = ?", [(run,) for run in runs])


def recall(db: sqlite3.Connection, now: float) -> int:
    """The server is back: lanes that its failures have deferred are due now. Returns how many."""
    return db.execute("UPDATE lanes SET due_at = ?1 WHERE due_at > ?1", (now,)).rowcount


def body_of_snapshot(blob: bytes) -> bytes:
    """The WorkflowRun's own JSON text."""
    return _decompress(blob)


def _deliver(db: sqlite3.Connection, delivered: Sequence[Delivered], now: float) -> None:
    if not delivered:
        return
    (found,) = db.execute(
        "SELECT json_group_object(workflow_run_id, last_patch_id) FROM snapshots"
        " WHERE workflow_run_id IN (SELECT value FROM json_each(?))",
        (orjson.dumps([one.run.id for one in delivered]).decode(),),
    ).fetchone()
    heads = orjson.loads(found)
    chain = []
    for one in delivered:
        previous = heads.get(one.run.id)
        for patch_id in one.patch_ids:
            if previous is not None and patch_id < previous:
                chain.append((patch_id, _insert_into_chain(db, patch_id, previous)))
            else:
                chain.append((patch_id, previous))
                previous = patch_id
    db.execute(
        "UPDATE outbox"
        "   SET state = 'delivered', settled_at = ?1, last_error = NULL, reason = NULL,"
        "       previous_id = sent.value ->> 1"
        "  FROM json_each(?2) AS sent"
        " WHERE outbox.id = sent.value ->> 0 AND outbox.state = 'pending'",
        (now, orjson.dumps(chain).decode()),
    )
    # One call and one statement for all: at each that there is, this thread gives up the
    # interpreter's lock, and has to wait for the event loop to get it back.
    bodies = _compressor.multi_compress_to_buffer([one.run.raw for one in delivered])
    values: list[object] = []
    for at, one in enumerate(delivered):
        run, ids = one.run, one.patch_ids
        values += (run.id, now, run.status, run.name, run.metadata)
        values += (f"[{','.join(map(str, ids))}]", ids[-1], bodies[at].tobytes())
    db.execute(
        "INSERT INTO snapshots (workflow_run_id, fetched_at, status, name, metadata,"
        "                       patch_ids, last_patch_id, body)"
        f" VALUES {', '.join(['(?, ?, ?, ?, ?, ?, ?, ?)'] * len(delivered))}"
        " ON CONFLICT (workflow_run_id) DO UPDATE"
        "    SET fetched_at = excluded.fetched_at, status = excluded.status,"
        "        name = excluded.name, metadata = excluded.metadata,"
        "        patch_ids = excluded.patch_ids,"
        "        last_patch_id = max(last_patch_id, excluded.last_patch_id),"
        "        body = excluded.body",
        values,
    )
    untrouble(db, [one.run.id for one in delivered if one.troubled])
    firsts = [(one.run.id, one.patch_ids[0]) for one in delivered]
    suspects.delivered_after_unclean_stop(db, now, firsts)
    suspects.note(db, [(one.run, one.patch_ids) for one in delivered])


def _insert_into_chain(db: sqlite3.Connection, patch_id: int, head: int) -> int | None:
    """Find the place of a patch that was retried or released after newer ones had been delivered.

    The chain of a run's delivered patches (previous_id) is in the order of arrival. Returns the
    patch before it, having made the one behind it point to it.
    """
    behind: int | None = head
    while behind is not None:
        row = db.execute("SELECT previous_id FROM outbox WHERE id = ?", (behind,)).fetchone()
        before: int | None = row[0] if row else None
        if patch_id in (behind, before):
            return None  # settled already: its commit had seemed to fail
        if before is None or before < patch_id:
            db.execute("UPDATE outbox SET previous_id = ? WHERE id = ?", (patch_id, behind))
            return before
        behind = before
    return None


def _defer(db: sqlite3.Connection, one: Deferred, now: float) -> None:
    since_s = 0.0 if one.decided_at is None else now - one.decided_at
    db.execute(
        "INSERT INTO lanes (workflow_run_id, due_at, failures, upto_id, last_error, failed_at)"
        " VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (workflow_run_id) DO UPDATE"
        "    SET due_at = excluded.due_at, failures = excluded.failures,"
        "        upto_id = max(upto_id, excluded.upto_id),"
        "        last_error = excluded.last_error, failed_at = excluded.failed_at",
        (
            one.run_id,
            one.due_at + since_s,
            one.failures,
            one.ids[-1],
            _as_json(one.trouble, now),
            now,
        ),
    )
    if one.closed_until is not None:
        stay_silent(db, one.closed_until + since_s, now)
    if one.suspect_until is not None:
        suspects.add(db, one.run_id, one.suspect_until + since_s, one.ids[0], one.ids[-1])


def _park(db: sqlite3.Connection, one: Dead, now: float) -> None:
    code, error = one.trouble.code, _as_json(one.trouble, now)
    db.executemany(
        "UPDATE outbox"
        "   SET state = 'dead', settled_at = ?, attempts = attempts + ?, reason = ?, last_error = ?"
        " WHERE id = ? AND state = 'pending'",
        [
            # One that was given up for its age has had no answer of its own.
            (now, one.trouble.blame is not Blame.SERVER, code, error, patch_id)
            for patch_id in one.patch_ids
        ],
    )
    if one.troubled:
        untrouble(db, [one.run_id])


def _park_run(db: sqlite3.Connection, one: RunDead, now: float) -> None:
    db.execute(
        "UPDATE outbox"
        "   SET state = 'dead', settled_at = ?, attempts = attempts + 1, reason = ?, last_error = ?"
        " WHERE stretch IN stretches AND workflow_run_id = ? AND state = 'pending'",
        (now, one.trouble.code, _as_json(one.trouble, now), one.run_id),
    )
    untrouble(db, [one.run_id])


def _as_json(trouble: Trouble, now: float) -> str:
    return json.dumps(asdict(trouble) | {"at": now}, ensure_ascii=False)
