"""What the demo asks for, and the four ways in which it is handed in."""

import csv
import io
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

import orjson

PATCHES_PER_RUN = 5
BUSY_S = 10.0

_STATES = ("received", "read", "checked", "approved", "paid")
_REVIEWERS = ("user_1201", "user_1202", "user_1203", "user_1204", "user_1205")


@dataclass(frozen=True, slots=True)
class Wish:
    """One patch that the demo wants delivered."""

    run: str
    name: str | None
    metadata: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Source:
    """A way in. `batch` is the name of its file; rows have none."""

    title: str
    batch: str | None
    wishes: Sequence[Wish]


def wishes(count: int, seed: int) -> list[Wish]:
    """Several patches for each of a number of runs, in a random order that the seed repeats."""
    chance = Random(seed)
    runs = [
        f"workflow_run_{number:04}" for number in range(1, max(1, count // PATCHES_PER_RUN) + 1)
    ]
    return [_wish(chance.choice(runs), number, chance) for number in range(1, count + 1)]


def sources(all_wishes: Sequence[Wish]) -> list[Source]:
    """The wishes dealt out to three files and to rows."""
    titles = (("JSON", "orders.json"), ("JSONL", "reviews.jsonl"), ("CSV", "labels.csv"))
    dealt = [
        Source(title, batch, all_wishes[index::4]) for index, (title, batch) in enumerate(titles)
    ]
    dealt.append(Source("SQL", None, all_wishes[3::4]))
    return [source for source in dealt if source.wishes]


def hand_in(source: Source, spool: Path, database: Path) -> None:
    """As a producer does it: a file is renamed into place, rows are inserted."""
    if source.batch is None:
        _insert(database, source.wishes)
        return
    incoming = spool / "incoming"
    draft = incoming / f".{source.batch}.tmp"
    draft.write_bytes(_WRITERS[source.title](source.wishes))
    os.rename(draft, incoming / source.batch)


def _wish(run: str, number: int, chance: Random) -> Wish:
    metadata: dict[str, object] = {"internal_id": f"id_{number:05}"}
    if chance.random() < 0.6:
        metadata["state"] = chance.choice(_STATES)
    if chance.random() < 0.3:
        metadata["amount"] = round(chance.uniform(1, 5000), 2)
    if chance.random() < 0.1:
        metadata["review"] = {"by": chance.choice(_REVIEWERS), "done": chance.random() < 0.5}
    name = f"Invoice {number:05}" if chance.random() < 0.3 else None
    return Wish(run, name, metadata)


def _fields(wish: Wish) -> dict[str, object]:
    fields: dict[str, object] = {"workflow_run_id": wish.run, "metadata": wish.metadata}
    return fields if wish.name is None else {**fields, "name": wish.name}


def _json(some: Sequence[Wish]) -> bytes:
    return orjson.dumps([_fields(wish) for wish in some], option=orjson.OPT_INDENT_2)


def _jsonl(some: Sequence[Wish]) -> bytes:
    return b"".join(orjson.dumps(_fields(wish), option=orjson.OPT_APPEND_NEWLINE) for wish in some)


def _csv(some: Sequence[Wish]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    plain, typed = ("internal_id", "state"), ("amount", "review")
    writer.writerow(
        [
            "workflow_run_id",
            "name",
            *(f"metadata.{key}" for key in plain),
            *(f"metadata:json.{key}" for key in typed),
        ]
    )
    for wish in some:
        values = wish.metadata
        cells = [values.get(key, "") for key in plain]
        cells += [orjson.dumps(values[key]).decode() if key in values else "" for key in typed]
        writer.writerow([wish.run, wish.name or "", *cells])
    return text.getvalue().encode()


_WRITERS: dict[str, Callable[[Sequence[Wish]], bytes]] = {
    "JSON": _json,
    "JSONL": _jsonl,
    "CSV": _csv,
}


def _insert(database: Path, some: Sequence[Wish]) -> None:
    """Nothing but SQLite, as from any language."""
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as db, db:
        db.executemany(
            "INSERT INTO outbox (workflow_run_id, name, metadata) VALUES (?, ?, ?)",
            [(wish.run, wish.name, orjson.dumps(wish.metadata).decode()) for wish in some],
        )
