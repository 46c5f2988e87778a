"""Reading lanes: what waits for some runs, in arrival order, as it stands in the outbox."""

import json
import sqlite3
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any

import orjson

from syncd.core.fold import MAX_BODY_METADATA, MAX_MEMBERS, Waiting
from syncd.core.schedule import Lane

TOP = (1 << 63) - 1  # above every priority
LANE_BYTES = 2 * MAX_BODY_METADATA  # more of one lane than a request can carry is not loaded
AT_ONCE = 32  # lanes in one statement; of patches as large as can be they are 32 MB for a moment
REPLACED = "\ufffd"  # what bytes that are not UTF-8 are read as

Row = list[Any]

# One row for many lanes: at each step of a statement this thread gives up the interpreter's lock,
# and waits to get it back. Within a lane the rows come by id, which is how IN walks a list.
_LANES = """
SELECT json_group_array(json_array(asked.key, patch.id, patch.name, patch.metadata,
                                   patch.created_at, patch.leaves_out, patch.priority,
                                   lanes.failures))
  FROM json_each(?1) AS asked
 CROSS JOIN outbox AS patch
  LEFT JOIN lanes ON lanes.workflow_run_id = asked.value
 WHERE patch.id IN (SELECT id FROM outbox
                     WHERE stretch IN stretches AND workflow_run_id = asked.value
                       AND state = 'pending' AND id > ?3
                     ORDER BY stretch, id LIMIT ?2)
"""


def load_lanes(db: sqlite3.Connection, runs: Collection[str], after_id: int = 0) -> list[Lane]:
    """The lanes of these runs, in the order given, without those for which nothing waits.

    With `after_id`, what of them lies beyond that patch.
    """
    asked, lanes = list(runs), []
    for begin in range(0, len(asked), AT_ONCE):
        some = asked[begin : begin + AT_ONCE]
        limit = MAX_MEMBERS + 1
        (found,) = db.execute(_LANES, (orjson.dumps(some).decode(), limit, after_id)).fetchone()
        for number, rows in groupby(orjson.loads(found), key=lambda row: row[0]):
            lanes.append(_lane(db, some[number], list(rows)))
    return lanes


def load_lane(db: sqlite3.Connection, run: str, after_id: int = 0) -> Lane | None:
    """The lane of a run as it stands in the outbox; None if nothing of it waits."""
    return next(iter(load_lanes(db, [run], after_id)), None)


def is_readable(db: sqlite3.Connection, patch_id: int, *texts: str | None) -> bool:
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


def _lane(db: sqlite3.Connection, run: str, rows: Sequence[Row]) -> Lane:
    waiting: list[Waiting] = []
    size, more, priority, failures = 0, False, -TOP - 1, rows[0][-1]
    for _, patch_id, name, metadata, created_at, leaves_out, its_priority, _ in rows:
        if len(waiting) == MAX_MEMBERS or size > LANE_BYTES:
            more = True
            break
        waiting.append(
            Waiting(
                patch_id,
                name,
                metadata,
                created_at,
                frozenset(json.loads(leaves_out)) if leaves_out else frozenset(),
                its_priority,
                is_readable(db, patch_id, run, name, metadata),
            )
        )
        size += len(metadata or "") + len(name or "")
        priority = max(priority, its_priority)
    return Lane(run, priority, waiting, failures or 0, troubled=failures is not None, more=more)
