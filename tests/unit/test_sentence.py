"""The one sentence of `systemctl status`."""

from typing import Any

import pytest

from syncd.core.sentence import sentence


def status(
    state: str = "running",
    reason: str | None = None,
    *,
    eta_s: float | None = 0.0,
    rate: float = 0.0,
    error: dict[str, Any] | None = None,
    **outbox: int,
) -> dict[str, Any]:
    counts = dict.fromkeys(("pending", "deferred", "in_flight", "dead", "delivered"), 0)
    return {
        "daemon": {"state": state, "reason": reason},
        "outbox": counts | outbox,
        "throughput": {"delivered_per_s_1m": rate},
        "eta_s": eta_s,
        "last_error": error,
        "troubles": [],
    }


def test_a_quiet_daemon_says_that_nothing_waits() -> None:
    assert sentence(status(delivered=1)) == "nothing waits, 1 patch delivered"
    assert sentence(status(delivered=12_345)) == "nothing waits, 12,345 patches delivered"


def test_a_busy_one_says_how_much_how_fast_and_how_long() -> None:
    busy = status(pending=1200, in_flight=4, deferred=10, rate=7.84, eta_s=150.0)

    assert sentence(busy) == (
        "1,204 patches to deliver; 10 of them later, after a failure; 7.8 a second;"
        " done in about 2 minutes"
    )


def test_trouble_comes_first() -> None:
    blocked = status(
        "blocked",
        "the API does not accept the credentials: see the last error",
        error={"code": "INVALID_API_KEY"},
        pending=3,
        eta_s=None,
        dead=2,
    )

    assert sentence(blocked | {"troubles": ["reload refused: /etc/x: retry.cap_s"]}) == (
        "blocked: the API does not accept the credentials: see the last error (INVALID_API_KEY);"
        " reload refused: /etc/x: retry.cap_s; 3 patches to deliver;"
        " 2 dead (syncd list --state dead)"
    )


def test_in_trouble_nobody_knows_when_it_will_be_done() -> None:
    out = status("waiting", "the API is failing", pending=500, rate=3.0, eta_s=2.7)

    assert sentence(out) == "waiting: the API is failing; 500 patches to deliver"


@pytest.mark.parametrize(
    ("eta_s", "said"),
    [
        (0.0, "less than a minute"),
        (44.0, "less than a minute"),
        (50.0, "about a minute"),
        (119.0, "about a minute"),
        (120.0, "about 2 minutes"),
        (7199.0, "about 120 minutes"),
        (7200.0, "about 2 hours"),
        (200_000.0, "about 2 days"),
    ],
)
def test_the_expected_end_is_told_no_finer_than_it_is_known(eta_s: float, said: str) -> None:
    assert sentence(status(pending=1, eta_s=eta_s)).endswith(f"done in {said}")
