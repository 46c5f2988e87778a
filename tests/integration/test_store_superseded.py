"""What is retried or released never overwrites what newer patches have set."""

import pytest
from operating import EVERYTHING, ids, operate, park, sent_next
from stores import (
    NOON,
    dead,
    delivered,
    fill,
    insert,
    rows,
    states,
)

from syncd.core.patch import Patch
from syncd.store import Store, Verb, read


async def test_a_retried_patch_goes_without_what_newer_ones_have_set(store: Store) -> None:
    await fill(store, ("r", '{"a":1,"b":1.0e5}'), ("r", '{"a":2}'))
    await park(store, 1)
    await store.settle([delivered("r", 2)])

    touched = await store.operate("retry", ids(1), in_flight=())

    assert (touched.touched, touched.left_out) == (1, {1: ["a"]})
    assert await sent_next(store) == b'{"metadata":{"b":1.0e5}}'
    row = await store.read(lambda db: read.patch(db, 1, NOON))
    assert row is not None
    assert row["leaves_out"] == ["a"]


async def test_a_retried_patch_goes_without_its_name_if_a_newer_one_has_set_it(
    store: Store,
) -> None:
    await store.accept([Patch("r", "old", '{"a":1,"name":1}'), Patch("r", "new")])
    await park(store, 1)
    await store.settle([delivered("r", 2)])

    touched = await store.operate("retry", ids(1), in_flight=())

    assert touched.left_out == {1: ["name"]}
    assert await sent_next(store) == b'{"metadata":{"a":1,"name":1}}'


async def test_a_patch_with_nothing_left_to_say_is_discarded_as_superseded(store: Store) -> None:
    await fill(store, ("r", '{"a":1}'), ("r", '{"a":2,"b":2}'))
    await park(store, 1)
    await store.settle([delivered("r", 2)])

    touched = await store.operate("retry", ids(1), in_flight=())

    assert (touched.touched, touched.superseded) == (0, 1)
    assert rows(store.path, "SELECT state, reason FROM outbox WHERE id = 1") == [
        ("discarded", "superseded")
    ]


async def test_force_sends_all_of_it(store: Store) -> None:
    await fill(store, ("r", '{"a":1}'), ("r", '{"a":2}'))
    await park(store, 1)
    await store.settle([delivered("r", 2)])

    touched = await store.operate("retry", ids(1), in_flight=(), force=True)

    assert (touched.touched, touched.left_out, touched.superseded) == (1, {}, 0)
    assert await sent_next(store) == b'{"metadata":{"a":1}}'


@pytest.mark.parametrize("verb", ["retry", "release"])
async def test_release_is_as_careful_as_retry(store: Store, verb: Verb) -> None:
    await fill(store, ("r", '{"a":1,"b":1}'), ("r", '{"a":2}'))
    if verb == "retry":
        await park(store, 1)
    else:
        await operate(store, "hold", ids(1))
    await store.settle([delivered("r", 2)])

    await operate(store, verb, ids(1))

    assert await sent_next(store) == b'{"metadata":{"b":1}}'


async def test_all_newer_patches_count_however_they_were_delivered(store: Store) -> None:
    await fill(store, ("r", '{"a":1,"b":1,"c":1,"d":1}'), *[("r", f'{{"{k}":2}}') for k in "abc"])
    await park(store, 1)
    await store.settle([delivered("r", 2)])
    await store.settle([delivered("r", 3, 4)])

    touched = await store.operate("retry", ids(1), in_flight=())

    assert touched.left_out == {1: ["a", "b", "c"]}


async def test_older_patches_do_not_count(store: Store) -> None:
    await fill(store, ("r", '{"a":0}'), ("r", '{"a":1}'))
    await store.settle([delivered("r", 1)])
    await park(store, 2)

    touched = await store.operate("retry", ids(2), in_flight=())

    assert touched.left_out == {}


async def test_patches_of_other_runs_do_not_count(store: Store) -> None:
    await fill(store, ("r", '{"a":1}'), ("s", '{"a":2}'))
    await park(store, 1)
    await store.settle([delivered("s", 2)])

    assert (await store.operate("retry", ids(1), in_flight={2})).left_out == {}


