"""The pace: never too many in any sliding second, and hardly fewer than allowed."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.core import pace
from syncd.core.pace import Pace

LIMITS = (
    st.integers(1, 1_000).map(float)
    | st.floats(0.05, 50.0, allow_nan=False)
    | st.sampled_from([0.5, 1.0, 1.5, 2.5, 8.0, 10.0, 40.0, 999.9])
)
# Lateness of a wake-up: none, a timer's, a busy loop's, or a stopped machine's.
LATE = st.just(0.0) | st.floats(0, 0.012) | st.floats(0, 0.3) | st.floats(0, 5.0)


def departures(start: Pace, lateness: Sequence[float], most: int) -> list[float]:
    """When requests leave if each wake-up is late by the next of `lateness`, over and over."""
    now, left, here = 0.0, [], start
    for n in range(most):
        now = max(now, here.due) + (lateness[n % len(lateness)] if lateness else 0.0)
        here = pace.sent(here, now)
        left.append(now)
    return left


def most_in_one_window(left: Sequence[float], seconds: float) -> int:
    """The most departures in any half-open window of that length."""
    most = first = 0
    for last, at in enumerate(left):
        while at - left[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


@given(limit=LIMITS, lateness=st.lists(LATE, max_size=40))
@settings(max_examples=150)
def test_no_sliding_second_ever_holds_more_than_the_limit(
    limit: float, lateness: list[float]
) -> None:
    left = departures(pace.begin(limit, last_second_spent_until=0.0), lateness, int(3 * limit) + 60)

    if limit >= 1:
        assert most_in_one_window(left, 1.0) <= math.floor(limit)
    else:
        assert most_in_one_window(left, 1.0 / limit) <= 1


@given(
    limit=st.integers(1, 1_000).map(float),
    lateness=st.lists(LATE, max_size=10),
    jitter=st.lists(st.floats(0, 0.0139), min_size=1, max_size=10),
)
@settings(max_examples=60)
def test_travel_times_that_differ_by_under_fourteen_milliseconds_do_no_harm(
    limit: float, lateness: list[float], jitter: list[float]
) -> None:
    n = int(2 * limit) + 50
    left = departures(pace.begin(limit, last_second_spent_until=0.0), lateness, n)

    arrived = sorted(at + jitter[turn % len(jitter)] for turn, at in enumerate(left))

    assert most_in_one_window(arrived, 1.0) <= limit


@given(limit=LIMITS, started=st.floats(-1e6, 1e6))
def test_after_a_start_the_last_second_is_taken_for_spent(limit: float, started: float) -> None:
    begun = pace.begin(limit, last_second_spent_until=started)

    assert begun.due >= started + pace.MARGIN - 1e-9 * abs(started)


@given(
    limit=st.integers(1, 1_000).map(float),
    lateness=st.lists(st.floats(0, 0.005), min_size=1, max_size=50),
)
@settings(max_examples=40)
def test_late_timers_cost_less_than_three_percent(limit: float, lateness: list[float]) -> None:
    n = int(5 * limit) + 1
    here, now, left = pace.begin(limit, last_second_spent_until=0.0), 0.0, []
    for turn in range(n):
        if here.due > now:  # only who has slept can wake up late
            now = here.due + lateness[turn % len(lateness)]
        here = pace.sent(here, now)
        left.append(now)

    used = (n - 1) / (left[-1] - left[0])

    assert used >= 0.97 * limit


def test_a_machine_that_stood_still_does_not_catch_up_in_a_burst() -> None:
    before = pace.begin(10.0, last_second_spent_until=0.0)

    after = pace.sent(before, 1_000.0)

    assert after.due == pytest.approx(1_000.0 - pace.SLACK_S + 0.102)


def test_a_fraction_of_the_limit_is_not_rounded_up() -> None:
    for limit, whole in ((2.5, 2.0), (0.5, 0.5)):
        begun = pace.begin(limit, last_second_spent_until=0.0)
        assert pace.spacing_s(begun) == pytest.approx(pace.MARGIN / whole)


# Slower after a refusal, faster with success

EVENTS = st.lists(
    st.tuples(
        st.floats(0, 30),  # seconds since the event before
        st.sampled_from(["refused", "accepted", "sent"]),
        st.floats(0, 100),  # for how long a refusal freezes
    ),
    max_size=60,
)


@given(limit=LIMITS, events=EVENTS, reload=st.none() | LIMITS)
def test_the_rate_stays_above_nothing_and_within_the_limit(
    limit: float, events: list[tuple[float, str, float]], reload: float | None
) -> None:
    here, now = pace.begin(limit, last_second_spent_until=0.0), 0.0
    for elapsed, event, frozen_s in events:
        now += elapsed
        match event:
            case "refused":
                here = pace.refused(here, now, frozen_s)
            case "accepted":
                here = pace.accepted(here, now)
            case _:
                here = pace.sent(here, max(now, here.due))
        assert 0 < here.rate <= here.limit == limit
        assert pace.spacing_s(here) > 0
    if reload is not None:
        here = pace.limited(here, reload, now)
        assert 0 < here.rate <= here.limit == reload


def test_a_refusal_slows_down_and_success_brings_the_rate_back_within_ten_seconds() -> None:
    full = pace.begin(10.0, last_second_spent_until=0.0)

    slow = pace.refused(full, 100.0, frozen_s=2.0)
    back = slow
    for tenth in range(200):
        back = pace.accepted(back, 100.0 + tenth / 10)

    assert slow.rate == pytest.approx(7.0)
    assert back.rate == 10.0


@given(st.lists(st.floats(100.0, 101.99), max_size=20))
def test_while_frozen_the_rate_neither_climbs_nor_falls(instants: list[float]) -> None:
    frozen = pace.refused(pace.begin(10.0, last_second_spent_until=0.0), 100.0, frozen_s=2.0)

    here = frozen
    for now in sorted(instants):
        here = pace.accepted(pace.refused(here, now, frozen_s=50.0), now)

    assert here == frozen


def test_refusals_without_end_leave_a_twentieth_of_the_limit() -> None:
    here = pace.begin(40.0, last_second_spent_until=0.0)

    for n in range(100):
        here = pace.refused(here, 10.0 * n, frozen_s=1.0)

    assert here.rate == pytest.approx(2.0)


def test_a_new_limit_keeps_the_share_in_use_and_the_next_departure() -> None:
    slowed = pace.refused(pace.begin(10.0, last_second_spent_until=0.0), 5.0, frozen_s=1.0)

    faster = pace.limited(slowed, 100.0, 0.5)

    assert (faster.limit, faster.rate) == (100.0, pytest.approx(70.0))
    assert faster.due == slowed.due


def test_a_new_limit_does_not_wait_for_what_an_old_one_has_put_off() -> None:
    rare = pace.sent(pace.begin(0.001, last_second_spent_until=0.0), 2.0)

    assert rare.due > 1000.0
    assert pace.limited(rare, 8.0, 10.0).due == pytest.approx(10.0 + pace.MARGIN)
    assert pace.limited(rare, 0.25, 10.0).due == pytest.approx(10.0 + 4 * pace.MARGIN)
