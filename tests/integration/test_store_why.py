"""Why, from the rows: the place in the queue and the causes."""

import sqlite3
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from looking import RUNNING, live, planned
from stores import (
    NOON,
    Wall,
    dead,
    deferred,
    delivered,
    fill,
    give_ids_after,
    opened,
)
from stores import (
    plan as steps_of,
)

from syncd.core.sending import Live
from syncd.store import Selection, Store, ahead, plan, read, why
from syncd.store.schema import open_reader, open_writer


async def asked(store: Store, patch_id: int, facts: Live = RUNNING) -> dict[str, Any]:
    row = await store.read(lambda db: why.patch(db, patch_id, NOON, facts))
    assert row is not None
    return row


def causes(row: dict[str, Any]) -> list[str]:
    return [str(cause["cause"]) for cause in row["causes"]]


# The place in the queue

patches = st.lists(st.tuples(st.sampled_from("rstu"), st.integers(-1, 2)), min_size=1, max_size=30)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patches=patches, data=st.data(), folding=st.booleans())
def test_ahead_is_what_the_queue_has_before_the_patch(
    tmp_path: Path, patches: list[tuple[str, int]], data: st.DataObject, folding: bool
) -> None:
    """Counted here the slow way."""
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
    chosen = data.draw(st.sampled_from(range(1, len(patches) + 1)))
    run = patches[chosen - 1][0]
    out = data.draw(st.sets(st.sampled_from(sorted({*"rstu"} - {run}))))
    with closing(open_writer(path)) as db:
        db.executemany(
            "INSERT INTO outbox (workflow_run_id, name, priority) VALUES (?, 'n', ?)", patches
        )
    by_run: dict[str, list[int]] = {}
    for patch_id, (of, _) in enumerate(patches, start=1):
        by_run.setdefault(of, []).append(patch_id)

    with closing(open_reader(path)) as db:
        facts = live(out={of: tuple(by_run.get(of, ())) for of in out}, folding=folding)
        row = why.patch(db, chosen, NOON, facts)

    queue = sorted((-priority, patch_id) for patch_id, (_, priority) in enumerate(patches, start=1))
    in_line = [patches[patch_id - 1][0] for _, patch_id in queue]
    before = [of for of in in_line[: in_line.index(run)] if of not in out]
    assert row is not None
    assert row["place"] == {
        "ahead": len(before),
        "requests_ahead": others_before(chosen, patches, out, folding=folding),
        "at_least": False,
        "about": False,
        "waiting": len(patches),
    }


def others_before(
    chosen: int, patches: list[tuple[str, int]], out: Collection[str], *, folding: bool
) -> int:
    """Requests of other runs, each run pulled forward by the highest priority it has."""
    lanes: dict[str, list[int]] = {}
    priority: dict[str, int] = {}
    for patch_id, (run, its) in enumerate(patches, start=1):
        if run not in out:
            lanes.setdefault(run, []).append(patch_id)
            priority[run] = max(its, priority.get(run, its))
    mine, others = patches[chosen - 1][0], 0
    while True:
        next_run = min(lanes, key=lambda run: (-priority[run], lanes[run][0]))
        sent = lanes[next_run] if folding else lanes[next_run][:1]
        if chosen in sent:
            return others
        others += next_run != mine
        lanes[next_run] = lanes[next_run][len(sent) :]
        if not lanes[next_run]:
            del lanes[next_run]


async def test_requests_that_cannot_be_folded_are_counted_each(tmp_path: Path) -> None:
    """Also those between the requests of its own run."""
    async with opened(tmp_path / "s.db") as store:
        nested = '{"a":{}}'
        await fill(store, *[("s", nested)] * 3, ("r", nested), ("s", nested), ("r", nested))

        row = await asked(store, 6)

    assert (row["place"]["ahead"], row["place"]["requests_ahead"]) == (3, 4)
    assert row["causes"][0]["requests"] == 1
    assert row["expected_s"] == round(5 / 8, 1)


