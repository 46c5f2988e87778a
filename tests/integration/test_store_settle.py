"""Writing answers down: the patches' new state and the snapshot are one commit."""

import json
import sqlite3
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from stores import (
    NOON,
    Wall,
    dead,
    deferred,
    delivered,
    fill,
    rows,
    run,
    run_dead,
    states,
    trouble,
)

from syncd.core.outcome import Blame
from syncd.core.settlement import Dead, Delivered, Noted
from syncd.store import Selection, Store, read


def lanes(store: Store) -> list[tuple[Any, ...]]:
    return rows(store.path, "SELECT workflow_run_id, due_at, failures FROM lanes ORDER BY 1")


async def shown(store: Store, patch_id: int) -> dict[str, Any]:
    row = await store.read(lambda db: read.patch(db, patch_id, NOON))
    assert row is not None
    return row


async def workflow_run(store: Store, run_id: str) -> dict[str, Any]:
    """The snapshot as a reader gets it."""
    row = await store.read(lambda db: read.snapshot(db, run_id))
    return json.loads(read.encode(row))


# Delivered


async def test_a_delivered_patch_and_its_snapshot_appear_together(store: Store, wall: Wall) -> None:
    await fill(store, ("r", '{"a":1}'), ("r", '{"b":2}'), ("s", "{}"))
    wall.now = NOON + 3.0

    await store.settle([delivered("r", 1, 2, metadata='{"a":1,"b":2}', status="NEEDS_REVIEW")])

    assert states(store.path) == {1: "delivered", 2: "delivered", 3: "pending"}
    assert await workflow_run(store, "r") == {
        "workflow_run_id": "r",
        "fetched_at": "2026-02-09T12:00:03.000Z",
        "patch_ids": [1, 2],
        "workflow_run": {"object": "workflow_run", "id": "r", "metadata": {"a": 1, "b": 2}},
    }
    assert (await shown(store, 1))["delivered_at"] == "2026-02-09T12:00:03.000Z"


async def test_a_group_that_cannot_be_written_whole_leaves_no_trace(store: Store) -> None:
    """The second snapshot cannot be stored; so the first one and all patches stay as they were."""
    await fill(store, ("r", "{}"), ("s", "{}"), ("t", "{}"))
    unstorable = Delivered(msgspec.structs.replace(run("s"), status="\ud800"), (2,), False)

    with pytest.raises(UnicodeEncodeError):
        await store.settle([delivered("r", 1), unstorable, dead("t", 3)])

    assert set(states(store.path).values()) == {"pending"}
    assert rows(store.path, "SELECT count(*) FROM snapshots") == [(0,)]
    assert dict(rows(store.path, "SELECT state, n FROM counters"))["pending"] == 3


async def test_one_commit_settles_a_whole_group(store: Store) -> None:
    await fill(store, *[(f"r{n}", "{}") for n in range(1, 101)])
    asked: list[str] = []
    await store._writer.run(lambda db: db.set_trace_callback(asked.append))

    await store.settle([delivered(f"r{n}", n) for n in range(1, 101)])

    assert (asked[0], asked[-1], asked.count("COMMIT")) == ("BEGIN IMMEDIATE", "COMMIT", 1)
    assert set(states(store.path).values()) == {"delivered"}


async def test_a_newer_answer_replaces_the_snapshot(store: Store) -> None:
    await fill(store, ("r", '{"a":1}'), ("r", '{"a":2}'))

    await store.settle([delivered("r", 1, metadata='{"a":1}')])
    await store.settle([delivered("r", 2, metadata='{"a":2}')])

    snapshot = await workflow_run(store, "r")
    assert snapshot["workflow_run"]["metadata"] == {"a": 2}
    assert snapshot["patch_ids"] == [2]
    assert rows(store.path, "SELECT n FROM counters WHERE state = 'snapshots'") == [(1,)]


async def test_a_snapshot_is_kept_as_the_vendor_sent_it_to_the_byte(store: Store) -> None:
    await fill(store, ("r", "{}"))
    raw = '{ "id":"r", "metadata" : {"n":1.0e5,"é":"\\u00e9"}, "x":12345678901234567890123 }'
    answer = msgspec.structs.replace(run("r"), raw=raw.encode())

    await store.settle([Delivered(answer, (1,), False)])

    line = await store.read(lambda db: read.encode(read.snapshot(db, "r")))
    assert raw.encode() in line
    ((stored,),) = rows(store.path, "SELECT length(body) FROM snapshots")
    assert stored < len(raw) + 20


