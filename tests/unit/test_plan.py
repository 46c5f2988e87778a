"""The plan: the relay's own decisions, played forward over the lanes as they stand."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.fold import MAX_MEMBERS, Barrier, Waiting, fold
from syncd.core.plan import Request, own_requests, request_of, requests
from syncd.core.schedule import Lane

METADATA = st.dictionaries(
    st.sampled_from("abc"), st.sampled_from([1, "x", None, {"d": 1}, [2]]), min_size=1, max_size=2
)


def patch(patch_id: int, metadata: object = None, name: str | None = None) -> Waiting:
    return Waiting(patch_id, name, None if metadata is None else json.dumps(metadata))


def lane(run: str, *waiting: Waiting, priority: int = 0, **fields: int) -> Lane:
    return Lane(run, priority, [*waiting], **fields)


def nothing(run: str, after_id: int) -> None:
    """The outbox has no more than the lanes hold."""


def planned(*lanes: Lane, folding: bool = True) -> list[Request]:
    return [*requests(lanes, nothing, folding=folding)]


@st.composite
def outboxes(draw: st.DrawFn) -> list[Lane]:
    """Lanes whose patches have arrived in any mixture."""
    runs = draw(st.lists(st.sampled_from("rstu"), min_size=1, max_size=16))
    by_run: dict[str, list[Waiting]] = {}
    for patch_id, run in enumerate(runs, start=1):
        by_run.setdefault(run, []).append(patch(patch_id, draw(METADATA)))
    return [
        lane(run, *waiting, priority=draw(st.integers(-1, 1))) for run, waiting in by_run.items()
    ]


@given(outboxes(), st.booleans())
def test_every_patch_goes_once_and_in_the_order_of_its_run(
    lanes: list[Lane], folding: bool
) -> None:
    wanted = {each.run: [patch.id for patch in each.waiting] for each in lanes}

    found: dict[str, list[int]] = {}
    for request in planned(*lanes, folding=folding):
        found.setdefault(request.run, []).extend(request.patch_ids)

    assert found == wanted


@given(outboxes())
def test_a_request_is_the_fold_of_what_its_run_then_holds(lanes: list[Lane]) -> None:
    waiting = {each.run: [*each.waiting] for each in lanes}

    for request in planned(*lanes):
        expected = fold(waiting[request.run])
        waiting[request.run] = waiting[request.run][len(expected.ids) :]
        assert (request.patch_ids, request.body) == (expected.ids, expected.body)


@given(outboxes())
def test_where_a_fold_ends_the_next_request_of_the_run_begins(lanes: list[Lane]) -> None:
    by_run: dict[str, list[Request]] = {}
    for request in planned(*lanes):
        by_run.setdefault(request.run, []).append(request)

    for each in by_run.values():
        begins = [request.patch_ids[0] for request in each[1:]]
        assert [request.apart and request.apart.patch_id for request in each] == [*begins, None]


@given(outboxes())
def test_the_first_request_is_of_the_highest_priority_then_of_the_oldest_patch(
    lanes: list[Lane],
) -> None:
    wanted = min((-each.priority, each.waiting[0].id) for each in lanes)

    first = planned(*lanes)[0]

    assert (-first.priority, first.patch_ids[0]) == wanted


def test_an_object_for_a_key_that_is_in_goes_apart_and_the_key_is_named() -> None:
    first, second = planned(lane("r", patch(1, {"a": 1}), patch(2, {"a": {"b": 1}})))

    assert first.apart is not None
    assert (first.apart.patch_id, first.apart.barrier, first.apart.key) == (2, Barrier.VALUE, "a")
    assert (second.patch_ids, second.apart) == ((2,), None)


@pytest.mark.parametrize(
    ("folding", "alone_until", "barrier"), [(False, 0, Barrier.OFF), (True, 2, Barrier.ALONE)]
)
def test_patches_that_go_one_by_one_say_why(
    folding: bool, alone_until: int, barrier: Barrier
) -> None:
    waiting = [patch(patch_id, {"a": patch_id}) for patch_id in (1, 2)]

    found = planned(lane("r", *waiting, alone_until=alone_until), folding=folding)

    assert [request.patch_ids for request in found] == [(1,), (2,)]
    assert found[0].apart is not None
    assert found[0].apart.barrier is barrier


def test_what_cannot_be_sent_has_no_body_and_the_rest_goes_on() -> None:
    odd = Waiting(1, None, "{}", readable=False)

    found = planned(lane("r", odd, patch(2, {"a": 1})))

    assert request_of(lane("r", odd), folding=True) is None
    assert [(request.patch_ids, request.body) for request in found] == [
        ((1,), None),
        ((2,), b'{"metadata":{"a": 1}}'),
    ]


def outbox_of(patches: int) -> dict[int, Waiting]:
    return {patch_id: patch(patch_id, {"a": patch_id}) for patch_id in range(1, patches + 1)}


def test_a_run_with_more_than_is_loaded_is_read_on_as_the_relay_reads_it() -> None:
    known = outbox_of(250)

    def read(run: str, after_id: int) -> Lane | None:
        found = [it for patch_id, it in known.items() if patch_id > after_id]
        loaded = found[:MAX_MEMBERS]
        return lane(run, *loaded, more=len(found) > len(loaded)) if loaded else None  # type: ignore[arg-type]

    found = [*own_requests(read("r", 0) or lane("r"), read, folding=True, most=9)]

    assert [len(request.patch_ids) for request in found] == [100, 100, 50]
    assert [request.apart and request.apart.barrier for request in found] == [
        Barrier.COUNT,
        Barrier.COUNT,
        None,
    ]


def test_no_more_requests_are_made_up_than_are_asked_for() -> None:
    waiting = outbox_of(9).values()

    found = own_requests(lane("r", *waiting), nothing, folding=False, most=4)

    assert [request.patch_ids for request in found] == [(1,), (2,), (3,), (4,)]
