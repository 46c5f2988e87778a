"""What the rows know of why a patch is where it is. No look at a large outbox takes long."""

import json
import sqlite3
from dataclasses import asdict
from typing import Any

from syncd.core.plan import own_requests
from syncd.core.sending import Live, Out
from syncd.core.why import Ahead, Facts, Link, chain, expected_s
from syncd.store import ahead, plan, read
from syncd.store.read import Row, at_once, instant

NAMED = 10  # older patches that are named
PARKED = 10_000  # dead, held and discarded patches of a run that are counted
OWN_REQUESTS = 50  # of one run that are made up, to see which of them carries the patch
CHAIN = 1000  # delivered patches of one run that are looked at


def patch(db: sqlite3.Connection, patch_id: int, now: float, live: Live) -> Row | None:
    """Why one patch is where it is; None if there is none."""
    with at_once(db):
        found = db.execute("SELECT workflow_run_id FROM outbox WHERE id = ?", (patch_id,))
        known = found.fetchone()
        return None if known is None else _why(db, known[0], patch_id, now, live)


def run(db: sqlite3.Connection, run: str, now: float, live: Live) -> Row | None:
    """The same of the patch that a run has waited with for longest; None for an unknown run."""
    with at_once(db):
        first = db.execute(
            "SELECT id FROM outbox"
            " WHERE stretch IN stretches AND workflow_run_id = ? AND state = 'pending'"
            " ORDER BY stretch, id LIMIT 1",
            (run,),
        ).fetchone()
        row = _why(db, run, first[0] if first else None, now, live)
        return row if any(row["run"].values()) else None


def _why(db: sqlite3.Connection, run: str, patch_id: int | None, now: float, live: Live) -> Row:
    sending = live.sending
    row: Row = {
        "workflow_run_id": run,
        "patch": None,
        "causes": [],
        "place": None,
        "expected_s": None,
        "run": _run(db, run),
        "daemon": {
            "running": sending.state != "stopped",
            "state": sending.state,
            "reason": sending.reason,
            "probe": sending.probe,
            "moved": False,  # of a daemon that runs: who asks it finds out
            "last_error": read.last_error(db) if sending.by_api else None,
        },
    }
    if patch_id is None:
        return row
    facts = _facts(db, run, patch_id, now, live)
    seconds = expected_s(facts, sending, now)
    out = facts.out.patch_ids if facts.out else ()
    return row | {
        "patch": read.patch(db, patch_id, now, out),
        "causes": [_link(link) for link in chain(facts, sending, now)],
        "place": None if facts.ahead is None else _place(db, facts.ahead),
        "expected_s": None if seconds is None else round(seconds, 1),
    }


def _facts(db: sqlite3.Connection, run: str, patch_id: int, now: float, live: Live) -> Facts:
    state, reason, settled_at, due_at, failures, error, failed_at, watched_until = db.execute(
        "SELECT o.state, o.reason, o.settled_at, l.due_at, l.failures, l.last_error, l.failed_at,"
        "       s.due_at"
        "  FROM outbox AS o"
        "  LEFT JOIN lanes AS l ON l.workflow_run_id = o.workflow_run_id"
        "  LEFT JOIN suspects AS s ON s.workflow_run_id = o.workflow_run_id AND o.id >= s.since_id"
        " WHERE o.id = ?",
        (patch_id,),
    ).fetchone()
    if state != "pending":
        together = _together(db, run, patch_id, settled_at) if state == "delivered" else ()
        return Facts(patch_id, state, reason, settled_at, together, watched_until)
    out = live.out.get(run)
    if out is not None and patch_id in out.patch_ids:
        return Facts(patch_id, state, reason, out=out)
    older, older_patches = _older(db, run, patch_id, out)
    own, apart, found = 0, None, False
    lane = plan.standing(db, run, live)
    if lane is not None:
        for request in own_requests(lane, plan.rest(db), folding=live.folding, most=OWN_REQUESTS):
            if found := patch_id in request.patch_ids:
                break
            own, apart = own + 1, request.apart
    return Facts(
        patch_id,
        state,
        reason,
        out=out,
        older=older,
        older_patches=older_patches,
        own_requests=own,
        own_at_least=lane is not None and not found,
        apart=apart,
        due_at=due_at,
        failures=failures or 0,
        error=_said(error),
        failed_at=failed_at,
        ahead=ahead.ahead(db, run, patch_id if found else None, now, live),
    )