async def test_large_snapshots_take_a_fraction_of_their_size(store: Store) -> None:
    await fill(store, ("r", "{}"))
    raw = b'{"id":"r","outputs":[' + b'{"page":1,"x":0.5,"text":"Invoice"},' * 1_000 + b"{}]}"

    await store.settle([Delivered(msgspec.structs.replace(run("r"), raw=raw), (1,), False)])

    ((stored,),) = rows(store.path, "SELECT length(body) FROM snapshots")
    assert stored < len(raw) / 4


async def test_each_delivered_patch_knows_the_one_before_it(store: Store) -> None:
    await fill(store, *[("r", "{}")] * 4, ("s", "{}"))

    await store.settle([delivered("r", 1), delivered("s", 5)])
    await store.settle([delivered("r", 2, 3)])
    await store.settle([delivered("r", 4)])

    assert rows(store.path, "SELECT id, previous_id FROM outbox ORDER BY id") == [
        (1, None),
        (2, 1),
        (3, 2),
        (4, 3),
        (5, None),
    ]


async def test_delivery_ends_the_trouble_of_a_lane(store: Store) -> None:
    await fill(store, ("r", "{}"), ("s", "{}"))
    await store.settle([deferred("r", 1, due_at=NOON + 9), deferred("s", 2, due_at=NOON + 9)])

    await store.settle([delivered("r", 1, troubled=True)])

    assert lanes(store) == [("s", NOON + 9, 1)]


async def test_what_an_operator_has_decided_meanwhile_stands(store: Store) -> None:
    await fill(store, *[("r", "{}")] * 3)
    await store.operate("hold", Selection(ids=(1,)), in_flight=())
    await store.operate("discard", Selection(ids=(2,)), in_flight=())

    await store.settle([delivered("r", 1, 2, 3)])
    await store.settle([dead("r", 1, 2, 3)])

    assert states(store.path) == {1: "held", 2: "discarded", 3: "delivered"}


# Deferred


async def test_a_deferred_lane_keeps_its_patches_pending_and_says_why(store: Store) -> None:
    await fill(store, ("r", "{}"), ("r", "{}"))

    await store.settle([deferred("r", 1, due_at=NOON + 7.5, failures=2)])

    first, second = await shown(store, 1), await shown(store, 2)
    assert (first["state"], first["attempts"], first["failures"]) == ("pending", 0, 2)
    assert first["next_attempt_at"] == second["next_attempt_at"] == "2026-02-09T12:00:07.500Z"
    assert first["last_error"] == {
        "blame": "server",
        "code": "http_503",
        "message": "what the vendor said",
        "status": 400,
        "request_id": "req_1",
        "at": "2026-02-09T12:00:00.000Z",
    }
    assert second["last_error"] is None, "it was not in the request that failed"


async def test_a_lane_deferred_again_has_one_due_time(store: Store) -> None:
    await fill(store, ("r", "{}"), ("r", "{}"))

    await store.settle([deferred("r", 1, 2, due_at=NOON + 5, failures=1)])
    await store.settle([deferred("r", 1, due_at=NOON + 50, failures=2)])

    assert lanes(store) == [("r", NOON + 50, 2)]
    assert (await shown(store, 2))["last_error"] is not None


async def test_recalled_lanes_are_due_now(store: Store) -> None:
    await fill(store, ("r", "{}"), ("s", "{}"))
    await store.settle(
        [deferred("r", 1, due_at=NOON + 500, failures=4), deferred("s", 2, due_at=NOON - 1)]
    )

    recalled = await store.recall()

    assert recalled == 1
    assert lanes(store) == [("r", NOON, 4), ("s", NOON - 1, 1)]


# Dead


