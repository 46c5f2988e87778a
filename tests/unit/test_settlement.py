"""What is written down about each kind of answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.answer import Run
from syncd.core.fold import Fold, Waiting
from syncd.core.outcome import (
    Blame,
    Confirmed,
    LockedOut,
    Outcome,
    Refused,
    Trouble,
    Unavailable,
)
from syncd.core.schedule import Lane
from syncd.core.settlement import (
    Dead,
    Deferred,
    Delivered,
    Noted,
    Patience,
    RunDead,
    Settlement,
    settlements,
)

NOW = 1_000_000.0
RUN = Run("r", b"{}", None, None, None)
PATIENCE = Patience(base_s=1.0, cap_s=300.0, max_age_s=0)


def trouble(blame: Blame) -> Trouble:
    return Trouble(blame, "code", "message")


def decide(
    outcome: Outcome,
    *,
    sent: tuple[int, ...] = (1, 2),
    failures: int = 0,
    troubled: bool = False,
    patience: Patience = PATIENCE,
    draw: float = 0.5,
    created_at: tuple[float, ...] = (NOW, NOW, NOW),
) -> list[Settlement]:
    """The settlements for a lane of the patches 1 to 3."""
    waiting = [Waiting(i, "n", None, at) for i, at in enumerate(created_at, start=1)]
    lane = Lane("r", 0, waiting, failures, troubled)
    return settlements(lane, Fold(sent, b"{}"), outcome, patience, now=NOW, draw=draw)


@pytest.mark.parametrize("troubled", [True, False])
def test_a_confirmation_delivers_exactly_what_was_sent_and_ends_trouble(troubled: bool) -> None:
    assert decide(Confirmed(RUN), troubled=troubled) == [Delivered(RUN, (1, 2), troubled)]


def test_a_refused_patch_is_parked_alone() -> None:
    refused = Refused(trouble(Blame.PATCH))

    assert decide(refused, sent=(1,), troubled=True) == [Dead("r", (1,), refused.trouble, True)]


def test_a_refused_fold_parks_nobody_because_the_guilty_one_is_not_known() -> None:
    assert decide(Refused(trouble(Blame.PATCH)), sent=(1, 2)) == []


@pytest.mark.parametrize("sent", [(1,), (1, 2)])
def test_an_unknown_run_parks_whatever_waits_for_it(sent: tuple[int, ...]) -> None:
    unknown = Refused(trouble(Blame.RUN))

    assert decide(unknown, sent=sent) == [RunDead("r", unknown.trouble)]


def test_refused_credentials_are_noted_and_change_no_patch() -> None:
    locked = LockedOut(trouble(Blame.CREDENTIALS))

    assert decide(locked, failures=3) == [Noted(locked.trouble)]


def test_a_failing_server_defers_the_lane_with_its_own_count() -> None:
    later = Unavailable(trouble(Blame.SERVER))

    (deferred,) = decide(later, failures=2)

    assert isinstance(deferred, Deferred)
    assert (deferred.run_id, deferred.ids, deferred.trouble) == ("r", (1, 2), later.trouble)
    assert (deferred.due_at, deferred.failures) == (NOW + 0.5 * 4.0, 3)


def test_a_request_without_an_answer_leaves_its_run_suspect_for_a_while() -> None:
    (silent,) = decide(Unavailable(trouble(Blame.SERVER), ambiguous=True))
    (told,) = decide(Unavailable(trouble(Blame.SERVER), ambiguous=False))

    assert isinstance(silent, Deferred)
    assert isinstance(told, Deferred)
    assert silent.suspect_until == NOW + PATIENCE.suspect_s
    assert told.suspect_until is None


def test_a_retry_after_is_waited_for_even_if_the_backoff_is_shorter() -> None:
    (deferred,) = decide(Unavailable(trouble(Blame.SERVER), retry_after_s=60.0))

    assert isinstance(deferred, Deferred)
    assert deferred.due_at == NOW + 60.0


@given(
    failures=st.integers(0, 1_000_000),
    draw=st.floats(0, 1, exclude_max=True),
    asked=st.none() | st.floats(0, 86_400),
)
def test_a_lane_is_never_due_before_now_nor_later_than_asked_or_the_cap(
    failures: int, draw: float, asked: float | None
) -> None:
    (deferred,) = decide(
        Unavailable(trouble(Blame.SERVER), asked), failures=failures, draw=draw, sent=(1,)
    )

    assert isinstance(deferred, Deferred)
    assert NOW + (asked or 0.0) <= deferred.due_at <= NOW + max(asked or 0.0, PATIENCE.cap_s)
    assert deferred.failures == failures + 1


def test_without_a_maximum_age_nothing_is_ever_given_up() -> None:
    settled = decide(Unavailable(trouble(Blame.SERVER)), created_at=(0.0, 0.0, 0.0))

    assert [type(one) for one in settled] == [Deferred]


def test_patches_past_the_maximum_age_are_given_up_and_only_those_that_were_sent() -> None:
    patient = Patience(base_s=1.0, cap_s=300.0, max_age_s=60.0)
    ages = (NOW - 61.0, NOW - 59.0, NOW - 600.0)

    expired, deferred = decide(
        Unavailable(trouble(Blame.SERVER)), patience=patient, created_at=ages, sent=(1, 2)
    )

    assert isinstance(expired, Dead)
    assert (expired.patch_ids, expired.trouble.code) == ((1,), "expired")
    assert expired.trouble.message == "older than max_age_s; last: message"
    assert isinstance(deferred, Deferred)


@pytest.mark.parametrize(
    "outcome", [LockedOut(trouble(Blame.CREDENTIALS)), Confirmed(RUN)], ids=["locked out", "good"]
)
def test_age_is_asked_only_when_the_server_fails(outcome: Outcome) -> None:
    patient = Patience(base_s=1.0, cap_s=300.0, max_age_s=60.0)

    settled = decide(outcome, patience=patient, created_at=(0.0, 0.0, 0.0))

    assert not any(isinstance(one, Dead) for one in settled)
