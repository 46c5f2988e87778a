"""When it will be done: never sooner than what was seen allows; no number where none is known."""

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from syncd.core.estimate import Lately, eta_s
from syncd.core.figures import RelayFigures
from syncd.core.minute import SECONDS
from syncd.core.sending import Sending

NOW = 1_767_225_600.0
RUNNING = Sending("running", requests_per_s=8.0)
A_MINUTE = float(SECONDS)

patches = st.integers(1, 10_000_000)
sendings = st.builds(
    Sending,
    st.just("running"),
    closed_until=st.none() | st.floats(NOW - 100, NOW + 1000),
    requests_per_s=st.none() | st.floats(0.001, 10_000),
    patches_per_request=st.floats(1, 100),
)
minutes = st.builds(Lately, st.integers(0, 5000), st.integers(0, 50_000), st.floats(0, 1e6))


def closed_s(sending: Sending) -> float:
    return max(0.0, (sending.closed_until or NOW) - NOW)


@given(sendings, minutes, st.floats(0, 1e5))
def test_where_nothing_waits_it_is_done(sending: Sending, lately: Lately, due_s: float) -> None:
    assert eta_s(0, sending, lately, now=NOW, last_due_s=due_s) == 0.0


@given(patches, sendings, minutes, st.floats(0, 1e5))
def test_it_is_never_sooner_than_the_gate_and_the_last_run_in_trouble_allow(
    pending: int, sending: Sending, lately: Lately, due_s: float
) -> None:
    found = eta_s(pending, sending, lately, now=NOW, last_due_s=due_s)

    assert found is None or found >= max(closed_s(sending), due_s)


@given(patches, sendings, minutes)
def test_after_a_minute_of_work_it_is_never_sooner_than_at_that_minutes_pace(
    pending: int, sending: Sending, lately: Lately
) -> None:
    assume((sending.requests_per_s or 1.0) >= 0.1)

    found = eta_s(pending, sending, replace(lately, worked_s=A_MINUTE), now=NOW)

    if found is not None:
        # As products, for the sake of rounding.
        assert (found - closed_s(sending)) * lately.done * (1 + 1e-9) >= pending * 60 * (1 - 1e-9)


@given(patches, sendings, st.integers(1, 5000), st.floats(0, 1e6))
def test_while_nothing_succeeds_nobody_knows(
    pending: int, sending: Sending, failed: int, worked_s: float
) -> None:
    assert eta_s(pending, sending, Lately(failed, 0, worked_s), now=NOW) is None


@given(patches, sendings)
def test_after_a_minute_of_silence_with_work_to_do_nobody_knows(
    pending: int, sending: Sending
) -> None:
    assume((sending.requests_per_s or 1.0) >= 0.1)

    assert eta_s(pending, sending, Lately(worked_s=A_MINUTE), now=NOW) is None


@given(patches, minutes)
def test_while_nothing_may_go_nobody_knows(pending: int, lately: Lately) -> None:
    assert eta_s(pending, Sending("paused"), lately, now=NOW) is None


@given(patches, sendings, minutes, st.integers(1, 5000))
def test_requests_that_fail_never_make_it_sooner(
    pending: int, sending: Sending, lately: Lately, failed: int
) -> None:
    assume(lately.requests)
    before = eta_s(pending, sending, lately, now=NOW)
    worse = replace(lately, requests=lately.requests + failed)
    after = eta_s(pending, sending, worse, now=NOW)

    assert (before is None) == (after is None)
    assert before is None or (after or 0.0) >= before


def test_before_anything_was_tried_the_pace_in_use_is_believed() -> None:
    folded = replace(RUNNING, patches_per_request=4.0)

    assert eta_s(800, RUNNING, Lately(), now=NOW) == 100.0
    assert eta_s(800, folded, Lately(), now=NOW) == 25.0


def test_in_the_first_minute_failures_count_by_their_share() -> None:
    assert eta_s(800, RUNNING, Lately(requests=20, done=5, worked_s=3.0), now=NOW) == 400.0


def test_a_pace_that_is_too_slow_for_a_minute_to_show_it_is_believed() -> None:
    """One request in 100 seconds: a minute without any is as it should be."""
    slow = Sending("running", requests_per_s=0.01)

    assert eta_s(3, slow, Lately(worked_s=A_MINUTE), now=NOW) == 300.0
    assert eta_s(3, slow, Lately(1, 0, A_MINUTE), now=NOW) is None


def test_an_open_gate_that_was_shut_half_of_the_minute_is_as_fast_as_that() -> None:
    """A vendor that lets 30 through and then asks for silence, again and again."""
    assert eta_s(300, RUNNING, Lately(60, 30, A_MINUTE), now=NOW) == 600.0


def test_figures_of_the_last_minute_hold_all_requests_and_what_they_ended() -> None:
    figures = RelayFigures()
    figures.works(100.0)
    for second in range(100, 170):
        figures.answered(0.1, float(second))
    figures.ends(3, 165.0)
    figures.works(168.0)

    assert figures.lately(169.5) == Lately(requests=60, done=3, worked_s=69.5)

    figures.rests()

    assert figures.lately(169.5).worked_s == 0.0
