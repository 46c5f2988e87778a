"""Walking the outbox past runs in trouble: each is met when it is due."""

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


async def test_the_last_in_line_is_the_newest_of_the_lowest_priority(store: Store) -> None:
    assert await store.last_in_line() is None
    await fill(store, ("a", "{}", -1), ("b", "{}"), ("c", "{}", -1), ("a", "{}"), ("d", "{}", 3))

    lane = await store.last_in_line()

    assert lane is not None
    assert lane.run == "c"
    await store.settle([delivered("c", 3)])
    lane = await store.last_in_line()
    assert lane is not None
    assert (lane.run, [patch.id for patch in lane.waiting]) == ("a", [1, 4])


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
