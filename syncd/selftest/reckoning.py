"""The reckoning after a history: were the promises of the contract kept?"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from syncd.core.fold import NAME
from syncd.core.patch import Patch
from syncd.selftest.merge import MODELS, Object, applied
from syncd.selftest.plan import Plan
from syncd.selftest.vendor import Vendor
from syncd.selftest.witness import mark_of
from syncd.store import integrity


def pending(db: sqlite3.Connection) -> int:
    """What still has to happen: patches that wait, runs that are suspect."""
    waiting = db.execute("SELECT n FROM counters WHERE state = 'pending'").fetchone()[0]
    return int(waiting + db.execute("SELECT count(*) FROM suspects").fetchone()[0])


def outbox_of(path: Path) -> str:
    """What the outbox says, but for the times."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT id, workflow_run_id, state, attempts, metadata FROM outbox")
        return repr(rows.fetchall())


def faults_found(
    path: Path, accepted: Mapping[str, Patch], vendor: Vendor, plan: Plan
) -> list[str]:
    """Every broken promise, as a line."""
    with closing(sqlite3.connect(path)) as db:
        return [*_ledger(db, accepted), *_states(db, vendor, plan)]


def _ledger(db: sqlite3.Connection, accepted: Mapping[str, Patch]) -> Iterator[str]:
    """Nothing lost, nothing twice, nothing miscounted, nothing left waiting."""
    rows: dict[str, tuple[int, str, str, str | None]] = {}
    for patch_id, metadata, state, error in db.execute(
        "SELECT id, metadata, state, last_error FROM outbox"
    ):
        mark = mark_of(metadata)
        if mark in rows:
            yield f"patch {patch_id} is there twice: {rows[mark][0]}"
        rows[mark] = (patch_id, metadata, state, error)
        if state == "dead" and error is None:
            yield f"patch {patch_id} is dead without a cause"
        if state == "dead" and "poison" not in metadata:
            yield f"patch {patch_id} is dead, but nothing was wrong with it"
    for mark, patch in accepted.items():
        if mark not in rows:
            yield f"{mark} was accepted and is gone"
        elif rows[mark][1] != patch.metadata:
            yield f"{mark} is another than was accepted"
    yield from integrity.miscounts(db)
    if waiting := pending(db):
        yield f"{waiting} patches or suspects still wait, long after the last fault"


def _states(db: sqlite3.Connection, vendor: Vendor, plan: Plan) -> Iterator[str]:
    """Each run is as if its delivered patches had been applied one by one, in order of arrival."""
    wanted: dict[str, dict[str, Object]] = {}
    names: dict[str, str] = {}
    tainted: set[str] = set()
    for run, name, metadata, state, leaves_out in db.execute(
        "SELECT workflow_run_id, name, metadata, state, leaves_out FROM outbox ORDER BY id"
    ):
        patch = json.loads(metadata)
        without = set(json.loads(leaves_out or "[]"))
        if state != "delivered":
            if mark_of(metadata) in vendor.applied_marks:
                tainted.add(run)  # an operator has discarded or held what had already arrived
            continue
        models = wanted.setdefault(run, {model: {} for model in MODELS})
        kept = {key: value for key, value in patch.items() if key not in without}
        for model in MODELS:
            models[model] = applied(model, models[model], kept)
        if name is not None and NAME not in without:
            names[run] = name
    late = plan.deaths or plan.faults.keys() & {"zombie"}
    checked = (vendor.reading,) if late else MODELS
    for run, models in wanted.items():
        stored = vendor.runs[run]
        if run in tainted:
            continue
        for model in checked:
            if stored.metadata[model] != models[model]:
                yield f"{run} ({model}): wanted {models[model]}, is {stored.metadata[model]}"
        if run in names and stored.name != names[run]:
            yield f"{run}: name wanted {names[run]!r}, is {stored.name!r}"
