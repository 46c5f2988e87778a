"""Runs that the API does not know: when that is told as a wrong setting, and when not."""

from syncd.core.outcome import Blame, Trouble
from syncd.core.unknown import MANY, Unknown

NOT_FOUND = Trouble(Blame.RUN, "http_404", "HTTP 404 without a message", 404)


def after(*runs: str, trouble: Trouble = NOT_FOUND) -> Unknown:
    unknown = Unknown()
    for run in runs:
        unknown.add(run, trouble)
    return unknown


def test_many_unknown_runs_and_none_confirmed_look_like_a_wrong_setting() -> None:
    line = after(*map(str, range(MANY))).trouble(confirmed=0)

    assert line == (
        "the API knows none of the first 10 runs: check api.base_url and api.workspace_id, then"
        " syncd retry --reason http_404"
    )


def test_a_few_unknown_runs_are_their_producers_mistake() -> None:
    assert after(*map(str, range(MANY - 1))).trouble(confirmed=0) is None


def test_one_run_counts_once_however_often_it_is_refused() -> None:
    assert after(*["r"] * MANY).trouble(confirmed=0) is None


def test_one_run_that_is_known_shows_that_the_settings_are_right() -> None:
    assert after(*map(str, range(MANY))).trouble(confirmed=1) is None


def test_runs_that_are_gone_were_known() -> None:
    gone = Trouble(Blame.RUN, "http_410", "gone", 410)

    assert after(*map(str, range(MANY)), trouble=gone).trouble(confirmed=0) is None


def test_no_more_is_remembered_than_is_told() -> None:
    assert len(after(*map(str, range(100 * MANY))).runs) == MANY
