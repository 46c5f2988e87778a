"""Walking the outbox past runs in trouble: each is met when it is due."""

from collections.abc import Collection

from stores import (
    NOBODY,
    NOON,
    Wall,
    dead,
    defer,
    deferred,
    delivered,
    fill,
    walk,
)

from syncd.store import Cursor, Selection, Store


async def test_a_deferred_lane_is_met_when_it_is_due_and_not_before(
    store: Store, wall: Wall
) -> None:
    await fill(store, ("a", "{}"), ("b", "{}"))
    await defer(store, "a", 1, due_at=NOON + 5.0, failures=3)

    before, page_before = await walk(store)
    wall.now = NOON + 5.0
    after, page_after = await walk(store)

    assert (before, page_before.next_due_at) == (["b"], NOON + 5.0)
    assert (after, page_after.next_due_at) == (["a", "b"], None)
    lane = await store.lane("a")
    assert lane is not None
    assert (lane.failures, lane.troubled) == (3, True)


async def test_what_arrives_for_a_deferred_lane_waits_with_it_in_order(
    store: Store, wall: Wall
) -> None:
    await fill(store, ("a", '{"n":1}'))
    await defer(store, "a", 1, due_at=NOON + 5.0)
    await fill(store, ("a", '{"n":2}', 100))

    met, last = await walk(store)
    wall.now = NOON + 6.0
    (lane,) = (await store.page(last.cursor, NOBODY, 10)).lanes

    assert met == []
    assert [patch.metadata for patch in lane.waiting] == ['{"n":1}', '{"n":2}']


async def test_lanes_that_are_due_come_first_and_longest_overdue_before_others(
    store: Store, wall: Wall
) -> None:
    await fill(store, ("new", "{}", 100), ("a", "{}"), ("b", "{}"))
    await defer(store, "a", 2, due_at=NOON + 2.0)
    await defer(store, "b", 3, due_at=NOON + 1.0)
    wall.now = NOON + 9.0

    met, _ = await walk(store)

    assert met == ["b", "a", "new"]


async def test_a_walk_is_not_at_its_end_while_more_lanes_are_due_than_fit_a_page(
    store: Store, wall: Wall
) -> None:
    ids = await fill(store, *[(f"r{n}", "{}") for n in range(7)])
    _, last = await walk(store)
    await store.settle([deferred(f"r{n}", i, due_at=NOON + 1.0) for n, i in enumerate(ids)])
    wall.now = NOON + 1.0

    found = await store.page(last.cursor, NOBODY, 3)
    met, _ = await walk(store, limit=3, cursor=last.cursor)

    assert not found.exhausted
    assert sorted(met) == [f"r{n}" for n in range(7)]


async def test_lanes_that_keep_failing_have_a_limit_of_their_own(store: Store, wall: Wall) -> None:
    await fill(store, *[(name, "{}") for name in ("f1", "f2", "f3", "once", "new")])
    for number in (1, 2, 3):
        await defer(store, f"f{number}", number, due_at=NOON + 1.0, failures=9)
    await defer(store, "once", 4, due_at=NOON + 2.0)
    wall.now = NOON + 3.0

    some = await store.page(Cursor(), NOBODY, 10, (5, 2))
    none = await store.page(Cursor(), NOBODY, 10, (5, 0))
    few = await store.page(Cursor(), NOBODY, 10, (1, 9))

    assert [lane.run for lane in some.lanes] == ["once", "f1", "f2", "new"]
    assert [lane.run for lane in none.lanes] == ["once", "new"]
    assert [lane.run for lane in few.lanes] == ["once", "new"]
    assert [found.exhausted for found in (some, none, few)] == [False] * 3


async def to_probe(
    store: Store, share: float | None, loaded: Collection[str] = NOBODY
) -> tuple[int, str | None] | None:
    """The patch where a probe is to go, and the run that is found there."""
    found = await store.to_probe(share, loaded)
    return found and (found[0][1], found[1] and found[1].run)


async def test_a_share_of_the_line_is_a_place_in_it_whatever_gaps_and_priorities(
    store: Store,
) -> None:
    assert await to_probe(store, 0.5) is None
    await fill(store, *((f"gone{n}", "{}") for n in range(50)))
    await store.settle([delivered(f"gone{n}", n + 1) for n in range(50)])
    await fill(store, *((f"low{n}", "{}", -7) for n in range(3)), *((f"r{n}", "{}") for n in "ab"))

    found = [await to_probe(store, share) for share in (0.0, 0.2, 0.4, 0.7, 0.9, 1.0)]

    line = ["ra", "rb", "low0", "low1", "low2", "low2"]
    assert [there[1] for there in found if there] == line


