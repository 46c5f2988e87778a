"""Answers of any length: a part in memory at a time, and nobody who waits for their reader."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from stores import NOON, dead, delivered, fill

from syncd.store import Query, Selection, Store, read
from syncd.store.found import PART_BYTES, PART_ROWS

MANY = 5 * PART_ROWS + 1


async def parts(store: Store, query: Query) -> AsyncIterator[list[dict[str, Any]]]:
    """Each part of the answer, decoded."""
    async with store.parts(query) as next_part:
        while part := await next_part():
            yield [json.loads(line) for line in part.splitlines()]


def patches(**wanted: Any) -> Query:
    return lambda db: read.patches(db, NOON, limit=None, **wanted)


async def batches(store: Store) -> None:
    for n in range(MANY):
        place = await store.open_batch(f"{n}.csv", "enqueue")
        await store.close_batch(place.batch_id)


async def snapshots(store: Store) -> None:
    ids = await fill(store, *[(f"r{n}", "{}") for n in range(MANY)])
    await store.settle([delivered(f"r{n}", i, metadata='{"k":1}') for n, i in enumerate(ids)])


async def pending(store: Store) -> None:
    await fill(store, *[(f"r{n}", "{}") for n in range(MANY)])


@pytest.mark.parametrize(
    ("filling", "query"),
    [
        (pending, patches()),
        (pending, patches(state="pending")),
        (snapshots, patches(state="delivered")),
        (snapshots, read.runs),
        (snapshots, lambda db: read.runs(db, status="PROCESSED", where=[("k", "1")])),
        (batches, lambda db: read.batches(db, limit=None)),
    ],
)
async def test_an_answer_of_any_length_comes_in_parts_of_a_bounded_size(
    store: Store, filling: Callable[[Store], Any], query: Query
) -> None:
    await filling(store)

    sizes = [len(part) async for part in parts(store, query)]

    assert sizes == [PART_ROWS] * 5 + [1]


async def test_long_rows_make_a_part_of_fewer(store: Store) -> None:
    long = json.dumps({"x": "y" * 10_000})
    await fill(store, *[(f"r{n}", long) for n in range(100)])

    async with store.parts(patches()) as next_part:
        sizes = [len(part) for part in [await next_part() for _ in range(6)] if part]

    assert sum(sizes) > 100 * len(long)
    assert max(sizes) < PART_BYTES + 2 * len(long)


async def test_every_row_comes_once_in_the_order_of_a_short_answer(store: Store) -> None:
    await snapshots(store)

    ids = [row["id"] async for part in parts(store, patches()) for row in part]

    assert ids == list(range(MANY, 0, -1))


async def test_nothing_is_held_while_a_part_is_read(store: Store) -> None:
    """Whoever leaves an answer lying, as `less` does, keeps the log from nothing."""
    await pending(store)

    async with store.parts(patches()) as next_part:
        await next_part()
        await fill(store, ("later", "{}"))
        with closing(sqlite3.connect(store.path)) as db:
            blocked = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    assert blocked == (0, 0, 0)


async def test_a_row_is_shown_as_it_is_when_it_is_read(store: Store) -> None:
    """And one that is no longer what was asked for is left out."""
    await pending(store)

    async with store.parts(patches(state="pending")) as next_part:
        first = await next_part()
        await store.settle([dead(f"r{MANY - 1}", MANY)])
        rest = [part async for part in aiter_of(next_part)]

    shown = [json.loads(line)["id"] for part in (first, *rest) for line in part.splitlines()]
    assert shown == list(range(1, MANY))


async def aiter_of(next_part: Callable[[], Any]) -> AsyncIterator[bytes]:
    while part := await next_part():
        yield part


def endless(db: sqlite3.Connection) -> Iterator[read.Row]:
    """A search that takes longer than anybody waits."""
    count = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"
    yield {"sum": db.execute(count).fetchone()}


@pytest.mark.timeout(20)
async def test_delivery_goes_on_during_a_search_and_leaving_ends_it(store: Store) -> None:
    await fill(store, ("r", "{}"), ("s", "{}"))

    async with store.parts(endless) as next_part:
        searching = asyncio.ensure_future(next_part())
        lane = await store.lane("r")
        await store.settle([delivered("r", 1)])
        await store.operate("hold", Selection(run="s"), in_flight=())
        found = searching.done()

    assert lane is not None
    assert not found
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await searching
