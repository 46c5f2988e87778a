"""The plan, from the rows: the requests to come."""

import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from looking import live, planned
from stores import (
    NOON,
    deferred,
    fill,
    opened,
    rows,
)

from syncd.core.patch import Patch
from syncd.core.plan import request_of
from syncd.lanes import Lanes
from syncd.store import read


def written(plan: list[dict[str, Any]]) -> list[bytes]:
    """As readers are given it."""
    return [read.encode(row) for row in plan]


def ids(plan: list[dict[str, Any]]) -> list[tuple[int, ...]]:
    return [row["patch_ids"] for row in plan]


async def test_requests_are_planned_in_the_order_in_which_they_go(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", '{"a":1}'), ("s", '{"a":1.50}'), ("r", '{"a":{}}'), ("t", "{}", 5))

        found = await planned(store)
        cut = await planned(store, limit=2)

    assert ids(found) == [(4,), (1,), (2,), (3,)]
    assert found[1]["apart"] == {
        "patch_id": 3,
        "reason": "gives an object or an array to a key that an earlier patch sets",
        "key": "a",
    }
    assert read.encode(found[2]["body"]) == b'{"metadata":{"a":1.50}}'
    assert [row["turn"] for row in found] == [1, 2, 3, 4]
    assert [row["expected_s"] for row in found] == [0.0, 0.1, 0.2, 0.4]
    assert written(cut) == written(found[:2])


async def test_a_deferred_run_is_planned_when_it_is_due(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", "{}"), ("s", "{}"))
        await store.settle([deferred("r", 1, due_at=NOON + 1), deferred("s", 2, due_at=NOON)])

        assert ids(await planned(store)) == [(2,)]


async def test_what_is_out_is_not_planned_but_what_comes_after_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, *[("r", '{"a":1}')] * 102, ("s", "{}"))
        out = tuple(range(1, 101))

        assert ids(await planned(store, live(out={"r": out}))) == [(101, 102), (103,)]
        assert ids(await planned(store, live(out={"s": (103,)}), limit=1)) == [out]


async def test_a_run_whose_fold_was_refused_is_planned_one_by_one(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, *[("r", '{"a":1}')] * 4)

        found = await planned(store, live(r=2))

    assert ids(found) == [(1,), (2,), (3, 4)]
    assert found[0]["apart"]["reason"].startswith("is sent alone, because")


async def test_what_cannot_be_sent_is_planned_as_parked(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await store._writer.run(
            lambda db: db.execute(
                "INSERT INTO outbox (workflow_run_id, name) VALUES ('r', CAST(x'ff' AS TEXT))"
            )
        )

        (row,) = await planned(store)

    assert (row["body"], row["parked"]) == (None, "its name or metadata is not JSON in UTF-8")


async def test_planning_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", "{}"), ("s", "{}"))
        before = rows(store.path, "SELECT * FROM outbox")

        assert written(await planned(store)) == written(await planned(store))
        assert rows(store.path, "SELECT * FROM outbox") == before


async def test_a_long_backlog_does_not_change_what_goes_next(tmp_path: Path) -> None:
    """One run has more patches than are walked, another is far behind it."""
    async with opened(tmp_path / "s.db") as store:
        await store.accept([Patch("hot", metadata='{"a":1}')] * 2500)
        await fill(store, ("cold", "{}"), ("urgent", "{}", 1))

        found = await planned(store, limit=30)

    assert [row["workflow_run_id"] for row in found] == ["urgent", *["hot"] * 25, "cold"]
    assert ids(found)[1] == tuple(range(1, 101))


def everything(plan: Collection[dict[str, Any]]) -> list[int]:
    return sorted(patch_id for row in plan for patch_id in row["patch_ids"])


async def test_nobody_who_may_go_is_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        every = await fill(store, *[(f"r{n % 7}", '{"a":{}}', n % 3) for n in range(60)])

        assert everything(await planned(store, limit=100)) == every


@pytest.mark.parametrize("seed", range(5))
async def test_the_relays_own_lanes_come_as_planned(tmp_path: Path, seed: int) -> None:
    """Each with the request that was planned for it."""
    chance = random.Random(seed)
    async with opened(tmp_path / "s.db") as store:
        await fill(
            store,
            *[
                (
                    chance.choice("rstuvw"),
                    chance.choice(['{"a":1}', '{"a":{}}', "{}"]),
                    chance.choice([0, 0, 3]),
                )
                for _ in range(40)
            ],
        )
        await store.settle([deferred("r", 1, due_at=NOON), deferred("s", 2, due_at=NOON + 1)])

        lanes = Lanes(store, lambda: NOON)
        await lanes.refill()
        taken = iter(lambda: lanes.take(8), None)
        begun = [request_of(lane, folding=True) for lane in taken]
        plan = await planned(store, limit=100)

    firsts = {row["workflow_run_id"]: row["patch_ids"] for row in reversed(plan)}
    assert len(begun) >= 5
    assert {each.ids for each in begun if each} == set(firsts.values())
    assert begun[0] is not None
    assert begun[0].ids == plan[0]["patch_ids"]
