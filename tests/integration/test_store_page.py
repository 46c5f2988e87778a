"""Walking the outbox: every run that may go, in sending order, a page at a time."""

import asyncio
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import (
    NOBODY,
    NOON,
    STRETCH,
    dead,
    defer,
    delivered,
    fill,
    give_ids_after,
    insert,
    opened,
    plan,
    rows,
    walk,
)

from syncd.core.fold import MAX_BODY_METADATA, MAX_MEMBERS
from syncd.core.patch import Patch
from syncd.store import Cursor, Store, page
from syncd.store.lane import LANE_BYTES

# Order


async def test_an_empty_outbox_has_nothing(store: Store) -> None:
    found = await store.page(Cursor(), NOBODY, 10)

    assert (found.lanes, found.arrived, found.empty, found.exhausted) == ([], {}, [], True)
    assert found.next_due_at is None


async def test_runs_come_by_priority_then_by_their_oldest_patch(store: Store) -> None:
    await fill(store, ("c", "{}"), ("a", "{}"), ("b", "{}", 5), ("c", "{}", 5), ("d", "{}", -1))

    met, _ = await walk(store)

    assert met == ["b", "c", "a", "d"]


async def test_a_lane_has_its_runs_patches_in_arrival_order_whatever_their_priority(
    store: Store,
) -> None:
    ids = await fill(store, ("r", '{"a":1}'), ("s", "{}"), ("r", '{"b":2}', 9), ("r", "{}", -3))

    (lane, _) = (await store.page(Cursor(), NOBODY, 10)).lanes

    assert (lane.run, lane.priority) == ("r", 9)
    assert [patch.id for patch in lane.waiting] == [ids[0], ids[2], ids[3]]
    assert [patch.metadata for patch in lane.waiting] == ['{"a":1}', '{"b":2}', "{}"]
    assert not lane.troubled
    assert not lane.more


async def test_a_lane_is_whole_and_in_order_however_far_apart_its_patches_have_come(
    store: Store,
) -> None:
    ids = []
    for earlier in (0, STRETCH - 2, 3 * STRETCH - 1, 70 * STRETCH):
        await give_ids_after(store, earlier)
        ids += await fill(store, ("r", "{}"), ("s", "{}"), ("r", "{}"))
    await store.settle([delivered("r", ids[0]), dead("r", ids[2])])

    lane = await store.lane("r")

    assert lane is not None
    assert [patch.id for patch in lane.waiting] == [ids[n] for n in (3, 5, 6, 8, 9, 11)]
    assert (await walk(store))[0] == ["s", "r"]


@given(
    patches=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(-2, 2)), max_size=30),
    limit=st.integers(1, 5),
)
@settings(max_examples=30)
def test_a_walk_meets_every_run_once_and_in_order_whatever_the_size_of_a_page(
    patches: list[tuple[str, int]], limit: int
) -> None:
    async def walked() -> tuple[list[str], list[int]]:
        with tempfile.TemporaryDirectory() as folder:
            async with opened(Path(folder) / "s.db") as store:
                await store.accept([Patch(run, "n", priority=p) for run, p in patches])
                met, here, ids = [], Cursor(), []
                while True:
                    found = await store.page(here, frozenset(met), limit)
                    assert len(found.lanes) <= limit
                    met += [lane.run for lane in found.lanes]
                    ids += [patch.id for lane in found.lanes for patch in lane.waiting]
                    here = found.cursor
                    if found.exhausted:
                        return met, ids

    met, ids = asyncio.run(walked())

    turns = sorted((-priority, n, run) for n, (run, priority) in enumerate(patches))
    assert met == list(dict.fromkeys(run for _, _, run in turns))
    assert sorted(ids) == list(range(1, len(patches) + 1))


# Bounds


async def test_of_a_long_lane_only_what_one_request_can_carry_is_loaded(store: Store) -> None:
    await fill(store, *[("r", "{}")] * (MAX_MEMBERS + 5))

    (lane,) = (await store.page(Cursor(), NOBODY, 10)).lanes

    assert len(lane.waiting) == MAX_MEMBERS
    assert lane.more


async def test_of_a_heavy_lane_only_a_few_bytes_are_loaded(store: Store) -> None:
    heavy = '{"a":"' + "x" * (MAX_BODY_METADATA - 8) + '"}'
    await fill(store, *[("r", heavy)] * 20)

    (lane,) = (await store.page(Cursor(), NOBODY, 10)).lanes

    size = sum(len(patch.metadata or "") for patch in lane.waiting)
    assert LANE_BYTES < size <= LANE_BYTES + MAX_BODY_METADATA
    assert lane.more


async def test_a_page_is_no_larger_than_asked_for(store: Store) -> None:
    await fill(store, *[(f"r{n}", "{}") for n in range(10)])

    found = await store.page(Cursor(), NOBODY, 4)

    assert [lane.run for lane in found.lanes] == ["r0", "r1", "r2", "r3"]
    assert not found.exhausted


# What arrives while it is walked


async def test_an_urgent_arrival_behind_the_cursor_is_met_next(store: Store) -> None:
    await fill(store, *[(f"r{n}", "{}") for n in range(10)])
    first = await store.page(Cursor(), NOBODY, 3)
    insert(store.path, ("plain", "n", None))
    await fill(store, ("urgent", "{}", 1))

    loaded = {lane.run for lane in first.lanes}
    second = await store.page(first.cursor, loaded, 2)

    assert [lane.run for lane in second.lanes] == ["urgent", "r3"]


