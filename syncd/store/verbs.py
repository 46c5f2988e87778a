"""The operator's verbs on patches: retry, discard, hold, release."""

import json
import sqlite3
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from syncd.core.fold import NAME, keys_of

Verb = Literal["retry", "discard", "hold", "release"]
STATES: dict[Verb, tuple[str, ...]] = {
    "retry": ("dead", "pending"),
    "discard": ("pending", "held", "dead"),
    "hold": ("pending",),
    "release": ("held",),
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which patches a verb is for: exactly one of these is given."""

    ids: tuple[int, ...] = ()
    run: str | None = None
    reason: str | None = None
    everything: bool = False


@dataclass(slots=True)
class Touched:
    """What a verb did."""

    touched: int = 0
    in_flight: int = 0
    """Left alone, because a request is out with them …"""
    newer_in_flight: int = 0
    """… or, for so many of those, with a newer patch of the same keys."""
    superseded: int = 0
    """Discarded instead: newer patches have set all that they would."""
    unclear: int = 0
    """Left alone, because what newer patches have set cannot be told from their metadata."""
    waiting: int = 0
    """Left as they are: pending and not deferred, so that there was nothing to retry."""
    first: tuple[int, str, bool] | None = None
    """Of `retry`: the oldest patch that may go by now, its run, and whether it is one of
    `waiting`."""
    left_out: dict[int, list[str]] = field(default_factory=dict)
    """By patch: the keys that newer patches have set, which will not be sent."""
    stopped: str | None = None
    """Why it was ended before it was through, if so: the rest is as it was."""

    def add(self, more: "Touched") -> None:
        """Another step of the same verb."""
        self.touched += more.touched
        self.in_flight += more.in_flight
        self.newer_in_flight += more.newer_in_flight
        self.superseded += more.superseded
        self.unclear += more.unclear
        self.waiting += more.waiting
        self.first = min(filter(None, (self.first, more.first)), default=None)
        self.left_out |= more.left_out


def chosen(db: sqlite3.Connection, verb: Verb, selection: Selection) -> Sequence[int]:
    """The ids of a selection now, for a verb that is done in steps. Eight bytes each."""
    if selection.ids:
        return [*dict.fromkeys(selection.ids)]
    states = ", ".join(f"'{state}'" for state in STATES[verb])
    sql, arguments = _query(selection, STATES[verb])
    found = db.execute(f"SELECT id FROM ({sql}) WHERE state IN ({states}) ORDER BY +id", arguments)
    return array("q", (row[0] for row in found))


def retry(
    db: sqlite3.Connection,
    selection: Selection,
    *,
    in_flight: Collection[int],
    now: float,
    force: bool,
) -> Touched:
    """Dead patches go back to pending, deferred ones are due now.

    A dead patch goes without what newer patches of its run have set since, unless `force`. A verb
    in steps says the same `now` in each: by that a run's other patches are known to be deferred,
    after a step before has made the run due.
    """
    touched = Touched()
    newer = _Newer(db, in_flight)
    for row in _youngest_first(_selected(db, selection, STATES["retry"])):
        before, waiting = touched.touched + touched.waiting, touched.waiting
        if row.id in in_flight:
            touched.in_flight += 1
        elif row.state == "dead":
            _give_back(db, row, touched, None if force else newer, now)
        else:
            deferred = db.execute(
                "UPDATE lanes SET due_at = ?1 WHERE workflow_run_id = ?2 AND due_at >= ?1",
                (now, row.run),
            ).rowcount
            touched.touched += deferred
            touched.waiting += not deferred
        if touched.touched + touched.waiting > before:
            touched.first = row.id, row.run, touched.waiting > waiting
    return touched


def release(
    db: sqlite3.Connection,
    selection: Selection,
    *,
    in_flight: Collection[int],
    now: float,
    force: bool,
) -> Touched:
    """Held patches go back to pending, as `retry` does it with dead ones."""
    touched = Touched()
    newer = _Newer(db, in_flight)
    for row in _youngest_first(_selected(db, selection, STATES["release"])):
        _give_back(db, row, touched, None if force else newer, now)
    return touched


def discard(
    db: sqlite3.Connection, selection: Selection, *, in_flight: Collection[int], now: float
) -> Touched:
    """Patches that are not delivered will never be."""
    return _move(db, selection, STATES["discard"], "discarded", in_flight=in_flight, now=now)


def hold(
    db: sqlite3.Connection, selection: Selection, *, in_flight: Collection[int], now: float
) -> Touched:
    """Pending patches stay where they are until released."""
    return _move(db, selection, STATES["hold"], "held", in_flight=in_flight, now=now)


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    run: str
    state: str


def _selected(
    db: sqlite3.Connection, selection: Selection, states: tuple[str, ...]
) -> Iterator[_Row]:
    """The rows of a selection that are in one of the states, read before any is changed."""
    if selection.ids:
        rows = [
            row
            for patch_id in dict.fromkeys(selection.ids)
            for row in db.execute(_ROWS + "id = ?", (patch_id,))
        ]
    else:
        # Sorted here: an ORDER BY id tempts SQLite to walk the whole table in that order.
        rows = sorted(db.execute(*_query(selection, states)))
    for row in (_Row(*values) for values in rows):
        if row.state in states:
            yield row


_ROWS = "SELECT id, workflow_run_id, state FROM outbox WHERE "


def _query(selection: Selection, states: tuple[str, ...]) -> tuple[str, tuple[object, ...]]:
    """Rows of a selection that does not name ids, some of them in other states."""
    if selection.run is not None:
        return (
            _ROWS + "(stretch IN stretches AND workflow_run_id = ?1 AND state = 'pending')"
            " OR (workflow_run_id = ?1 AND state IN ('dead', 'held', 'discarded'))",
            (selection.run,),
        )
    if selection.reason is not None:
        return _ROWS + "state IN ('dead', 'held') AND reason = ?", (selection.reason,)
    if selection.everything:
        # All of `retry --all`'s pending patches that matter are those of runs in trouble.
        waiting = "pending" in states and "dead" in states
        return (
            _ROWS + "state IN ('dead', 'held') UNION ALL " + _ROWS + "state = 'pending'"
            " AND (? OR workflow_run_id IN (SELECT workflow_run_id FROM lanes))",
            (not waiting or "held" in states,),
        )
    return _ROWS + "0", ()


def _youngest_first(rows: Iterable[_Row]) -> list[_Row]:
    """As `_Newer` wants them."""
    return sorted(rows, key=lambda row: row.id, reverse=True)


def _give_back(
    db: sqlite3.Connection, row: _Row, touched: Touched, newer: "_Newer | None", now: float
) -> None:
    name, metadata = db.execute(
        "SELECT name, metadata FROM outbox WHERE id = ?", (row.id,)
    ).fetchone()
    own = set_since = frozenset[str]()
    if newer is not None:
        try:
            own = keys_of(name, metadata)
            if own & newer.keys_in_flight(row):  # set by it, or refused: nobody knows yet
                touched.in_flight += 1
                touched.newer_in_flight += 1
                return
            set_since = own & newer.keys_since(row)
        except ValueError:  # what it would undo cannot be told: it goes by `force` only
            touched.unclear += 1
            return
    if own and own == set_since:
        touched.superseded += 1
        _finish(db, row.id, "discarded", "superseded", now)
        return
    touched.touched += 1
    if set_since:
        touched.left_out[row.id] = sorted("name" if key == NAME else key for key in set_since)
    db.execute(
        "UPDATE outbox SET state = 'pending', reason = NULL, settled_at = NULL, leaves_out = ?"
        " WHERE id = ?",
        (json.dumps(sorted(set_since)) if set_since else None, row.id),
    )


class _Newer:
    """What newer patches of a run have set, and what they are setting now.

    Newer ones that still wait do not count: they will go after the one that is asked about. The
    delivered ones of a run are a chain, which is walked once for all of them: ask about the
    youngest patch first.
    """

    def __init__(self, db: sqlite3.Connection, in_flight: Collection[int]) -> None:
        self._db = db
        self._in_flight = sorted(in_flight, reverse=True)
        self._walks: dict[str, tuple[int | None, set[str]]] = {}

    def keys_since(self, row: _Row) -> frozenset[str]:
        """Raises ValueError where they cannot be told."""
        following, keys = self._walks.get(row.run) or (self._head(row.run), set())
        while following is not None and following > row.id:
            newer = self._db.execute(
                "SELECT name, metadata, leaves_out, previous_id FROM outbox WHERE id = ?",
                (following,),
            ).fetchone()
            if newer is None:
                following = None
                break
            keys |= keys_of(newer[0], newer[1]) - frozenset(json.loads(newer[2] or "[]"))
            following = newer[3]
        self._walks[row.run] = following, keys
        return frozenset(keys)

    def keys_in_flight(self, row: _Row) -> frozenset[str]:
        """Raises ValueError where they cannot be told."""
        keys: set[str] = set()
        for patch_id in self._in_flight:
            if patch_id <= row.id:
                break
            newer = self._db.execute(
                "SELECT name, metadata FROM outbox WHERE id = ? AND workflow_run_id = ?",
                (patch_id, row.run),
            ).fetchone()
            if newer is not None:
                keys |= keys_of(*newer)
        return frozenset(keys)

    def _head(self, run: str) -> int | None:
        head = self._db.execute(
            "SELECT last_patch_id FROM snapshots WHERE workflow_run_id = ?", (run,)
        ).fetchone()
        return head[0] if head else None


def _move(
    db: sqlite3.Connection,
    selection: Selection,
    states: tuple[str, ...],
    state: str,
    *,
    in_flight: Collection[int],
    now: float,
) -> Touched:
    touched = Touched()
    for row in _selected(db, selection, states):
        if row.id in in_flight:
            touched.in_flight += 1
            continue
        touched.touched += 1
        _finish(db, row.id, state, "operator", now if state == "discarded" else None)
    return touched


def _finish(
    db: sqlite3.Connection, patch_id: int, state: str, reason: str, settled_at: float | None
) -> None:
    db.execute(
        "UPDATE outbox SET state = ?, reason = ?, settled_at = ? WHERE id = ?",
        (state, reason, settled_at, patch_id),
    )