async def test_beside_a_place_is_the_next_that_is_not_loaded_and_has_not_failed(
    store: Store,
) -> None:
    await fill(store, *((f"r{n}", "{}") for n in range(9)), ("high", "{}", 3))
    await store.settle([deferred(f"r{n}", n + 1, due_at=NOON) for n in (3, 4, 5)])

    assert await to_probe(store, 0.5) == (4, "r2")
    assert await to_probe(store, 0.5, {"r2", "r6"}) == (4, "r1")
    assert await to_probe(store, 1.0, {f"r{n}" for n in range(9)}) == (9, None)
    lane = await store.beside((0, 5, ""), 1, {"r4"})
    assert lane is not None
    assert (lane.run, lane.failures) == ("r5", 1)


async def test_a_probe_for_those_that_failed_goes_to_the_one_that_is_due_longest(
    store: Store,
) -> None:
    """However often it has failed; not to one that has nothing left, or whose time is to come."""
    await fill(store, *((f"r{n}", "{}") for n in range(5)))
    assert await to_probe(store, None) is None
    await defer(store, "r0", 1, due_at=NOON - 9.0)
    await store.operate("discard", Selection(run="r0"), in_flight=())
    await defer(store, "r1", 2, due_at=NOON - 1.0)
    await defer(store, "r2", 3, due_at=NOON - 2.0, failures=7)
    await defer(store, "r3", 4, due_at=NOON + 1.0)

    assert await to_probe(store, None, {"r2"}) == (3, "r2")


async def test_runs_that_are_deferred_are_passed_by_without_being_loaded(store: Store) -> None:
    """To load a million of them, only to see that, takes a minute."""
    ids = await fill(store, *((f"r{n}", "{}") for n in range(1000)))
    await store.settle([deferred(f"r{n}", n + 1, due_at=NOON + 9) for n in range(999)])
    asked: list[str] = []
    await store._reader.run(lambda db: db.set_trace_callback(asked.append))

    met, _ = await walk(store)

    assert (met, len(ids)) == (["r999"], 1000)
    assert len([sql for sql in asked if "asked.key" in sql]) == 1


async def test_trouble_of_a_run_for_which_nothing_waits_any_more_is_told_of(
    store: Store, wall: Wall
) -> None:
    await fill(store, ("a", "{}"), ("b", "{}"))
    await defer(store, "a", 1, due_at=NOON + 1.0)
    await store.operate("discard", Selection(ids=(1,)), in_flight=())
    wall.now = NOON + 2.0

    found = await store.page(Cursor(), NOBODY, 10)

    assert found.empty == ["a"]
    await store.untrouble(found.empty)
    assert (await store.page(Cursor(), NOBODY, 10)).empty == []


async def test_a_loaded_lane_that_is_due_is_left_alone(store: Store, wall: Wall) -> None:
    await fill(store, ("a", "{}"))
    await defer(store, "a", 1, due_at=NOON - 1.0)

    found = await store.page(Cursor(), {"a"}, 10)

    assert (found.lanes, found.empty) == ([], [])


async def test_only_pending_patches_are_met(store: Store) -> None:
    await fill(store, *[(name, "{}") for name in ("delivered", "dead", "held", "gone", "left")])
    await store.settle([delivered("delivered", 1), dead("dead", 2)])
    await store.operate("hold", Selection(ids=(3,)), in_flight=())
    await store.operate("discard", Selection(ids=(4,)), in_flight=())

    met, _ = await walk(store)

    assert met == ["left"]
    assert await store.lane("dead") is None


async def test_a_lane_knows_what_its_patches_leave_out(store: Store) -> None:
    await fill(store, ("a", '{"x":1,"y":1}'), ("a", '{"x":2}'))
    await store.settle([dead("a", 1)])
    await store.settle([delivered("a", 2)])
    await store.operate("retry", Selection(ids=(1,)), in_flight=())

    lane = await store.lane("a")

    assert lane is not None
    assert lane.waiting[0].leaves_out == {"x"}
