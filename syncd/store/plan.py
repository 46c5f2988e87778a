"""What would go next, from the rows: lanes are read as the relay reads them, nothing is taken."""

import sqlite3
from functools import partial

import orjson

from syncd.core.estimate import turn_s
from syncd.core.fold import MAX_MEMBERS
from syncd.core.plan import UNSENDABLE, Request, Rest, requests
from syncd.core.schedule import Lane
from syncd.core.sending import Live
from syncd.store.lane import load_lane, load_lanes
from syncd.store.page import due_lanes
from syncd.store.read import Row, at_once

LIMIT = 20
MOST = 500  # requests: the daemon holds an answer whole
LANES = 256  # read for it; as the relay does, because an older lane may go before the first met
ROWS = 20_000  # walked for them, if they can be had with that


def plan(db: sqlite3.Connection, now: float, live: Live, limit: int = LIMIT) -> list[Row]:
    """The next requests in their order, as if each were answered at once."""
    with at_once(db):
        lanes = lanes_to_go(db, now, live, limit)
        found = requests(lanes, rest(db), folding=live.folding)
        return [
            _row(turn, request, turn_s(turn, live.sending, now))
            for turn, request in zip(range(limit), found, strict=False)
        ]


def lanes_to_go(db: sqlite3.Connection, now: float, live: Live, limit: int) -> list[Lane]:
    """The lanes that may go, as far as so many requests need them."""
    wanted = max(LANES, limit)
    steady, _ = due_lanes(db, live.out, wanted, now)
    failing, _ = due_lanes(db, live.out, wanted - len(steady), now, failing=True)
    lanes = steady + failing
    met = {lane.run for lane in lanes} | live.out.keys()
    # A request takes up a hundred rows at most. Those of runs in trouble cost it a lookup each.
    walk = db.execute(
        "SELECT run FROM ("
        "  SELECT workflow_run_id AS run FROM outbox WHERE state = 'pending'"
        "   ORDER BY priority DESC, id LIMIT ?)"
        " WHERE NOT EXISTS (SELECT 1 FROM lanes WHERE workflow_run_id = run)",
        (max(ROWS, MAX_MEMBERS * limit),),
    )
    fresh: dict[str, None] = {}  # a set that keeps its order
    for (run,) in walk:
        if len(lanes) + len(fresh) >= wanted:
            break
        if run not in met:
            fresh[run] = None
    lanes += load_lanes(db, fresh)
    for lane in lanes:
        lane.alone_until = live.alone_until.get(lane.run, 0)
    # What is out for a run is answered first; what else waits for it may go then.
    return [*lanes, *filter(None, (standing(db, run, live) for run in live.out))]


def standing(db: sqlite3.Connection, run: str, live: Live) -> Lane | None:
    """The lane of a run without what is out; None if nothing else of it waits."""
    lane = load_lane(db, run)
    out = live.out.get(run)
    if lane is not None and out is not None:
        last = lane.waiting[-1].id
        lane.waiting = [patch for patch in lane.waiting if patch.id not in out.patch_ids]
        if not lane.waiting:
            lane = load_lane(db, run, last) if lane.more else None
    if lane is not None:
        lane.alone_until = live.alone_until.get(run, 0)
    return lane


def rest(db: sqlite3.Connection) -> Rest:
    """What the outbox has of a run beyond a patch."""
    return partial(load_lane, db)


def _row(turn: int, request: Request, expected_s: float | None) -> Row:
    apart = request.apart
    return {
        "turn": turn + 1,
        "workflow_run_id": request.run,
        "priority": request.priority,
        "patch_ids": request.patch_ids,
        "parked": UNSENDABLE if request.body is None else None,
        "apart": None
        if apart is None
        else {"patch_id": apart.patch_id, "reason": apart.barrier.value, "key": apart.key},
        "expected_s": None if expected_s is None else round(expected_s, 1),
        "body": None if request.body is None else orjson.Fragment(request.body),  # stays the last
    }
