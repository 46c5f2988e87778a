"""What readers see of patches, and no query that walks all that was ever delivered."""

import json
import sqlite3
from typing import Any

import pytest
from stores import (
    NOON,
    STRETCH,
    Wall,
    dead,
    deferred,
    delivered,
    fill,
    give_ids_after,
    insert,
    part,
    plan,
    run_dead,
)

from syncd.core.patch import MAX_PRIORITY, MIN_PRIORITY, Patch
from syncd.store import Place, Selection, Store, read


async def status(store: Store, now: float = NOON) -> dict[str, Any]:
    return await store.read(lambda db: read.outbox(db, now))


async def listed(store: Store, **wanted: Any) -> list[int]:
    """The ids of the patches listed, in their order."""
    now = wanted.pop("now", NOON)
    return await store.read(lambda db: [row["id"] for row in read.patches(db, now, **wanted)])


async def decoded(store: Store, **wanted: Any) -> list[dict[str, Any]]:
    """The rows as a reader of --json gets them."""
    lines = await store.read(
        lambda db: [read.encode(row) for row in read.patches(db, NOON, **wanted)]
    )
    return [json.loads(line) for line in lines]


async def one_of_each(store: Store) -> None:
    """1 pending · 2 deferred · 3 held · 4 dead · 5 delivered · 6 discarded · 7 dead · 8 pending."""
    await fill(store, *[(f"r{n}", f'{{"n":{n}}}') for n in range(1, 9)])
    await store.settle([deferred("r2", 2, due_at=NOON + 60), dead("r4", 4), delivered("r5", 5)])
    await store.operate("hold", Selection(ids=(3,)), in_flight=())
    await store.operate("discard", Selection(ids=(6,)), in_flight=())
    await store.settle([run_dead("r7")])


# status


async def test_the_status_of_an_empty_store(store: Store) -> None:
    empty = {
        "outbox": {
            "pending": 0,
            "deferred": 0,
            "in_flight": 0,
            "held": 0,
            "dead": 0,
            "delivered": 0,
            "discarded": 0,
            "oldest_pending_s": None,
        },
        "snapshots": {"count": 0},
        "last_error": None,
        "paused": False,
    }

    shown = await status(store)

    assert part(shown["outbox"], empty["outbox"]) == empty["outbox"]
    assert part(shown, empty) | {"outbox": None} == empty | {"outbox": None}


async def test_status_counts_each_state_and_deferred_is_a_part_of_pending(
    store: Store, wall: Wall
) -> None:
    await one_of_each(store)
    await fill(store, ("r2", "{}"))
    wall.now = NOON + 12.5

    shown = await status(store, wall.now)

    expected = {
        "pending": 4,
        "deferred": 2,
        "in_flight": 0,
        "held": 1,
        "dead": 2,
        "delivered": 1,
        "discarded": 1,
        "oldest_pending_s": 12.5,
    }
    assert part(shown["outbox"], expected) == expected
    assert shown["snapshots"] == {"count": 1}
    assert shown["last_error"]["code"] == "NOT_FOUND"


async def test_what_is_due_is_no_longer_deferred(store: Store) -> None:
    await one_of_each(store)

    assert (await status(store, NOON + 60))["outbox"]["deferred"] == 0


@pytest.mark.parametrize("priorities", [[MIN_PRIORITY], [MAX_PRIORITY], [0, MIN_PRIORITY, 5]])
async def test_the_oldest_pending_patch_is_found_at_every_priority(
    store: Store, wall: Wall, priorities: list[int]
) -> None:
    for priority in priorities:
        await store.accept([Patch("r", "n", priority=priority)])
        wall.now += 1.0

    shown = await status(store, NOON + 10.0)

    assert shown["outbox"]["oldest_pending_s"] == 10.0


async def test_a_pause_is_told(store: Store) -> None:
    await store.remember("paused", "by an operator")

    assert (await status(store))["paused"] is True


# list


async def test_a_row_carries_what_the_contract_names(store: Store, wall: Wall) -> None:
    await store.accept([Patch("r", "the name", '{"n":1.0e5}', "key", 7)])
    wall.now = NOON + 1.5
    await store.settle([delivered("r", 1)])

    (row,) = await decoded(store)

    expected = {
        "id": 1,
        "workflow_run_id": "r",
        "name": "the name",
        "metadata": {"n": 1.0e5},
        "state": "delivered",
        "deferred": False,
        "attempts": 0,
        "next_attempt_at": None,
        "last_error": None,
        "batch": None,
        "created_at": "2026-02-09T12:00:00.000Z",
        "delivered_at": "2026-02-09T12:00:01.500Z",
        "settled_at": "2026-02-09T12:00:01.500Z",
        "reason": None,
        "priority": 7,
        "idempotency_key": "key",
        "leaves_out": [],
        "failures": 0,
    }
    assert part(row, expected) == expected


