"""Whether the sandbox holds exactly what was asked for: computed apart from all of syncd's code."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncd.cli.demo.patches import Source

Row = tuple[str | None, str, str | None, dict[str, Any]]
"""Of the outbox: its file's name, the run, the name, the metadata."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was asked for, and what came of it."""

    asked: int
    arrived: int
    """Patches of the outbox that were delivered."""
    taken_once: bool
    """Every source is in the outbox as it was handed in, each patch once, in its order."""
    runs: int
    differing: tuple[str, ...]
    """Runs in another state than patches applied one by one would have left them in."""
    cached_wrong: tuple[str, ...]
    """Runs whose snapshot is not what the sandbox has."""
    requests: int
    failures: Mapping[str, int]
    """What went wrong on purpose, how often."""
    over_the_limit: int
    at_once_per_run: int

    @property
    def holds(self) -> bool:
        """Whether the promise was kept."""
        return (
            self.arrived == self.asked
            and self.taken_once
            and not self.differing
            and not self.cached_wrong
            and self.over_the_limit == 0
            and self.at_once_per_run <= 1
        )


def prove(
    handed_in: Sequence[Source], database: Path, books: Mapping[str, Any], runs: Mapping[str, Any]
) -> Proof:
    """Compare what was handed in, the database and the sandbox.

    `books` are the sandbox's counts, `runs` its state: {id: {"name": …, "metadata": {…}}}.
    """
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        rows = list(_rows(db))
        (arrived,) = db.execute("SELECT count(*) FROM outbox WHERE state = 'delivered'").fetchone()
        cached = _cached(db)
    expected = applied_one_by_one(rows)
    return Proof(
        asked=sum(len(source.wishes) for source in handed_in),
        arrived=arrived,
        taken_once=all(_is_whole(source, rows) for source in handed_in),
        runs=len(expected),
        differing=_differing(expected, runs),
        cached_wrong=_differing(cached, runs),
        requests=books["requests"],
        failures=books["faults"],
        over_the_limit=books["refused_429_limit"],
        at_once_per_run=books["max_in_flight_per_run"],
    )


def applied_one_by_one(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """The state of each run after its patches, in arrival order, none folded."""
    runs: dict[str, dict[str, Any]] = {}
    for _, run, name, metadata in rows:
        state = runs.setdefault(run, {"name": None, "metadata": {}})
        if name is not None:
            state["name"] = name
        state["metadata"].update(metadata)
    return runs


def _rows(db: sqlite3.Connection) -> Iterator[Row]:
    for batch, run, name, metadata in db.execute(
        "SELECT batches.name, workflow_run_id, outbox.name, metadata"
        "  FROM outbox LEFT JOIN batches ON batches.id = batch_id ORDER BY outbox.id"
    ):
        yield batch, run, name, json.loads(metadata or "{}")


def _cached(db: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    return {
        run: {"name": name, "metadata": json.loads(metadata or "{}")}
        for run, name, metadata in db.execute(
            "SELECT workflow_run_id, name, metadata FROM snapshots"
        )
    }


def _is_whole(source: Source, rows: Sequence[Row]) -> bool:
    taken = [row[1:] for row in rows if row[0] == source.batch]
    return taken == [(wish.run, wish.name, wish.metadata) for wish in source.wishes]


def _differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(run for run in sorted({*left, *right}) if left.get(run) != right.get(run))