async def test_a_deferred_run_is_not_before_anybody(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("late", "{}"), ("late", "{}"), ("r", "{}"))
        await store.settle([deferred("late", 1, due_at=NOON + 9)])

        row = await asked(store, 3)

    assert (row["place"]["ahead"], causes(row)) == (0, ["turn"])


async def test_a_long_queue_is_counted_to_an_end_and_its_requests_are_reckoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no look takes long, whatever waits."""
    monkeypatch.setattr(ahead, "COUNTED", 100)
    monkeypatch.setattr(ahead, "SAMPLED", 20)
    monkeypatch.setattr(ahead, "PLAYED", 5)
    async with opened(tmp_path / "s.db") as store:
        await fill(store, *[(f"r{n // 2}", "{}") for n in range(80)], ("last", "{}"))
        middle = await asked(store, 81)
        await fill(store, *[(f"s{n}", "{}") for n in range(80)], ("end", "{}"))
        end = await asked(store, 162)

    assert middle["place"] == {
        "ahead": 80,
        "requests_ahead": 40,
        "at_least": False,
        "about": True,
        "waiting": 81,
    }
    assert (end["place"]["ahead"], end["place"]["at_least"]) == (100, True)
    assert end["causes"][-1]["at_least"] is True


def steps(path: Path, look: Callable[[sqlite3.Connection], object]) -> set[str]:
    """How SQLite goes about the statements of a look."""
    asked: list[str] = []
    with closing(open_reader(path)) as db:
        db.set_trace_callback(asked.append)
        look(db)
        db.set_trace_callback(None)
        selects = [sql for sql in asked if sql.lstrip().startswith(("SELECT", "WITH"))]
        return {step for sql in selects for step in steps_of(db, sql)}


async def test_no_look_walks_all_that_was_ever_delivered(tmp_path: Path) -> None:
    """Each statement goes by an index, or by an id."""
    async with opened(tmp_path / "s.db") as store:
        await fill(store, *[(f"r{n}", "{}") for n in range(5)], ("r0", "{}"), ("r4", "{}"))
        await store.settle([delivered("r0", 1), dead("r1", 2)])
        await store.settle([deferred("r2", 3, due_at=NOON + 9)])
        path = store.path

    for look in (
        lambda db: [why.patch(db, patch_id, NOON, RUNNING) for patch_id in range(1, 8)],
        lambda db: [why.run(db, f"r{n}", NOON, RUNNING) for n in range(5)],
        lambda db: plan.plan(db, NOON, live(out={"r4": (5,)})),
    ):
        for step in steps(path, look):
            assert "SCAN o" not in step or "USING" in step, step
            assert not step.startswith("SCAN lanes"), step
            assert "PRIMARY KEY (rowid<?)" not in step, step


# The chain


async def test_older_patches_go_along_or_before(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", '{"a":1}'), ("r", '{"b":1}'), ("r", '{"a":{}}'), ("r", '{"c":1}'))

        along, apart, behind = [await asked(store, patch_id) for patch_id in (2, 3, 4)]

    assert along["causes"] == [{"cause": "older", "patch_ids": (1,), "patches": 1, "requests": 0}]
    assert apart["causes"] == [
        {"cause": "older", "patch_ids": (1, 2), "patches": 2, "requests": 1},
        {
            "cause": "apart",
            "reason": "gives an object or an array to a key that an earlier patch sets",
            "key": "a",
            "patch_ids": (3,),
        },
    ]
    assert behind["causes"][1]["patch_ids"] == (3,)
    assert [row["expected_s"] for row in (along, apart)] == [0.0, 0.1]


async def test_of_many_older_patches_the_first_are_named_and_all_are_counted(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "s.db") as store:
        await give_ids_after(store, 65_500)  # they lie in two stretches of the index
        first, *_ = ids = await fill(store, *[("r", '{"a":{}}')] * 75)

        row = await asked(store, ids[-1])

    assert row["causes"][0] == {
        "cause": "older",
        "patch_ids": tuple(range(first, first + 10)),
        "patches": 74,
        "requests": 50,
        "at_least": True,
    }


async def test_a_run_in_trouble_defers_its_newest_patches_too(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", '{"a":1}'))
        await store.settle([deferred("r", 1, due_at=NOON + 30, failures=2)])
        await fill(store, ("r", '{"b":1}'))

        row = await asked(store, 2)

    assert causes(row) == ["older", "deferred"]
    assert row["causes"][1] == {
        "cause": "deferred",
        "reason": "http_503: what the vendor said",
        "failures": 2,
        "since": read.instant(NOON),
        "until": read.instant(NOON + 30),
    }
    assert row["expected_s"] == 30.0


async def test_what_is_out_for_the_run_comes_first(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, ("r", '{"a":1}'), ("r", '{"b":1}'), ("r", '{"c":1}'))
        facts = live(out={"r": (1,)})

        flying, waiting = await asked(store, 1, facts), await asked(store, 3, facts)

    out = {"cause": "in_flight", "patch_ids": (1,), "patches": 1, "for_s": 0.5}
    assert flying["patch"]["state"] == "in_flight"
    assert flying["causes"] == [out]
    assert waiting["causes"] == [
        out,
        {"cause": "older", "patch_ids": (2,), "patches": 1, "requests": 0},
    ]


async def test_delivered_names_the_patches_of_the_same_answer(tmp_path: Path) -> None:
    """Also when newer answers have replaced the snapshot, and others came in the same commit."""
    wall = Wall()
    async with opened(tmp_path / "s.db", wall) as store:
        await fill(store, *[("r", "{}")] * 4, ("s", "{}"))
        await store.settle([delivered("r", 1, 2), delivered("s", 5)])
        wall.now += 1
        await store.settle([delivered("r", 3, 4)])

        together = [(await asked(store, id))["causes"][0]["patch_ids"] for id in (1, 2, 3, 5)]

    assert together == [(1, 2), (1, 2), (3, 4), (5,)]


async def test_parked_and_held_and_discarded_say_so(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, *[(run, "{}") for run in "rst"])
        await store.settle([dead("r", 1)])
        await store.operate("hold", Selection(ids=(2,)), in_flight=())
        await store.operate("discard", Selection(ids=(3,)), in_flight=())

        found = [await asked(store, patch_id) for patch_id in (1, 2, 3)]

    assert [row["causes"] for row in found] == [
        [{"cause": "dead", "reason": "INVALID_REQUEST", "since": read.instant(NOON)}],
        [{"cause": "held", "reason": "operator"}],
        [{"cause": "discarded", "reason": "operator", "since": read.instant(NOON)}],
    ]
    assert found[0]["patch"]["last_error"]["message"] == "what the vendor said"
    assert [row["expected_s"] for row in found] == [None] * 3


async def test_a_run_is_told_by_the_patch_that_has_waited_longest(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await fill(store, *[("r", '{"a":1}')] * 4)
        await store.settle([delivered("r", 1)])
        await store.settle([dead("r", 2)])

        row = await store.read(lambda db: why.run(db, "r", NOON, RUNNING))
        unknown = await store.read(lambda db: why.run(db, "nobody", NOON, RUNNING))

    assert row is not None
    assert row["patch"]["id"] == 3
    assert row["run"] == {
        "waiting": 2,
        "held": 0,
        "dead": 1,
        "discarded": 0,
        "suspect_until": None,
        "snapshot": {"fetched_at": read.instant(NOON), "patch_ids": [1]},
    }
    assert unknown is None


async def test_a_patch_whose_run_no_reader_can_spell_is_told_all_the_same(tmp_path: Path) -> None:
    """SQLite stores what is not UTF-8, too."""
    async with opened(tmp_path / "s.db") as store:
        await store._writer.run(
            lambda db: db.execute(
                "INSERT INTO outbox (workflow_run_id, name) VALUES (CAST(x'ff' AS TEXT), 'n')"
            )
        )

        assert causes(await asked(store, 1)) == ["turn"]
        assert await planned(store) == []