async def test_the_last_error_of_a_patch_is_the_newer_of_its_own_and_its_runs(
    store: Store, wall: Wall
) -> None:
    """A retried patch keeps the answer that has parked it, until there is another."""
    await fill(store, ("r", "{}"))

    async def error() -> tuple[str, str]:
        (row,) = await decoded(store)
        return row["state"], row["last_error"]["code"]

    shown = []
    for settlement in (deferred("r", 1, due_at=NOON + 60), dead("r", 1)):
        await store.settle([settlement])
        wall.now += 1
    shown.append(await error())
    await store.operate("retry", Selection(ids=(1,)), in_flight=())
    shown.append(await error())
    await store.settle([deferred("r", 1, due_at=NOON + 60)])
    shown.append(await error())

    assert shown == [
        ("dead", "INVALID_REQUEST"),
        ("pending", "INVALID_REQUEST"),
        ("pending", "http_503"),
    ]


async def test_trouble_comes_first_and_the_newest_of_it_before_the_older(store: Store) -> None:
    await one_of_each(store)

    assert await listed(store) == [7, 4, 3, 2, 1, 8, 6, 5]


@pytest.mark.parametrize(
    ("state", "ids"),
    [
        ("pending", [1, 2]),
        ("deferred", [2]),
        ("in_flight", [8]),
        ("held", [3]),
        ("dead", [7, 4]),
        ("delivered", [5]),
        ("discarded", [6]),
        ("nonsense", []),
    ],
)
async def test_patches_are_listed_by_state_and_in_flight_is_not_pending(
    store: Store, state: str, ids: list[int]
) -> None:
    await one_of_each(store)

    assert await listed(store, state=state, in_flight={8}) == ids


async def test_patches_of_one_run_are_listed_trouble_first_then_the_delivered_ones(
    store: Store,
) -> None:
    await fill(store, *[("r", "{}")] * 6, ("s", "{}"))
    await store.settle([delivered("r", 1, 2)])
    await store.settle([dead("r", 3)])
    await store.settle([delivered("r", 4), delivered("s", 7)])

    assert await listed(store, run="r") == [3, 6, 5, 4, 2, 1]
    assert await listed(store, run="r", state="delivered") == [4, 2, 1]
    assert await listed(store, run="nobody") == []


async def test_what_waits_of_a_run_is_listed_before_what_was_discarded_since(store: Store) -> None:
    """However much that is, who looks at the first of them sees whether it goes on."""
    await fill(store, *[("r", "{}")] * 3)
    await store.operate("discard", Selection(ids=(2, 3)), in_flight=())

    assert await listed(store, run="r") == [1, 3, 2]


async def test_what_was_settled_since_an_instant_is_listed_alone(store: Store, wall: Wall) -> None:
    await fill(store, *[("r", "{}")] * 3)
    await store.operate("discard", Selection(ids=(1,)), in_flight=())
    wall.now += 10.0
    await store.operate("discard", Selection(ids=(2,)), in_flight=())

    assert await listed(store, state="discarded", since=wall.now) == [2]
    assert await listed(store, run="r", since=wall.now) == [2]
    assert await listed(store, state="discarded", since=wall.now + 1.0) == []


async def test_patches_of_one_run_are_listed_however_far_apart_they_have_come(
    store: Store,
) -> None:
    await fill(store, ("r", "{}"), ("r", "{}"))
    await store.settle([deferred("r", 1, 2, due_at=NOON + 60.0)])
    await give_ids_after(store, 5 * STRETCH)
    (late,) = await fill(store, ("r", "{}"))

    assert await listed(store, run="r") == [late, 2, 1]
    assert sorted(await listed(store, state="deferred")) == [1, 2, late]
    assert (await status(store, NOON))["outbox"]["deferred"] == 3


async def test_a_patch_delivered_late_is_listed_with_its_run(store: Store) -> None:
    await fill(store, ("r", '{"a":1}'), ("r", '{"b":1}'))
    await store.settle([dead("r", 1)])
    await store.settle([delivered("r", 2)])
    await store.operate("retry", Selection(ids=(1,)), in_flight=())
    await store.settle([delivered("r", 1)])

    assert await listed(store, run="r") == [2, 1]