async def test_newer_patches_that_wait_do_not_count_because_they_go_after_it(store: Store) -> None:
    await fill(store, ("r", '{"a":1}'), ("r", '{"a":2}'))
    await park(store, 1)

    touched = await store.operate("retry", ids(1), in_flight=())

    assert (touched.touched, touched.left_out) == (1, {})
    lane = await store.lane("r")
    assert lane is not None
    assert [patch.id for patch in lane.waiting] == [1, 2]


@pytest.mark.parametrize("metadata", ['{"a":1,"b":1}', '{"a":1}'])
async def test_a_patch_waits_for_newer_ones_in_flight_as_nobody_knows_what_they_set(
    store: Store, metadata: str
) -> None:
    await fill(store, ("r", metadata), ("r", '{"a":2}'))
    await park(store, 1)

    assert await operate(store, "retry", ids(1), in_flight={2}) == (0, 1)

    await park(store, 2)  # it was refused
    touched = await store.operate("retry", ids(1), in_flight=())
    assert (touched.touched, touched.left_out, touched.superseded) == (1, {}, 0)


async def test_newer_patches_in_flight_with_other_keys_do_not_count(store: Store) -> None:
    await fill(store, ("r", '{"a":1}'), ("r", '{"b":2}'))
    await park(store, 1)

    assert await operate(store, "retry", ids(1), in_flight={2}) == (1, 0)


async def test_what_a_newer_patch_left_out_itself_does_not_count(store: Store) -> None:
    await fill(store, ("r", '{"a":1}'), ("r", '{"a":2,"b":2}'), ("r", '{"b":3}'))
    await park(store, 1, 2)
    await store.settle([delivered("r", 3)])
    await operate(store, "retry", ids(2), force=False)  # goes with a only
    await store.settle([delivered("r", 2)])

    assert rows(store.path, "SELECT leaves_out FROM outbox WHERE id = 2") == [('["b"]',)]


async def test_a_retried_patch_that_was_delivered_counts_for_those_before_it(
    store: Store,
) -> None:
    """Two are dead, a newer one is delivered; the second is retried, then the first."""
    await fill(store, ("r", '{"a":1}'), ("r", '{"a":2}'), ("r", '{"b":3}'))
    await park(store, 1, 2)
    await store.settle([delivered("r", 3)])
    await operate(store, "retry", ids(2))
    await store.settle([delivered("r", 2)])

    touched = await store.operate("retry", ids(1), in_flight=())

    assert (touched.touched, touched.superseded) == (0, 1)


async def test_a_patch_refused_again_is_judged_anew(store: Store) -> None:
    await fill(store, ("r", '{"a":1,"b":1}'), ("r", '{"a":2}'), ("r", '{"b":2}'))
    await park(store, 1)
    await store.settle([delivered("r", 2)])
    await operate(store, "retry", ids(1))
    await park(store, 1)
    await store.settle([delivered("r", 3)])

    touched = await store.operate("retry", ids(1), in_flight=())

    assert touched.superseded == 1


async def test_a_patch_with_empty_metadata_is_not_superseded_by_anything(store: Store) -> None:
    await fill(store, ("r", "{}"), ("r", '{"a":1}'))
    await park(store, 1)
    await store.settle([delivered("r", 2)])

    assert await operate(store, "retry", ids(1)) == (1, 0)


ODD = ['{"\\ud800":1}', '{"a":' + "[" * 1_900 + "]" * 1_900 + "}"]


@pytest.mark.parametrize("odd", ODD, ids=["lone surrogate", "deep"])
async def test_metadata_that_cannot_be_taken_apart_is_replayed_by_force_only(
    store: Store, odd: str
) -> None:
    """SQL can bring such a patch in; it must not keep the others from being retried."""
    insert(store.path, ("r", None, odd), ("s", None, '{"a":1}'))
    await store.settle([dead("r", 1), dead("s", 2)])

    assert await operate(store, "retry", EVERYTHING) == (1, 0)
    assert states(store.path) == {1: "dead", 2: "pending"}
    assert await operate(store, "retry", ids(1), force=True) == (1, 0)
