"""Forgetting: what was delivered or discarded long ago, a little at a time, and nothing else."""

from stores import (
    NOON,
    STRETCH,
    Wall,
    dead,
    delivered,
    fill,
    give_ids_after,
    rows,
    run_dead,
    states,
)

from syncd.core.patch import Patch
from syncd.store import Place, Selection, Store
from syncd.store.retention import STEP

OLD = NOON + 100.0  # by then everything settled at NOON is old enough


async def sweep(store: Store, before: float = OLD) -> int:
    """A whole sweep; how many patches it forgot."""
    after_id = forgotten = 0
    while True:
        swept = await store.sweep(after_id, before)
        after_id, forgotten = swept.upto_id, forgotten + swept.deleted
        if swept.done:
            return forgotten


async def test_old_delivered_and_discarded_patches_are_forgotten(store: Store) -> None:
    await fill(store, *[(f"r{n}", "{}") for n in range(1, 6)])
    await store.settle([delivered("r1", 1), dead("r2", 2)])
    await store.operate("discard", Selection(ids=(3,)), in_flight=())
    await store.operate("hold", Selection(ids=(4,)), in_flight=())

    assert await sweep(store) == 2

    assert states(store.path) == {2: "dead", 4: "held", 5: "pending"}


async def test_what_is_not_old_enough_stays(store: Store, wall: Wall) -> None:
    await fill(store, ("a", "{}"), ("b", "{}"))
    await store.settle([delivered("a", 1)])
    wall.now = NOON + 50.0
    await store.settle([delivered("b", 2)])

    assert await sweep(store, before=NOON + 50.0) == 1

    assert states(store.path) == {2: "delivered"}


async def test_snapshots_stay_when_their_patches_go(store: Store) -> None:
    await fill(store, ("a", "{}"))
    await store.settle([delivered("a", 1)])

    await sweep(store)

    assert states(store.path) == {}
    assert rows(store.path, "SELECT workflow_run_id FROM snapshots") == [("a",)]


async def test_a_run_goes_on_after_its_past_was_forgotten(store: Store) -> None:
    await fill(store, ("a", "{}"))
    await store.settle([delivered("a", 1)])
    await sweep(store)
    (new,) = await fill(store, ("a", "{}"))

    await store.settle([delivered("a", new)])

    assert new == 2, "an id is never given twice"
    assert states(store.path) == {2: "delivered"}


async def test_what_a_dead_patch_needs_to_be_retried_rightly_is_kept_with_it(store: Store) -> None:
    await fill(store, ("r", '{"z":0}'), ("r", '{"a":1}'), ("r", '{"a":2}'), ("s", "{}"))
    await store.settle([delivered("r", 1), delivered("s", 4)])
    await store.settle([dead("r", 2)])
    await store.settle([delivered("r", 3)])

    assert await sweep(store) == 2

    assert states(store.path) == {2: "dead", 3: "delivered"}
    assert (await store.operate("retry", Selection(ids=(2,)), in_flight=())).superseded == 1
    assert await sweep(store) == 2


async def test_what_is_older_and_waits_is_found_however_far_apart_it_has_come(
    store: Store,
) -> None:
    await fill(store, ("r", '{"a":1}'), ("s", "{}"))
    await give_ids_after(store, 5 * STRETCH)
    late = await fill(store, ("r", '{"a":2}'), ("s", "{}"))
    await store.settle([delivered("r", late[0]), delivered("s", 2, late[1])])

    assert await sweep(store) == 2

    assert states(store.path) == {1: "pending", late[0]: "delivered"}


async def test_a_step_looks_at_a_bounded_number_of_rows(store: Store) -> None:
    await store.accept([Patch(f"r{n}", "n") for n in range(STEP + 10)])
    await store.operate("discard", Selection(everything=True), in_flight=())

    first = await store.sweep(0, OLD)
    second = await store.sweep(first.upto_id, OLD)
    last = await store.sweep(second.upto_id, OLD)

    assert (first.deleted, first.upto_id, first.done) == (STEP, STEP, False)
    assert (second.deleted, second.done) == (10, False)
    assert (last.deleted, last.upto_id, last.done) == (0, 0, True)


async def test_a_file_is_forgotten_with_the_last_of_its_patches(store: Store) -> None:
    for name in ("a", "b", "open"):
        batch = (await store.open_batch(name, "spool")).batch_id
        await store.accept([Patch(name, "1"), Patch(name, "2")], Place(batch, taken=True))
        if name != "open":
            await store.close_batch(batch)
    await store.settle([delivered("a", 1, 2), delivered("open", 5, 6)])
    await store.settle([delivered("b", 3), run_dead("b")])

    await sweep(store)

    assert rows(store.path, "SELECT name FROM batches ORDER BY 1") == [("b",), ("open",)]


async def test_forgetting_gives_the_space_back(store: Store) -> None:
    await store.accept([Patch(f"r{n}", "n" * 4_000) for n in range(500)])
    await store.operate("discard", Selection(everything=True), in_flight=())
    (before,) = await store._writer.run(lambda db: db.execute("PRAGMA page_count").fetchone())

    await sweep(store)

    (after,) = await store._writer.run(lambda db: db.execute("PRAGMA page_count").fetchone())
    assert after < before / 4
