"""What goes before a patch: counted in the index, and played where it is little."""

import json
import sqlite3
from itertools import islice

from syncd.core.fold import MAX_MEMBERS
from syncd.core.plan import requests
from syncd.core.sending import Live
from syncd.core.why import Ahead
from syncd.store.plan import lanes_to_go, rest, standing

COUNTED = 1_000_000  # rows of an index that are counted
SAMPLED = 10_000  # patches ahead whose runs are looked at, to reckon how many requests they are
PLAYED = 256  # with no more of them ahead, the requests are made up, and counted

# Two steps instead of one OR, so that each is a stretch of the index.
_BEFORE = (
    "SELECT {0} FROM outbox WHERE state = 'pending' AND priority > ?1 UNION ALL"
    " SELECT {0} FROM outbox WHERE state = 'pending' AND priority = ?1 AND id < ?2 LIMIT {1}"
)


def ahead(
    db: sqlite3.Connection, run: str, patch_id: int | None, now: float, live: Live
) -> Ahead | None:
    """What of other runs goes before a patch, None standing for one far back in its own run.

    None if nothing of the run waits for its turn.
    """
    out = json.dumps([patch_id for each in live.out.values() for patch_id in each.patch_ids])
    # The highest priority of a run pulls all of it forward.
    place = db.execute(
        "SELECT priority, id FROM (SELECT priority, id FROM outbox"
        "   WHERE stretch IN stretches AND workflow_run_id = ?1 AND state = 'pending'"
        "     AND id NOT IN (SELECT value FROM json_each(?2))"
        "   ORDER BY stretch, id LIMIT ?3)"
        " ORDER BY priority DESC, id LIMIT 1",
        (run, out, MAX_MEMBERS),
    ).fetchone()
    if place is None:
        return None
    rows = _BEFORE.format("1", COUNTED + 1)
    (patches,) = db.execute(f"SELECT count(*) FROM ({rows})", place).fetchone()
    # Those that are out have gone already, and those of a deferred run go later.
    rows = _BEFORE.format("id, workflow_run_id AS run", SAMPLED)
    sampled, going, runs = db.execute(
        "SELECT count(*), count(going), count(DISTINCT going) FROM ("
        "  SELECT CASE WHEN id IN (SELECT value FROM json_each(?3)) OR EXISTS ("
        "                SELECT 1 FROM lanes WHERE workflow_run_id = run AND due_at > ?4)"
        f"             THEN NULL ELSE run END AS going FROM ({rows}))",
        (*place, out, now),
    ).fetchone()
    if patch_id is not None and patches <= PLAYED:
        played = _played(db, run, patch_id, now, live)
        if played is not None:
            return Ahead(going, played)
    reckoned = runs if live.folding else going
    if patches <= sampled:
        return Ahead(going, reckoned, about=True)
    scaled = round(reckoned * patches / sampled)
    return Ahead(min(patches, COUNTED), scaled, at_least=patches > COUNTED, about=True)


def _played(db: sqlite3.Connection, run: str, patch_id: int, now: float, live: Live) -> int | None:
    """Requests of other runs before the one with a patch; None if it does not come up soon."""
    lanes = lanes_to_go(db, now, live, PLAYED)
    if run not in {lane.run for lane in lanes}:  # it is deferred
        lanes += filter(None, [standing(db, run, live)])
    others = 0
    found = requests(lanes, rest(db), folding=live.folding)
    for request in islice(found, 2 * PLAYED):
        if patch_id in request.patch_ids:
            return others
        others += request.run != run
    return None
