"""The breaker: closed until the service itself fails, then one probe at a time."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core import breaker
from syncd.core.breaker import CLOSED, RUNS, STREAK, UNSURE, Breaker, Cause, Position


def failing(runs: list[str], now: float = 0.0, wait_s: float = 10.0) -> Breaker:
    here = CLOSED
    for run in runs:
        here = breaker.bad(here, run, now, wait_s)
    return here


OPEN = failing(["a", "b", "c", "a", "b"])
PROBING = breaker.passed(OPEN)


def test_it_opens_for_a_streak_from_several_runs() -> None:
    assert OPEN.position is Position.OPEN
    assert OPEN.cause is Cause.SERVER
    assert (OPEN.probe_at, OPEN.trips) == (10.0, 1)


@given(st.lists(st.sampled_from("ab"), max_size=100))
def test_failures_of_one_or_two_runs_say_nothing_about_the_service(runs: list[str]) -> None:
    assert failing(runs).position is Position.CLOSED


@given(st.lists(st.sampled_from("abcdef"), max_size=30))
def test_it_opens_exactly_when_the_streak_is_long_and_wide_enough(runs: list[str]) -> None:
    wide_enough = len(runs) >= STREAK and len(set(runs)) >= RUNS

    assert (failing(runs).position is Position.OPEN) is wide_enough


def test_a_good_answer_ends_the_streak() -> None:
    here = breaker.good(failing(["a", "b", "c", "a"]))

    assert breaker.bad(here, "b", 0.0, 10.0).position is Position.CLOSED


@pytest.mark.parametrize("again", [True, False])
def test_what_a_run_opens_that_had_failed_before_is_doubtful(again: bool) -> None:
    opened = breaker.bad(failing(["a", "b", "c", "a"]), "b", 0.0, 10.0, again=again)
    probed = breaker.bad(PROBING, "a", 20.0, 10.0, probe=True, again=again)

    assert (opened.position, opened.doubtful) == (Position.OPEN, again)
    assert (probed.position, probed.doubtful, probed.trips) == (Position.OPEN, again, 2)
    assert not breaker.good(breaker.passed(probed)).doubtful


def test_one_refusal_of_the_credentials_is_enough() -> None:
    here = breaker.locked_out(CLOSED, 5.0, 10.0)

    assert (here.position, here.cause) == (Position.OPEN, Cause.CREDENTIALS)
    assert here.probe_at == 15.0


def test_closed_lets_everything_pass_and_takes_no_note_of_it() -> None:
    assert breaker.may_pass(CLOSED, 0.0)
    assert breaker.passed(CLOSED) == CLOSED


def test_open_lets_nothing_pass_before_its_time_and_then_one_probe() -> None:
    assert not breaker.may_pass(OPEN, 9.99)
    assert breaker.may_pass(OPEN, 10.0)
    assert not breaker.may_pass(PROBING, 1e9)


def test_a_good_probe_closes_it_with_a_clean_slate() -> None:
    assert breaker.good(PROBING) == UNSURE
    assert replace(UNSURE, unsure=False) == CLOSED
    assert breaker.good(breaker.locked_out(PROBING, 0.0, 1.0, probe=True)) == CLOSED


def test_after_an_outage_it_is_unsure_until_one_whose_turn_it_is_has_a_good_answer() -> None:
    failed = breaker.bad(UNSURE, "a", 0.0, 10.0)

    assert failed.unsure
    assert breaker.good(failed, aside=True) == UNSURE
    assert breaker.good(failed) == CLOSED
    assert breaker.good(CLOSED, aside=True) == CLOSED


@given(st.integers(1, 10**6), st.integers(1, 60), st.floats(0.0, 1.0))
def test_each_part_of_the_line_is_met_by_one_of_a_few_probes(
    trips: int, parts: int, begin: float
) -> None:
    """Both ends, and those that had failed, at every fifth."""
    turns = [breaker.share(trip) for trip in range(trips, trips + 5 * parts)]
    within = [share for share in turns if share not in (0.0, 1.0, None)]
    part = min(begin, 1.0 - 1.0 / parts)

    assert [turns.count(share) for share in (0.0, 1.0, None)] == [parts] * 3
    assert any(part <= share <= part + 1.0 / parts for share in within if share is not None)


@pytest.mark.parametrize("cause", list(Cause))
def test_each_failed_probe_opens_it_again_and_is_counted(cause: Cause) -> None:
    here = breaker.locked_out(CLOSED, 0.0, 1.0) if cause is Cause.CREDENTIALS else OPEN
    for trip in range(2, 6):
        now = 100.0 * trip
        probing = breaker.passed(here)
        here = (
            breaker.locked_out(probing, now, 1.0, probe=True)
            if cause is Cause.CREDENTIALS
            else breaker.bad(probing, "a", now, 1.0, probe=True)
        )
        assert (here.position, here.cause, here.trips) == (Position.OPEN, cause, trip)
        assert here.probe_at == now + 1.0


def test_answers_from_before_it_opened_do_not_push_the_probe_away() -> None:
    assert breaker.bad(OPEN, "late", 9.0, 500.0) == OPEN
    locked = breaker.locked_out(CLOSED, 0.0, 10.0)
    assert breaker.locked_out(locked, 9.0, 500.0) == locked


def test_credentials_refused_while_the_server_fails_are_what_it_is_about_now() -> None:
    here = breaker.locked_out(OPEN, 9.0, 500.0)

    assert (here.cause, here.probe_at) == (Cause.CREDENTIALS, 509.0)


def test_what_the_probe_has_met_last_is_what_it_is_open_for() -> None:
    """A server that fails while we are locked out does not let us in, and refuses us no more."""
    probing = breaker.passed(breaker.locked_out(CLOSED, 0.0, 10.0))
    failing = breaker.bad(probing, "a", 20.0, 10.0, probe=True)
    refused = breaker.locked_out(breaker.passed(failing), 30.0, 10.0, probe=True)

    assert (failing.position, failing.cause, failing.trips) == (Position.OPEN, Cause.SERVER, 2)
    assert (refused.position, refused.cause) == (Position.OPEN, Cause.CREDENTIALS)
    assert breaker.bad(probing, "late", 20.0, 10.0) == probing


def test_a_probe_that_was_not_sent_may_be_sent_again() -> None:
    assert breaker.given_back(PROBING) == OPEN
    assert breaker.given_back(CLOSED) == CLOSED
    assert breaker.given_back(OPEN) == OPEN


def test_in_a_hurry_the_probe_goes_at_once() -> None:
    assert breaker.may_pass(breaker.hurried(OPEN, 3.0), 3.0)
    assert breaker.hurried(CLOSED, 3.0) == CLOSED
    assert breaker.hurried(PROBING, 3.0) == PROBING


def failed(here: Breaker, cause: Cause, now: float, wait_s: float = 10.0) -> Breaker:
    """The next probe goes, and meets that."""
    probing = breaker.passed(here)
    if cause is Cause.CREDENTIALS:
        return breaker.locked_out(probing, now, wait_s, probe=True)
    return breaker.bad(probing, "a", now, wait_s, probe=True)


@pytest.mark.parametrize("cause", list(Cause))
def test_probes_that_were_hurried_leave_the_next_ones_time_as_it_was(cause: Cause) -> None:
    """However often somebody asks: that the service is back is noticed no later."""
    before = here = failed(OPEN, cause, 10.0)
    for asked_at in range(11, 19):
        here = failed(breaker.hurried(here, asked_at), cause, asked_at + 0.5, 500.0)

    assert here == before
    assert not breaker.may_pass(here, 19.9)
    assert breaker.may_pass(here, 20.0)


@pytest.mark.parametrize("cause", list(Cause))
def test_a_hurried_probe_that_takes_until_the_next_is_due_is_that_one(cause: Cause) -> None:
    here = failed(breaker.hurried(OPEN, 9.0), cause, 39.0)

    assert (here.trips, here.probe_at) == (2, 49.0)


def test_a_probe_that_was_hurried_raises_no_doubt_but_may_end_it() -> None:
    def asked(here: Breaker, now: float, *, again: bool) -> bool:
        probing = breaker.passed(breaker.hurried(here, 21.0))
        return breaker.bad(probing, "a", now, 10.0, probe=True, again=again).doubtful

    sure = breaker.bad(PROBING, "b", 20.0, 10.0, probe=True)
    doubtful = breaker.bad(PROBING, "b", 20.0, 10.0, probe=True, again=True)

    for now in (22.0, 52.0):  # before the next is due, and after
        assert not asked(sure, now, again=True)
        assert asked(doubtful, now, again=True)
        assert not asked(doubtful, now, again=False)


def test_a_probe_to_one_that_had_failed_raises_no_doubt_while_it_goes_aside_of_others() -> None:
    sure = breaker.bad(PROBING, "a", 20.0, 10.0, probe=True, again=True, aside=True)
    doubtful = replace(PROBING, doubtful=True)

    assert not sure.doubtful
    assert breaker.bad(doubtful, "a", 20.0, 10.0, probe=True, again=True, aside=True).doubtful


LATE = ["late failure", "late refusal"]  # of requests that were sent before it opened
EVENTS = st.lists(
    st.tuples(
        st.floats(0, 20),
        st.sampled_from([*["ask", "good", "bad", "locked out", "given back", "hurried"], *LATE]),
        st.sampled_from("abcd"),
        st.floats(0, 300),
    ),
    max_size=60,
)


@given(EVENTS)
def test_whatever_happens_a_second_probe_waits_for_the_fate_of_the_first(
    events: list[tuple[float, str, str, float]],
) -> None:
    """Once open, every request that passes is a probe, and its end is heard before the next."""
    here, now, probes_out = CLOSED, 0.0, 0
    for elapsed, event, run, wait_s in events:
        now += elapsed
        was_open = here.position is not Position.CLOSED
        match event:
            case "ask" if breaker.may_pass(here, now):
                probes_out = probes_out + 1 if was_open else 0
                here = breaker.passed(here)
            case "good":
                here, probes_out = breaker.good(here), 0
            case "bad":
                here = breaker.bad(here, run, now, wait_s, probe=True)
                probes_out = 0
            case "locked out":
                here = breaker.locked_out(here, now, wait_s, probe=True)
                probes_out = 0
            case "late failure":
                here = breaker.bad(here, run, now, wait_s)
            case "late refusal":
                here = breaker.locked_out(here, now, wait_s)
            case "given back":
                here, probes_out = breaker.given_back(here), 0
            case "hurried":
                here = breaker.hurried(here, now)
        assert probes_out <= 1
        assert here.trips >= 0
        if here.position is Position.OPEN:
            assert here.probe_at <= now + 300
