"""When the watchdog is to bite: only on a relay that stands still with something to do."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.liveness import Allowance, Standing, Waits, stuck

ALLOWANCE = Allowance(answer_s=30.0, store_s=6.0, look_s=30.0, still_s=60.0)
RESTING = Standing(Waits.NEWS, still_s=1.0, oldest_s=0.0, may_go=True, can_write=True)
HOUR_S = 3600.0

SECONDS = st.floats(0, 1e6)
STANDINGS = st.builds(
    Standing, st.sampled_from(Waits), SECONDS, SECONDS, st.booleans(), st.booleans()
)


def test_a_relay_that_has_nothing_to_do_is_left_alone() -> None:
    assert stuck(RESTING, ALLOWANCE) is None
    assert stuck(replace(RESTING, still_s=29.9), ALLOWANCE) is None


def test_a_relay_that_waits_at_a_shut_gate_is_left_alone_for_ever() -> None:
    """Paused, blocked, in an outage, told to wait, or slow by the operator's own rate."""
    waiting = replace(RESTING, waits=Waits.GATE, still_s=100 * HOUR_S, may_go=False)

    assert stuck(waiting, ALLOWANCE) is None


def test_a_relay_that_does_not_pass_an_open_gate_is_stuck() -> None:
    standing = replace(RESTING, waits=Waits.GATE, still_s=61.0, may_go=True)

    assert stuck(standing, ALLOWANCE) == "nothing passes the gate, which is open; no step for 61 s"


def test_a_relay_that_does_not_come_back_from_the_database_is_stuck() -> None:
    locked = replace(RESTING, waits=Waits.NOTHING, still_s=65.0)
    hung = replace(RESTING, waits=Waits.NOTHING, still_s=67.0)

    assert stuck(locked, ALLOWANCE) is None
    assert stuck(hung, ALLOWANCE) == "the sending task has not moved for 67 s"


def test_a_relay_that_does_not_look_again_by_itself_is_stuck() -> None:
    assert stuck(replace(RESTING, still_s=90.0), ALLOWANCE) is None
    assert stuck(replace(RESTING, still_s=91.0), ALLOWANCE) is not None


def test_a_request_is_given_the_time_that_an_answer_may_take() -> None:
    assert stuck(replace(RESTING, oldest_s=96.0), ALLOWANCE) is None
    assert stuck(replace(RESTING, oldest_s=97.0), ALLOWANCE) == (
        "a request is not done with after 97 s"
    )


def test_answers_may_wait_for_the_disk_as_long_as_it_takes() -> None:
    full = replace(RESTING, oldest_s=HOUR_S, can_write=False)

    assert stuck(full, ALLOWANCE) is None


@pytest.mark.parametrize("waits", Waits)
def test_the_operators_patience_covers_everything(waits: Waits) -> None:
    """Whatever it waits for, nothing is stuck that was seen moving within WatchdogSec."""
    standing = Standing(waits, still_s=60.0, oldest_s=60.0, may_go=True, can_write=True)

    assert stuck(standing, ALLOWANCE) is None


@given(STANDINGS, SECONDS)
def test_more_patience_never_makes_it_stuck(standing: Standing, more_s: float) -> None:
    patient = replace(ALLOWANCE, still_s=ALLOWANCE.still_s + more_s)

    if stuck(standing, ALLOWANCE) is None:
        assert stuck(standing, patient) is None


@given(STANDINGS, SECONDS)
def test_who_was_left_alone_is_left_alone_after_a_step(standing: Standing, before_s: float) -> None:
    moved = replace(standing, still_s=0.0, oldest_s=0.0)

    assert stuck(moved, ALLOWANCE) is None
