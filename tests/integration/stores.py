"""Stores on real files for tests: one that is open, its clock, and what a producer does to it."""

import sqlite3
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from syncd.core.answer import Run
from syncd.core.outcome import Blame, Trouble
from syncd.core.patch import Patch
from syncd.core.settlement import Dead, Deferred, Delivered, RunDead
from syncd.store import Cursor, Page, Store
from syncd.store.schema import open_writer

NOON = 1_770_638_400.0  # 2026-02-09T12:00:00Z


class Wall:
    """A wall clock that stands still until it is moved."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(path: Path, wall: Wall | None = None) -> AsyncIterator[Store]:
    """A store for the length of the block."""
    store = await Store.open(path, wall or Wall())
    try:
        yield store
    finally:
        await store.close()


def made(path: Path) -> Path:
    """A database of ours, closed."""
    open_writer(path).close()
    return path


def insert(path: Path, *rows: tuple[str, str | None, str | None]) -> None:
    """What a producer does: (run, name, metadata) rows in one transaction of its own."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany(
            "INSERT INTO outbox (workflow_run_id, name, metadata) VALUES (?, ?, ?)", rows
        )


def rows(path: Path, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
    """What another process reads."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(sql, arguments).fetchall()


def count(store: Store) -> int:
    """Committed patches, as another process sees them."""
    return int(rows(store.path, "SELECT count(*) FROM outbox")[0][0])


def states(path: Path) -> dict[int, str]:
    """The state of every patch, by id."""
    return dict(rows(path, "SELECT id, state FROM outbox"))


STRETCH = 1 << 16  # ids to a stretch of the index by run


async def give_ids_after(store: Store, last: int) -> None:
    """As if so many patches had come and gone."""
    await store._writer.run(
        lambda db: db.execute(
            "INSERT INTO sqlite_sequence SELECT 'outbox', 0 WHERE NOT EXISTS ("
            " SELECT 1 FROM sqlite_sequence WHERE name = 'outbox')"
        )
    )
    await store._writer.run(
        lambda db: db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'outbox'", (last,))
    )


async def fill(store: Store, *patches: tuple[str, str] | tuple[str, str, int]) -> list[int]:
    """Accept (run, metadata) or (run, metadata, priority) patches; their ids."""
    accepted = await store.accept(
        [Patch(p[0], metadata=p[1], priority=p[2] if len(p) == 3 else 0) for p in patches]
    )
    assert accepted.first_id is not None
    assert accepted.last_id is not None
    return list(range(accepted.first_id, accepted.last_id + 1))


ONE = [Patch("r", "n")]


def run(run_id: str, metadata: str = "{}", **fields: str | None) -> Run:
    """A WorkflowRun as the vendor may send it."""
    raw = f'{{"object":"workflow_run","id":"{run_id}","metadata":{metadata}}}'.encode()
    return Run(run_id, raw, fields.get("status", "PROCESSED"), fields.get("name"), metadata)


def delivered(
    run_id: str, *ids: int, metadata: str = "{}", troubled: bool = False, **fields: str | None
) -> Delivered:
    return Delivered(run(run_id, metadata, **fields), ids, troubled)


def trouble(blame: Blame = Blame.PATCH, code: str = "INVALID_REQUEST") -> Trouble:
    return Trouble(blame, code, "what the vendor said", 400, "req_1")


def dead(run_id: str, *ids: int, code: str = "INVALID_REQUEST", troubled: bool = False) -> Dead:
    return Dead(run_id, ids, trouble(Blame.PATCH, code), troubled)


def run_dead(run_id: str) -> RunDead:
    return RunDead(run_id, trouble(Blame.RUN, "NOT_FOUND"))


def deferred(run_id: str, *ids: int, due_at: float, failures: int = 1) -> Deferred:
    return Deferred(run_id, due_at, failures, ids, trouble(Blame.SERVER, "http_503"))


async def defer(store: Store, run_id: str, *ids: int, due_at: float, failures: int = 1) -> None:
    await store.settle([deferred(run_id, *ids, due_at=due_at, failures=failures)])


NOBODY: frozenset[str] = frozenset()


async def walk(
    store: Store, limit: int = 100, loaded: Collection[str] = (), cursor: Cursor | None = None
) -> tuple[list[str], Page]:
    """Every run met from the cursor on, each loaded from then on, and the last page."""
    met: list[str] = []
    here = cursor or Cursor()
    while True:
        page = await store.page(here, {*loaded, *met}, limit)
        met += [lane.run for lane in page.lanes]
        here = page.cursor
        if page.exhausted:
            return met, page


def part(row: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """The fields of a row that the other one has: more may be added freely."""
    return {name: row.get(name) for name in like}


def plan(db: sqlite3.Connection, sql: str, arguments: Sequence[object] = ()) -> list[str]:
    """How SQLite would go about a query, a line for each step."""
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", arguments)]
