"""The window: how many requests may be in flight, whatever happens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core import window
from syncd.core.window import Window

EVENTS = st.lists(
    st.tuples(
        st.floats(0, 5),
        st.sampled_from(["grown", "shrunk", "restarted", "bounded"]),
        st.integers(1, 60),
        st.floats(0, 10),
    ),
    max_size=80,
)


def filled(start: Window, answers: int, now: float = 0.0) -> Window:
    """After that many good answers, the window full at each."""
    here = start
    for _ in range(answers):
        here = window.grown(here, now, window.slots(here))
    return here


@given(most=st.integers(1, 50), events=EVENTS)
def test_there_is_always_one_slot_and_never_more_than_the_operator_allows(
    most: int, events: list[tuple[float, str, int, float]]
) -> None:
    here, now = window.begin(most), 0.0
    for elapsed, event, number, quiet_s in events:
        now += elapsed
        match event:
            case "grown":
                here = window.grown(here, now, number)
            case "shrunk":
                here = window.shrunk(here, now, quiet_s)
            case "restarted":
                here = window.restarted(here)
            case _:
                here = window.bounded(here, number)
        assert 1 <= window.slots(here) <= here.most
        assert 1.0 <= here.size <= here.most


@pytest.mark.parametrize(("most", "slots"), [(1, 1), (2, 2), (8, 2)])
def test_it_starts_small(most: int, slots: int) -> None:
    assert window.slots(window.begin(most)) == slots


def test_at_first_every_answer_makes_room_for_one_more() -> None:
    assert window.slots(filled(window.begin(64), 30)) == 32


def test_a_window_that_is_not_full_does_not_grow() -> None:
    here = filled(window.begin(64), 6)

    assert window.grown(here, 0.0, window.slots(here) - 1) == here


def test_overload_takes_a_third_away_once_however_many_answers_tell_of_it() -> None:
    here = filled(window.begin(64), 18)  # to 20

    once = window.shrunk(here, 10.0, quiet_s=1.0)
    many = once
    for late in (10.0, 10.5, 10.99):
        many = window.shrunk(many, late, quiet_s=1.0)

    assert window.slots(once) == 14
    assert many == once
    assert window.slots(window.shrunk(once, 11.0, quiet_s=1.0)) == 9


def test_it_does_not_grow_while_it_is_quiet() -> None:
    quiet = window.shrunk(filled(window.begin(64), 18), 10.0, quiet_s=2.0)

    assert filled(quiet, 50, now=11.9) == quiet
    assert filled(quiet, 1, now=12.0).size > quiet.size


def test_beyond_half_of_what_was_too_much_it_grows_by_one_a_cohort() -> None:
    told_off = window.shrunk(filled(window.begin(64), 18), 0.0, quiet_s=0.0)  # 20 to 14

    after_a_cohort = filled(told_off, 14)

    assert 14.5 < after_a_cohort.size <= 15.0


def test_after_an_outage_it_climbs_fast_to_half_of_what_was_known_to_work() -> None:
    restarted = window.restarted(filled(window.begin(64), 18))  # at 20

    assert window.slots(restarted) == 1
    assert window.slots(filled(restarted, 9)) == 10
    assert window.slots(filled(restarted, 15)) == 10


def test_a_lower_bound_holds_at_once_and_a_higher_one_is_grown_into() -> None:
    here = filled(window.begin(64), 18)

    assert window.slots(window.bounded(here, 5)) == 5
    assert window.slots(window.bounded(here, 100)) == 20
