"""Runs that are refused alike: when that is told as a wrong setting, and when not."""

from syncd.core.alike import MANY, Alike
from syncd.core.outcome import Blame, Trouble

BAD = Trouble(Blame.PATCH, "INVALID_REQUEST", "The version is missing.", 400)
RUNS = [*map(str, range(MANY))]


def after(*runs: str, trouble: Trouble = BAD) -> Alike:
    alike = Alike()
    for run in runs:
        alike.add(run, trouble)
    return alike


def test_many_runs_refused_alike_look_like_a_wrong_setting() -> None:
    assert after(*RUNS).trouble() == (
        "at least 20 runs in a row were refused alike, HTTP 400 (INVALID_REQUEST): check"
        " api.version and api.workspace_id (syncd check --online), then"
        " syncd retry --reason INVALID_REQUEST"
    )


def test_a_few_are_their_producers_mistake() -> None:
    assert after(*RUNS[1:]).trouble() is None


def test_one_run_counts_once_however_often_it_is_refused() -> None:
    assert after(*["r"] * MANY).trouble() is None


def test_a_delivery_shows_that_the_settings_are_right() -> None:
    alike = after(*RUNS)
    alike.end()
    alike.add("r", BAD)

    assert alike.trouble() is None


def test_another_refusal_between_begins_anew() -> None:
    alike = after(*RUNS)
    alike.add("r", Trouble(Blame.PATCH, "INVALID_REQUEST", "Too large.", 422))

    assert alike.trouble() is None


def test_no_more_is_remembered_than_is_told() -> None:
    assert len(after(*map(str, range(100 * MANY))).runs) == MANY
