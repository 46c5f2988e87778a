"""How far it is, for each of what `syncd wait` can be asked to wait for.

An operator's discard is no delivery. Of one patch or one file that is named it counts whenever it
was; of a run or of all there is only since the wait began: what was discarded before is history.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from syncd.cli.door import Door, Query, read_row
from syncd.cli.printing import count, many, plain, seconds_since, span
from syncd.cli.status import current
from syncd.errors import SyncdError

ROWS = 1000  # looked at in one go
ANY_NUMBER = 1 << 62  # discarded ones: those that newer patches have made up for are among them
SILENT_S = 5.0  # of a batch, before a word is said of it: its command may only just have begun
NAMED = 20  # patches that will not arrive, by name

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """How far it is."""

    moving: int
    """Patches that may yet be delivered without anybody's help."""
    failed: tuple[str, ...] = ()
    """What will not arrive by itself, each in a few words."""
    files: int = 0
    """Files that are not taken in, or not to their end: nobody has counted their patches yet."""
    anything: bool = True
    """Something has been delivered: it is not that there was nothing at all to wait for."""
    superseded: bool = False
    """It is one patch that will not go: newer ones of its run have set all of it."""
    note: str | None = None
    """What explains that it goes on, and nobody else can tell."""

    @property
    def goes_on(self) -> bool:
        """Looking again may show more."""
        return bool(self.moving or self.files)

    def __str__(self) -> str:
        """What is still to go."""
        counted = [many(self.moving, "patch")] if self.moving or not self.files else []
        return " and ".join([*counted, *([many(self.files, "file")] if self.files else [])])


def look_at_patch(patch_id: int, to: Door, _: float) -> Look:
    """This patch."""
    found = to.one("patch", {"id": patch_id})
    if found is None:
        raise SyncdError(f"no patch {patch_id}: look with `syncd list`")
    row = read_row(found)
    failed = _named([row] if _has_failed(row) else [])
    superseded = row["state"] == "discarded" and not failed
    return Look(int(_is_moving(row)), failed, superseded=superseded)


def look_at_run(run: str, to: Door, begun: float) -> Look:
    """Everything for this run, but for what was discarded before the wait began."""
    rows = list(to.rows("patches", {"run": run, "limit": ROWS}))
    if len(rows) == ROWS and not any(map(_is_moving, rows)):
        # What is parked comes first: so much of it hides what waits.
        rows += _in_states(to, {"run": run}, ("pending", "in_flight"), 1)
    failed = [row for row in rows if row["state"] in _PARKED]
    if moving := sum(map(_is_moving, rows)):
        return Look(moving, _named(failed))
    anything = to.one("snapshot", {"run": run}) is not None
    if not rows and not anything:
        raise SyncdError(f"no patch for run {plain(run)}: look with `syncd list`")
    discarded, number = _discarded(to, {"run": run, "since": begun})
    return Look(0, _named([*failed, *discarded], len(failed) + number), anything=anything)


def look_at_all(to: Door, begun: float) -> Look:
    """All there is, files too, but for what was discarded before the wait began."""
    status = current(to)
    outbox = status["outbox"]
    moving, files = outbox["pending"] + outbox["in_flight"], status["spool"]["waiting"]
    if moving or files:
        return Look(moving, files=files)
    # Asked for even if there are none: a database that is not there has no rows to be told from.
    discarded, number = _discarded(to, {"since": begun})
    parked = outbox["dead"] + outbox["held"]
    failed = [*(_in_states(to, {}, _PARKED) if parked else ()), *discarded]
    return Look(0, _named(failed, parked + number), anything=outbox["delivered"] > 0)


