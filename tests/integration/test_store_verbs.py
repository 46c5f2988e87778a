"""The operator's verbs: what each touches, and what it costs."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
from operating import EVERYTHING, ids, operate, park, sent_next
from stores import (
    NOON,
    STRETCH,
    Wall,
    dead,
    deferred,
    delivered,
    fill,
    give_ids_after,
    plan,
    rows,
    run_dead,
    states,
)

from syncd.core.patch import Patch
from syncd.store import Selection, Store, StoreBusy, Verb, operate_in_steps, read, verbs
from syncd.store.steps import STEP_PATCHES

# What each verb touches


async def test_retry_gives_dead_patches_another_chance(store: Store) -> None:
    await fill(store, ("r", '{"a":1}'), ("r", '{"b":1}'))
    await park(store, 1, 2)

    assert await operate(store, "retry", ids(1)) == (1, 0)

    assert states(store.path) == {1: "pending", 2: "dead"}
    row = await store.read(lambda db: read.patch(db, 1, NOON))
    assert row is not None
    assert (row["reason"], row["settled_at"], row["attempts"]) == (None, None, 1)
    assert row["last_error"] is not None, "until it is delivered, its last answer is of interest"


async def test_retry_makes_deferred_patches_due_now(store: Store, wall: Wall) -> None:
    await fill(store, ("r", "{}"), ("s", "{}"))
    await store.settle([deferred("r", 1, due_at=NOON + 99), deferred("s", 2, due_at=NOON + 99)])
    wall.now = NOON + 1

    assert await operate(store, "retry", ids(1)) == (1, 0)

    assert rows(store.path, "SELECT workflow_run_id, due_at FROM lanes ORDER BY 1") == [
        ("r", NOON + 1),
        ("s", NOON + 99),
    ]


async def test_retry_does_not_put_off_what_is_due_already(store: Store, wall: Wall) -> None:
    await fill(store, ("r", "{}"))
    await store.settle([deferred("r", 1, due_at=NOON)])
    wall.now = NOON + 5

    touched = await store.operate("retry", EVERYTHING, in_flight=())

    assert (touched.touched, touched.waiting) == (0, 1)
    assert rows(store.path, "SELECT due_at FROM lanes") == [(NOON,)]


async def test_retry_counts_each_deferred_patch_of_a_run_once_in_however_many_steps(
    store: Store, wall: Wall
) -> None:
    """As `status` counts them; the run itself is due from the first step on."""
    await store.accept([Patch("r", "n")] * (STEP_PATCHES + 1))
    await store.settle([deferred("r", 1, due_at=NOON + 99)])

    @asynccontextmanager
    async def still() -> AsyncIterator[tuple[()]]:
        wall.now += 1
        yield ()

    found = await store.read(lambda db: read.outbox(db, wall.now))
    touched = await operate_in_steps(store, "retry", EVERYTHING, still)
    again = await operate_in_steps(store, "retry", EVERYTHING, still)

    assert found["outbox"]["deferred"] == touched.touched == STEP_PATCHES + 1
    assert (again.touched, again.waiting) == (0, STEP_PATCHES + 1)


async def test_what_is_discarded_in_steps_is_settled_when_its_step_is_done(
    store: Store, wall: Wall
) -> None:
    """Who begins to wait between two of them shall hear of what the second one discards."""
    await store.accept([Patch("r", "n")] * (STEP_PATCHES + 1))

    @asynccontextmanager
    async def still() -> AsyncIterator[tuple[()]]:
        wall.now += 1
        yield ()

    await operate_in_steps(store, "discard", EVERYTHING, still)
    since = {"state": "discarded", "since": NOON + 2}
    found = await store.read(lambda db: [row["id"] for row in read.patches(db, NOON, **since)])

    assert found == [STEP_PATCHES + 1]


async def test_hold_and_release_take_patches_out_of_the_way_and_back(store: Store) -> None:
    await fill(store, ("r", '{"a":1}'), ("r", '{"b":1}'))

    assert await operate(store, "hold", ids(1)) == (1, 0)
    assert states(store.path) == {1: "held", 2: "pending"}
    assert await sent_next(store) == b'{"metadata":{"b":1}}'
    assert await operate(store, "release", ids(1)) == (1, 0)
    assert states(store.path) == {1: "pending", 2: "pending"}
    assert await sent_next(store) == b'{"metadata":{"a":1}}'


async def test_a_verb_on_a_run_finds_its_patches_however_far_apart_they_have_come(
    store: Store,
) -> None:
    (first,) = await fill(store, ("r", "{}"))
    await give_ids_after(store, 5 * STRETCH)
    second, _, third = await fill(store, ("r", "{}"), ("s", "{}"), ("r", "{}"))
    await park(store, second)

    assert await operate(store, "discard", Selection(run="r")) == (3, 0)

    assert [states(store.path)[n] for n in (first, second, third)] == ["discarded"] * 3


async def test_discard_is_for_whatever_is_not_delivered(store: Store) -> None:
    await fill(store, *[("r", "{}")] * 4)
    await store.settle([delivered("r", 1)])
    await park(store, 2)
    await operate(store, "hold", ids(3))

    assert await operate(store, "discard", Selection(run="r")) == (3, 0)

    assert states(store.path) == {1: "delivered", 2: "discarded", 3: "discarded", 4: "discarded"}
    assert rows(store.path, "SELECT DISTINCT reason FROM outbox WHERE id > 1") == [("operator",)]


APPLIES: dict[Verb, set[str]] = {
    "retry": {"dead", "deferred"},
    "discard": {"pending", "deferred", "held", "dead"},
    "hold": {"pending", "deferred"},
    "release": {"held"},
}


@pytest.mark.parametrize("by", ["ids", "run", "all"])
@pytest.mark.parametrize("verb", list(APPLIES))
async def test_a_verb_touches_the_states_that_it_is_for_and_no_others(
    store: Store, verb: Verb, by: str
) -> None:
    names = ["pending", "deferred", "held", "dead", "delivered", "discarded"]
    for n, name in enumerate(names, start=1):
        run = "one" if by == "run" and name != "deferred" else name
        await fill(store, (run, f'{{"{name}":1}}'))
        await store.settle(
            {
                "deferred": [deferred(run, n, due_at=NOON + 9)],
                "dead": [dead(run, n)],
                "delivered": [delivered(run, n)],
            }.get(name, [])
        )
        if name in ("held", "discarded"):
            await operate(store, "hold" if name == "held" else "discard", ids(n))
    selection = {
        "ids": ids(*range(1, 7)),
        "run": Selection(run="one"),
        "all": EVERYTHING,
    }[by]
    expected = APPLIES[verb] - ({"deferred"} if by == "run" else set())

    touched, _ = await operate(store, verb, selection)

    assert touched == len(expected)


async def test_patches_in_flight_are_left_alone_and_counted(store: Store) -> None:
    """Apart from those that wait for a newer one: they are not in flight themselves."""
    await fill(store, ("r", "{}"), ("r", "{}"), ("s", "{}"), ("t", '{"k":1}'), ("t", '{"k":2}'))

    for verb in ("hold", "discard"):
        assert await operate(store, verb, Selection(run="r"), in_flight={1, 2}) == (0, 2)
    await store.settle([dead("t", 4)])
    touched = await store.operate("retry", ids(3, 4), in_flight={3, 5})

    assert (touched.in_flight, touched.newer_in_flight) == (2, 1)
    await store.operate("retry", ids(4), in_flight=())
    assert set(states(store.path).values()) == {"pending"}


async def test_patches_are_chosen_by_the_reason_that_parked_them(store: Store) -> None:
    await fill(store, ("r", "{}"), ("s", '{"a":1}'), ("t", "{}"))
    await store.settle([dead("r", 1, code="TOO_LONG"), run_dead("s"), dead("t", 3)])

    assert await operate(store, "retry", Selection(reason="NOT_FOUND")) == (1, 0)

    assert states(store.path) == {1: "dead", 2: "pending", 3: "dead"}


async def test_a_selection_of_nothing_touches_nothing(store: Store) -> None:
    await fill(store, ("r", "{}"))
    await park(store, 1)

    for verb in APPLIES:
        assert await operate(store, verb, Selection()) == (0, 0)
        assert await operate(store, verb, ids(99)) == (0, 0)
        assert await operate(store, verb, Selection(run="nobody")) == (0, 0)


async def test_more_patches_than_one_statement_takes_variables_are_touched(store: Store) -> None:
    await store.accept([Patch("r", str(n)) for n in range(3_000)])

    assert await operate(store, "discard", ids(*range(1, 3_001))) == (3_000, 0)


# Cost


async def test_no_verb_walks_what_was_delivered(store: Store) -> None:
    await fill(store, ("r", "{}"), ("s", "{}"))
    await store.settle([dead("r", 1), deferred("s", 2, due_at=NOON)])
    asked: list[str] = []
    await store._writer.run(lambda db: db.set_trace_callback(asked.append))
    for verb in APPLIES:
        for selection in (ids(1), Selection(run="r"), Selection(reason="x"), EVERYTHING):
            await operate(store, verb, selection)
    await store._writer.run(lambda db: db.set_trace_callback(None))

    def steps(db: sqlite3.Connection) -> set[tuple[str, str]]:
        known = ("SELECT", "UPDATE", "DELETE")
        return {(sql, step) for sql in asked if sql.split()[0] in known for step in plan(db, sql)}

    plans = await store._writer.run(steps)

    taken = {step for _, step in plans}
    assert [sql for sql, step in plans if step in ("SCAN outbox", "SCAN snapshots")] == []
    assert any("outbox_trouble" in step for step in taken)
    assert any("outbox_lane" in step for step in taken)


@pytest.mark.parametrize("verb", APPLIES)
async def test_what_a_verb_in_steps_is_for_is_found_by_index_and_kept_small(
    store: Store, verb: Verb
) -> None:
    await fill(store, *[(f"r{n % 9}", "{}") for n in range(900)])
    await store.settle([dead("r0", 1), deferred("r1", 2, due_at=NOON)])
    await store.operate("hold", ids(3), in_flight=())
    expected = {
        "retry": [1, *range(2, 901, 9)],
        "discard": list(range(1, 901)),
        "hold": [1 + n for n in range(900) if n not in (0, 2)],
        "release": [3],
    }
    asked: list[str] = []

    def chosen(db: sqlite3.Connection) -> tuple[bytes, list[str]]:
        db.set_trace_callback(asked.append)
        found = verbs.chosen(db, verb, EVERYTHING)
        db.set_trace_callback(None)
        return bytes(found), plan(db, asked[0])

    packed, steps = await store.read(chosen)

    assert [*memoryview(packed).cast("q")] == expected[verb]
    assert "SCAN outbox" not in steps


async def test_a_verb_over_many_patches_lets_producers_in(store: Store) -> None:
    """In steps: whoever inserts meanwhile waits for one of them, not for all."""
    with sqlite3.connect(store.path) as db:
        db.executemany(
            "INSERT INTO outbox (workflow_run_id, name) VALUES (?, 'n')",
            [(f"run {n % 7}",) for n in range(3 * STEP_PATCHES)],
        )
    db.close()
    steps = 0

    @asynccontextmanager
    async def still() -> AsyncIterator[tuple[()]]:
        nonlocal steps
        steps += 1
        with closing(sqlite3.connect(store.path, timeout=0)) as db, db:
            db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('other', 'n')")
        yield ()

    touched = await operate_in_steps(store, "hold", Selection(everything=True), still)

    assert steps == 3
    assert touched.touched == 3 * STEP_PATCHES


@pytest.mark.parametrize("locked", [1, 2], ids=["at once", "in the middle"])
async def test_a_verb_in_steps_says_what_was_done_before_one_that_fails(
    store: Store, locked: int
) -> None:
    """Where nothing was, it has just failed."""
    await store._writer.run(lambda db: db.execute("PRAGMA busy_timeout = 20"))
    await store.accept([Patch("r", "n")] * (3 * STEP_PATCHES))
    steps = 0
    with closing(sqlite3.connect(store.path, isolation_level=None)) as rude:

        @asynccontextmanager
        async def still() -> AsyncIterator[tuple[()]]:
            nonlocal steps
            steps += 1
            if steps == locked:
                rude.execute("BEGIN IMMEDIATE")
            yield ()

        if locked == 1:
            with pytest.raises(StoreBusy):
                await operate_in_steps(store, "hold", EVERYTHING, still)
        else:
            touched = await operate_in_steps(store, "hold", EVERYTHING, still)
            assert touched.stopped is not None
            assert "locked by another process" in touched.stopped
            assert touched.touched == STEP_PATCHES

    assert steps == locked
    assert rows(store.path, "SELECT n FROM counters WHERE state = 'held'") == [
        ((locked - 1) * STEP_PATCHES,)
    ]