async def test_a_deferred_patch_is_a_pending_one_and_told_from_the_others(store: Store) -> None:
    """Until it is due, or in flight."""
    await fill(store, ("r", "{}"), ("s", "{}"), ("t", "{}"))
    await store.settle([deferred(run, n, due_at=NOON + 9) for n, run in ((1, "r"), (2, "s"))])

    rows = await decoded(store, state="pending", in_flight=(1,))
    out = await decoded(store, state="in_flight", in_flight=(1,))
    due = await store.read(lambda db: read.patch(db, 2, NOON + 9))

    told = [(row["id"], row["state"], row["deferred"]) for row in (*rows, *out)]
    assert told == [(2, "pending", True), (3, "pending", False), (1, "in_flight", False)]
    assert due is not None
    assert not due["deferred"]


async def test_patches_of_one_file_are_listed_by_its_name(store: Store) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        batch = (await store.open_batch(name, "spool")).batch_id
        await store.accept([Patch("r", "1"), Patch("s", "2"), Patch("t", "3")], Place(batch))
    await store.settle([delivered("r", 1), dead("t", 3)])

    assert await listed(store, batch="a.jsonl") == [3, 2, 1]
    assert await listed(store, batch="b.jsonl", state="pending") == [6, 5, 4]
    assert await listed(store, batch="c.jsonl") == []


async def test_a_list_is_no_longer_than_asked_for_and_names_nobody_twice(store: Store) -> None:
    await fill(store, *[(f"r{n}", "{}") for n in range(200)])
    await store.settle([deferred(f"r{n}", n + 1, due_at=NOON + 9) for n in range(0, 200, 2)])

    assert len(await listed(store)) == read.LIMIT
    everything = await listed(store, limit=1_000)
    assert sorted(everything) == list(range(1, 201))


async def test_one_patch_is_shown_as_in_a_list(store: Store) -> None:
    await one_of_each(store)

    rows = await store.read(lambda db: {row["id"]: row for row in read.patches(db, NOON)})
    for patch_id, row in rows.items():
        alone = await store.read(lambda db, patch_id=patch_id: read.patch(db, patch_id, NOON))
        assert read.encode(alone) == read.encode(row)
    assert await store.read(lambda db: read.patch(db, 99, NOON)) is None


async def test_a_row_is_one_line_whatever_the_layout_of_its_metadata(store: Store) -> None:
    insert(store.path, ("r", None, '{\r\n "a": "x\\ny",\n\n "b": [1,\r 2.50]\n}'))

    (line,) = await store.read(lambda db: [read.encode(row) for row in read.patches(db, NOON)])

    assert len(line.splitlines()) == 1
    assert json.loads(line)["metadata"] == {"a": "x\ny", "b": [1, 2.5]}
    assert b"2.50" in line


# Cost


@pytest.mark.parametrize(
    ("wanted", "walked"),
    [
        ({"state": "pending"}, set()),
        ({"state": "deferred"}, set()),
        ({"state": "in_flight", "in_flight": {1}}, set()),
        ({"state": "dead"}, set()),
        ({"state": "held"}, set()),
        ({"state": "discarded"}, set()),
        ({"run": "r1"}, set()),
        ({"batch": "f"}, set()),
        ({"state": "delivered"}, {"SCAN o"}),  # newest first, and it stops at the limit
        ({}, {"SCAN o"}),
    ],
)
async def test_a_list_begins_in_an_index_of_what_it_shows(
    store: Store, wanted: dict[str, Any], walked: set[str]
) -> None:
    await one_of_each(store)
    asked: list[str] = []

    def steps(db: sqlite3.Connection) -> set[str]:
        db.set_trace_callback(asked.append)
        list(read.patches(db, NOON, limit=1_000, **wanted))
        db.set_trace_callback(None)
        tables = ("DROP TABLE", "CREATE TEMP TABLE")
        return {step for sql in asked if not sql.startswith(tables) for step in plan(db, sql)}

    taken = await store.read(steps)

    assert {step for step in taken if step in ("SCAN o", "SCAN outbox")} == walked


async def test_status_counts_no_delivered_row(store: Store) -> None:
    await one_of_each(store)
    asked: list[str] = []

    def steps(db: sqlite3.Connection) -> set[str]:
        db.set_trace_callback(asked.append)
        read.outbox(db, NOON)
        db.set_trace_callback(None)
        return {step for sql in asked for step in plan(db, sql)}

    taken = await store.read(steps)

    assert not [step for step in taken if step.startswith(("SCAN o", "SCAN snapshots"))], taken