async def test_an_arrival_of_the_same_or_lower_priority_is_met_going_on(store: Store) -> None:
    await fill(store, ("a", "{}"))
    _, last = await walk(store)
    await fill(store, ("low", "{}", -1), ("same", "{}"))

    met, _ = await walk(store, loaded={"a"}, cursor=last.cursor)

    assert met == ["same", "low"]


async def test_an_arrival_for_a_run_that_is_loaded_is_told_with_its_highest_priority(
    store: Store,
) -> None:
    await fill(store, ("a", "{}"), ("b", "{}"))
    _, last = await walk(store)
    await fill(store, ("a", "{}", -2), ("a", "{}"), ("b", "{}", -4))
    lower = await store.page(last.cursor, {"a", "b"}, 10)
    await fill(store, ("a", "{}", 2), ("a", "{}", 7), ("a", "{}"))

    higher = await store.page(lower.cursor, {"a", "b"}, 10)

    assert (lower.arrived, lower.lanes) == ({"a": 0, "b": -4}, [])
    assert (higher.arrived["a"], higher.lanes) == (7, [])


async def test_with_a_limit_of_nothing_only_the_cursor_moves(store: Store) -> None:
    await fill(store, ("a", "{}"), ("b", "{}"))
    first = await store.page(Cursor(), NOBODY, 1)
    await fill(store, ("urgent", "{}", 3))

    moved = await store.page(first.cursor, {"a"}, 0)

    assert (moved.lanes, moved.exhausted) == ([], False)
    assert moved.cursor.priority == 3
    met, _ = await walk(store, loaded={"a"}, cursor=moved.cursor)
    assert met == ["urgent", "b"]


@given(data=st.data())
@settings(max_examples=30)
def test_nothing_that_arrives_is_ever_walked_past(data: st.DataObject) -> None:
    """Producers insert between the pages: in the end every patch was loaded or told of."""

    async def walked() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with opened(Path(folder) / "s.db") as store:
                here, known, loaded = Cursor(), set[int](), dict[str, int]()
                for _ in range(data.draw(st.integers(1, 6))):
                    batch = data.draw(
                        st.lists(
                            st.tuples(st.sampled_from("abcdef"), st.integers(-2, 2)), max_size=5
                        )
                    )
                    await store.accept([Patch(run, "n", priority=p) for run, p in batch])
                    limit = data.draw(st.sampled_from([0, 1, 2, 100]))
                    found = await store.page(here, loaded.keys(), limit)
                    here = found.cursor
                    for lane in found.lanes:
                        loaded[lane.run] = max(patch.id for patch in lane.waiting)
                    for run in found.arrived:
                        loaded[run] = 1 << 62  # told of: it will be read anew
                while True:
                    found = await store.page(here, loaded.keys(), 100)
                    here = found.cursor
                    loaded |= {lane.run: 1 << 62 for lane in found.lanes}
                    loaded |= dict.fromkeys(found.arrived, 1 << 62)
                    if found.exhausted:
                        break
                for patch_id, run in rows(store.path, "SELECT id, workflow_run_id FROM outbox"):
                    known.add(patch_id)
                    assert loaded[run] >= patch_id

    asyncio.run(walked())


# Cost


async def test_every_step_of_a_page_begins_in_an_index_of_what_waits(store: Store) -> None:
    """Nothing walks the delivered rows, nor all that waits for the sake of what has arrived."""
    await fill(store, ("a", "{}"), ("b", "{}"))
    await defer(store, "a", 1, due_at=NOON + 1.0)
    asked: list[str] = []

    def traced(db: sqlite3.Connection) -> list[list[str]]:
        db.set_trace_callback(asked.append)
        for cursor in (Cursor(), Cursor(0, 1, 1)):
            page.page(db, cursor, NOBODY, 10, NOON)
        page.page(db, Cursor(0, 1, 1), NOBODY, 10, NOON + 2.0)
        for share in (0.4, 1.0, None):
            page.to_probe(db, share, NOBODY, NOON + 2.0)
        db.set_trace_callback(None)
        return [plan(db, sql) for sql in asked]

    plans = await store.read(traced)

    steps = {step for steps in plans for step in steps}
    assert len(plans) > 10
    scans = {step for step in steps if step.startswith("SCAN outbox")}
    assert scans <= {"SCAN outbox USING INDEX outbox_turn"}, steps  # from its end, to the first
    assert "SEARCH outbox USING INDEX outbox_turn (priority=? AND id>?)" in steps
    assert "SEARCH outbox USING INDEX outbox_turn (priority<?)" in steps
    lane = "SEARCH outbox USING INDEX outbox_lane (stretch=? AND workflow_run_id=? AND id>?)"
    assert lane in steps
    assert not [step for step in steps if "TEMP B-TREE" in step], steps
    (arrivals,) = {
        s for sql, p in zip(asked, plans, strict=True) if "NOT INDEXED" in sql for s in p
    }
    assert arrivals == "SEARCH outbox USING INTEGER PRIMARY KEY (rowid>?)"


@pytest.mark.parametrize("delivered_before", [0, 20_000])
async def test_a_page_costs_the_same_however_much_was_delivered(
    store: Store, delivered_before: int
) -> None:
    await store.accept([Patch(f"old{n}", "n") for n in range(delivered_before)])
    await store._writer.run(
        lambda db: db.execute("UPDATE outbox SET state = 'delivered', settled_at = 1")
    )
    await fill(store, *[(f"r{n}", "{}") for n in range(50)])
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def counted(db: sqlite3.Connection) -> None:
        db.set_progress_handler(count, 100)
        page.page(db, Cursor(), NOBODY, 100, NOON)
        db.set_progress_handler(None, 0)

    await store.read(counted)

    assert steps < 300  # times a hundred instructions of SQLite's