async def test_a_dead_patch_is_kept_with_the_answer_that_refused_it(store: Store) -> None:
    await fill(store, ("r", "{}"), ("r", "{}"))
    await store.settle([deferred("r", 1, due_at=NOON)])

    await store.settle([dead("r", 1, code="TOO_LONG", troubled=True)])

    patch = await shown(store, 1)
    assert (patch["state"], patch["reason"], patch["attempts"]) == ("dead", "TOO_LONG", 1)
    assert patch["last_error"]["message"] == "what the vendor said"
    assert patch["settled_at"] == "2026-02-09T12:00:00.000Z"
    assert patch["delivered_at"] is None
    assert states(store.path)[2] == "pending"
    assert lanes(store) == []


async def test_attempts_count_answers_that_blame_the_patch_not_its_age(store: Store) -> None:
    await fill(store, ("r", "{}"), ("s", "{}"))
    expired = Dead("s", (2,), trouble(Blame.SERVER, "expired"), troubled=False)

    await store.settle([dead("r", 1), expired])

    assert ((await shown(store, 1))["attempts"], (await shown(store, 2))["attempts"]) == (1, 0)
    assert (await shown(store, 2))["reason"] == "expired"


async def test_an_unknown_run_parks_all_that_waits_for_it_and_nothing_else(store: Store) -> None:
    await fill(store, *[("r", "{}")] * 4, ("s", "{}"))
    await store.settle([delivered("r", 1)])
    await store.operate("hold", Selection(ids=(2,)), in_flight=())
    await store.settle([deferred("r", 3, due_at=NOON)])

    await store.settle([run_dead("r")])

    assert states(store.path) == {
        1: "delivered",
        2: "held",
        3: "dead",
        4: "dead",
        5: "pending",
    }
    assert lanes(store) == []
    assert (await shown(store, 4))["reason"] == "NOT_FOUND"


# Noted


async def test_the_last_error_outlives_everything_else(store: Store) -> None:
    await fill(store, ("r", "{}"))

    await store.settle([Noted(trouble(Blame.CREDENTIALS, "UNAUTHORIZED"))])
    await store.settle([delivered("r", 1)])

    status = await store.read(lambda db: read.outbox(db, NOON))
    assert status["last_error"]["code"] == "UNAUTHORIZED"
    assert status["last_error"]["at"] == "2026-02-09T12:00:00.000Z"
    assert states(store.path) == {1: "delivered"}


async def test_what_the_vendor_says_is_kept_whatever_it_says(store: Store) -> None:
    await fill(store, ("r", "{}"))
    odd = replace(trouble(), message="né\x00 \u2028 '\"; DROP TABLE outbox", code="C\x00")

    await store.settle([Dead("r", (1,), odd, False)])

    assert (await shown(store, 1))["last_error"]["message"] == odd.message


async def test_facts_are_remembered_and_forgotten(store: Store) -> None:
    from syncd.store.facts import PAUSED, fact

    await store.remember(PAUSED, "by an operator")
    assert await store.read(lambda db: fact(db, PAUSED)) == "by an operator"
    await store.remember(PAUSED, None)
    assert await store.read(lambda db: fact(db, PAUSED)) is None


async def test_settling_nothing_is_nothing(store: Store) -> None:
    await store.settle([])

    assert rows(store.path, "SELECT count(*) FROM facts") == [(0,)]


async def test_settling_walks_no_table(store: Store) -> None:
    """The cost of an answer does not depend on how much was delivered before."""
    await fill(store, *[(f"r{n}", "{}") for n in range(1, 9)])
    asked: list[str] = []
    group = [
        delivered("r1", 1, troubled=True),
        dead("r2", 2, troubled=True),
        run_dead("r3"),
        deferred("r4", 4, due_at=NOON),
    ]

    def steps(db: sqlite3.Connection) -> set[str]:
        return {
            row[3]
            for sql in asked
            if sql.split()[0] in ("UPDATE", "DELETE", "SELECT")
            for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")
        }

    await store._writer.run(lambda db: db.set_trace_callback(asked.append))
    await store.settle(group)
    await store._writer.run(lambda db: db.set_trace_callback(None))
    taken = await store._writer.run(steps)

    scans = {step for step in taken if step.startswith("SCAN") and "VIRTUAL TABLE" not in step}
    assert scans == {"SCAN walk"}  # over the stretches
    assert "SEARCH outbox USING INDEX outbox_lane (stretch=? AND workflow_run_id=?)" in taken