def _older(
    db: sqlite3.Connection, run: str, patch_id: int, out: Out | None
) -> tuple[tuple[int, ...], int]:
    """The first patches of a run that wait before one, and how many there are; not what is out."""
    before = (
        "  FROM outbox"
        " WHERE stretch IN stretches AND workflow_run_id = ?1 AND state = 'pending' AND id < ?2"
        "   AND id NOT IN (SELECT value FROM json_each(?3))"
    )
    given = (run, patch_id, json.dumps(out.patch_ids if out else ()))
    named = db.execute(f"SELECT id {before} ORDER BY stretch, id LIMIT {NAMED}", given)
    ids = tuple(row[0] for row in named)
    if len(ids) < NAMED:
        return ids, len(ids)
    counted = db.execute(f"SELECT count(*) FROM (SELECT 1 {before} LIMIT {ahead.COUNTED})", given)
    return ids, int(counted.fetchone()[0])


def _together(
    db: sqlite3.Connection, run: str, patch_id: int, settled_at: float
) -> tuple[int, ...]:
    """The patches of a run that were delivered by one answer: in one commit, at one instant."""
    newest = "SELECT last_patch_id FROM snapshots WHERE workflow_run_id = ?1"
    for begin in (newest, "SELECT ?2"):  # from its own place, if that is too far from the newest
        ids = [
            row[0]
            for row in db.execute(
                "WITH RECURSIVE chain (id, settled_at, previous_id) AS ("
                f" SELECT id, settled_at, previous_id FROM outbox WHERE id = ({begin})"
                " UNION ALL"
                " SELECT o.id, o.settled_at, o.previous_id"
                "   FROM chain JOIN outbox AS o ON o.id = chain.previous_id"
                f" LIMIT {CHAIN})"
                "SELECT id FROM chain WHERE settled_at = ?3 OR id = ?2 ORDER BY id",
                (run, patch_id, settled_at),
            )
        ]
        if patch_id in ids:
            return tuple(ids)
    return (patch_id,)


def _run(db: sqlite3.Connection, run: str) -> Row:
    """What else is known of the run."""
    (waiting,) = db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM outbox"
        "   WHERE stretch IN stretches AND workflow_run_id = ? AND state = 'pending'"
        f"  LIMIT {ahead.COUNTED})",
        (run,),
    ).fetchone()
    apart = dict(
        db.execute(
            "SELECT state, count(*) FROM (SELECT state FROM outbox"
            "   WHERE workflow_run_id = ? AND state IN ('dead', 'held', 'discarded')"
            f"  LIMIT {PARKED}) GROUP BY state",
            (run,),
        ).fetchall()
    )
    suspect = db.execute("SELECT due_at FROM suspects WHERE workflow_run_id = ?", (run,)).fetchone()
    snapshot = db.execute(
        "SELECT fetched_at, patch_ids FROM snapshots WHERE workflow_run_id = ?", (run,)
    ).fetchone()
    return {
        "waiting": waiting,
        "held": apart.get("held", 0),
        "dead": apart.get("dead", 0),
        "discarded": apart.get("discarded", 0),
        "suspect_until": instant(suspect[0]) if suspect else None,
        "snapshot": None
        if snapshot is None
        else {"fetched_at": instant(snapshot[0]), "patch_ids": json.loads(snapshot[1])},
    }


def _place(db: sqlite3.Connection, known: Ahead) -> Row:
    (waiting,) = db.execute("SELECT n FROM counters WHERE state = 'pending'").fetchone()
    return {
        "ahead": known.patches,
        "requests_ahead": known.requests,
        "at_least": known.at_least,
        "about": known.about,
        "waiting": waiting,
    }


def _link(link: Link) -> Row:
    """A cause with the numbers that it has; the others are left out."""
    fields: dict[str, Any] = {
        name: value for name, value in asdict(link).items() if value not in (None, ())
    }
    for name in ("since", "until"):
        if name in fields:
            fields[name] = instant(fields[name])
    return fields


def _said(error: str | None) -> str | None:
    known = json.loads(error) if error else None
    return f"{known['code']}: {known['message']}" if known else None
