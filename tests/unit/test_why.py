"""The chain of causes: nothing waits without one, and nothing is expected that nobody sends."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.fold import Barrier
from syncd.core.plan import Apart
from syncd.core.sending import Out, Sending
from syncd.core.why import Ahead, Cause, Facts, Link, chain, expected_s

NOW = 1_770_638_400.0
RUNNING = Sending("running", requests_per_s=8.0)
WAITING = Facts(7, "pending", ahead=Ahead(0, 0))
STATES = ("running", "stopped", "paused", "blocked", "waiting", "draining")

facts = st.builds(
    Facts,
    patch_id=st.just(7),
    state=st.sampled_from(["pending", "held", "dead", "delivered", "discarded"]),
    settled_at=st.just(NOW - 60),
    together=st.just((7,)),
    out=st.none() | st.builds(Out, st.sampled_from([(7,), (6, 7), (5,)]), st.just(0.4)),
    older=st.just((5, 6)),
    older_patches=st.sampled_from([0, 2]),
    own_requests=st.integers(0, 3),
    due_at=st.none() | st.floats(NOW - 60, NOW + 60),
    failures=st.integers(0, 3),
    ahead=st.none() | st.builds(Ahead, st.integers(0, 9), st.integers(0, 9)),
)
sendings = st.builds(
    Sending,
    st.sampled_from(STATES),
    closed_until=st.none() | st.floats(NOW - 60, NOW + 60),
    requests_per_s=st.none() | st.floats(0.1, 100),
)


def causes(facts: Facts, sending: Sending = RUNNING) -> list[Cause]:
    return [link.cause for link in chain(facts, sending, NOW)]


@given(facts, sendings)
def test_there_is_always_a_cause(facts: Facts, sending: Sending) -> None:
    assert causes(facts, sending)


@given(facts, sendings)
def test_a_patch_that_is_not_out_waits_for_whatever_stops_all_sending(
    facts: Facts, sending: Sending
) -> None:
    is_out = facts.out is not None and 7 in facts.out.patch_ids
    stops = facts.state == "pending" and not is_out and sending.state != "running"

    assert (sending.state in [cause.value for cause in causes(facts, sending)]) == stops


@given(facts, sendings)
def test_nothing_is_expected_while_nothing_is_sent(facts: Facts, sending: Sending) -> None:
    assert expected_s(facts, replace(sending, requests_per_s=None), NOW) is None


@given(facts, sendings, st.integers(1, 9))
def test_nobody_goes_sooner_for_having_more_before_him(
    facts: Facts, sending: Sending, more: int
) -> None:
    ahead = facts.ahead or Ahead(0, 0)
    soon = expected_s(replace(facts, ahead=ahead), sending, NOW)
    late = expected_s(
        replace(facts, ahead=replace(ahead, requests=ahead.requests + more)), sending, NOW
    )

    assert soon is None or (late is not None and late >= soon)


def test_the_next_to_go_waits_for_its_turn_alone() -> None:
    assert chain(WAITING, RUNNING, NOW) == [Link(Cause.TURN, patches=0, requests=0)]


def test_the_chain_goes_from_the_patch_to_the_daemon() -> None:
    waiting = replace(
        WAITING,
        out=Out((4,), 0.4),
        older=(5, 6),
        older_patches=2,
        own_requests=1,
        apart=Apart(7, Barrier.VALUE, "a"),
        due_at=NOW + 5,
        failures=2,
        error="http_503: no",
        ahead=Ahead(9, 3),
    )

    assert causes(waiting, Sending("paused")) == [
        Cause.IN_FLIGHT,
        Cause.OLDER,
        Cause.APART,
        Cause.DEFERRED,
        Cause.PAUSED,
        Cause.TURN,
    ]


def test_a_patch_in_flight_waits_for_its_answer_and_for_nothing_else() -> None:
    flying = replace(WAITING, out=Out((6, 7), 0.4), due_at=NOW + 5, failures=1)

    assert causes(flying, Sending("paused")) == [Cause.IN_FLIGHT]


def test_a_failure_whose_wait_is_over_defers_no_more() -> None:
    assert causes(replace(WAITING, due_at=NOW - 1, failures=3)) == [Cause.TURN]


@pytest.mark.parametrize("state", ["dead", "held", "discarded"])
def test_what_does_not_wait_says_what_became_of_it(state: str) -> None:
    settled = Facts(7, state, "why", NOW - 9)

    assert chain(settled, Sending("stopped"), NOW) == [Link(Cause(state), "why", since=NOW - 9)]


def test_delivered_names_its_company_and_a_run_that_is_watched() -> None:
    delivered = Facts(7, "delivered", settled_at=NOW - 9, together=(6, 7))

    assert [link.patch_ids for link in chain(delivered, RUNNING, NOW)] == [(6, 7)]
    watched = chain(replace(delivered, watched_until=NOW + 9), RUNNING, NOW)
    assert [(link.cause, link.until) for link in watched[1:]] == [(Cause.WATCHED, NOW + 9)]


def test_it_is_expected_after_the_silence_the_queue_and_its_own_run() -> None:
    sending = replace(RUNNING, closed_until=NOW + 10)

    assert expected_s(replace(WAITING, ahead=Ahead(99, 16)), sending, NOW) == 12.0
    assert expected_s(replace(WAITING, own_requests=4), sending, NOW) == 10.5


def test_a_deferred_run_is_not_expected_before_its_next_try() -> None:
    assert expected_s(replace(WAITING, due_at=NOW + 30), RUNNING, NOW) == 30.0