def look_at_batch(name: str, to: Door, _: float) -> Look:
    """The newest file of that name."""
    # The spool first, in the order in which a file goes through it: it never moves back.
    on_its_way = any(_in_spool(to, folder, name) for folder in ("incoming", "taking"))
    newest = next(to.rows("batches", {"name": name, "limit": 1}), None)
    if on_its_way:
        return Look(0, files=1)
    if newest is None:
        if _in_spool(to, "rejected", name):
            return Look(0, (_rejected(to, name),))
        raise SyncdError(f"no batch of the name {plain(name)}: look with `syncd batches`")
    moving = newest["waiting"] - newest["held"]
    if newest["closed_at"] is None:  # more of it may come; a killed command is found out later
        return Look(moving, files=1, note=_unattended(newest))
    by_command = newest["source"] == "enqueue"
    taken = newest["accepted"] + newest["duplicates"]
    if newest["refused"] is not None and not taken and not by_command:
        return Look(0, (_rejected(to, name),))
    if moving:
        return Look(moving)
    since = newest["created_at"]  # not of an older file of that name
    parked = _in_states(to, {"batch": name}, _PARKED)
    rows = [row for row in parked if row["created_at"] >= since]
    discarded, number = _discarded(to, {"batch": name}, since) if newest["discarded"] else ([], 0)
    failed = _named([*rows, *discarded], newest["held"] + newest["dead"] + number)
    if newest["refused"] is not None:
        what = "was not handed in" if by_command else "could not be read"
        failed += (f"the rest of {plain(name)} {what}: {plain(newest['refused'])}",)
    if newest["rejected"]:
        where = f"see {to.paths.spool}/rejected"
        if by_command:
            where = f"`syncd enqueue` has named {_by_command(newest['rejected'])}"
        failed += (f"{many(newest['rejected'], 'line')} rejected: {where}",)
    return Look(0, failed)


_PARKED = ("dead", "held")


def _in_states(to: Door, query: Query, states: Iterable[str], limit: int = ROWS) -> Iterator[Row]:
    for state in states:
        yield from to.rows("patches", {**query, "state": state, "limit": limit})


def _discarded(to: Door, query: Query, created: str = "") -> tuple[list[Row], int]:
    """By an operator, of what was handed in from that instant on: the first, and how many."""
    rows = _in_states(to, query, ["discarded"], ANY_NUMBER)
    failed = (row for row in rows if _has_failed(row) and row["created_at"] >= created)
    first = list(islice(failed, NAMED))
    return first, len(first) + sum(1 for _ in failed)


def _is_moving(row: Row) -> bool:
    return row["state"] in ("pending", "in_flight")


def _has_failed(row: Row) -> bool:
    """A patch that was discarded because newer ones say it all has arrived with them."""
    if row["state"] == "discarded":
        return bool(row["reason"] != "superseded")
    return row["state"] in _PARKED


def _named(rows: Sequence[Row], total: int = 0) -> tuple[str, ...]:
    """The first of them by name, and how many more there are of `total`."""
    total = max(total, len(rows))
    lines = [_name(row) for row in rows[:NAMED]]
    if total > len(lines):
        lines.append(f"and {many(total - len(lines), 'patch')} more: look with `syncd list`")
    return tuple(lines)


def _name(row: Row) -> str:
    line = f"patch {row['id']} for {plain(row['workflow_run_id'])} is {row['state']}"
    error = row["last_error"]
    if row["state"] == "dead" and error:
        return f"{line}: {plain(error['code'])}: {plain(error['message'])}"
    return f"{line} by an operator"


def _rejected(to: Door, name: str) -> str:
    return f"{plain(name)} was rejected as a whole: see {to.paths.spool}/rejected"


def _unattended(batch: Row) -> str | None:
    """No command is known to hand in the rest. One that writes into the file may be there yet."""
    from syncd.store.accept import ABANDONED_S

    silent_s = seconds_since(batch.get("unattended_since"), time.time())
    if silent_s is None or silent_s < SILENT_S:
        return None
    return (
        f"no command is known to hand in the rest of {plain(batch['name'])}: unless more comes, it"
        f" is given up {ABANDONED_S:.0f} s after its last sign of life, which was"
        f" {span(silent_s)} ago"
    )


def _by_command(rejected: int) -> str:
    """Which of so many rejected lines it has named: nobody else keeps them."""
    from syncd.cli.tally import KEPT, NAMED

    if rejected <= NAMED:
        return "them"
    return f"the first {NAMED}, with --json " + (
        "all of them" if rejected <= KEPT else f"the first {count(KEPT)}"
    )


def _in_spool(to: Door, folder: str, name: str) -> bool:
    return "/" not in name and os.path.lexists(to.paths.spool / folder / name)
