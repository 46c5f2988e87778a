"""What whoever waits is told of a status, and what is the same thing told again."""

from typing import Any

import pytest

from syncd.core.explain import explanations, gist


def status(state: str, reason: str | None = None, *troubles: str) -> dict[str, Any]:
    daemon = {"running": state != "stopped", "state": state, "reason": reason}
    return {"daemon": daemon, "troubles": list(troubles)}


@pytest.mark.parametrize(
    ("state", "reason", "told"),
    [
        ("running", None, []),
        ("draining", "stopping", []),  # the next look finds it stopped, or started again
        ("paused", "an operator has", ["paused: an operator has"]),
        ("blocked", "no token", ["blocked: no token"]),
        ("waiting", "the API is failing", ["waiting: the API is failing"]),
        ("stopped", None, ["nothing moves until the daemon runs: waiting for it"]),
    ],
)
def test_a_state_that_keeps_patches_waiting_is_told_to_who_waits(
    state: str, reason: str | None, told: list[str]
) -> None:
    """Not to who has seen the end of it; what else is wrong is told to both."""
    now = status(state, reason, "the spool waits")

    assert [*explanations(now, goes_on=True)] == [*told, "the spool waits"]
    assert [*explanations(now, goes_on=False)] == ["the spool waits"]


def test_what_differs_in_figures_only_is_the_same_thing() -> None:
    first = "waiting: the API is failing; next probe at 2026-01-01T00:00:01.250Z"
    later = "waiting: the API is failing; next probe at 2026-01-01T00:05:59.001Z"

    assert gist(first) == gist(later)
    assert gist("no answer within 5 s") == gist("no answer within 1.4 s")
    assert gist(first) != gist("waiting: the API asked to wait until 2026-01-01T00:05:59.001Z")
