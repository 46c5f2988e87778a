"""What people read: the status screen and its words."""

from typing import Any

import click
import pytest

from syncd.cli.printing import ago, many, plain, span
from syncd.cli.screen import screen

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def status(**daemon: object) -> dict[str, Any]:
    """A daemon with nothing to do, but for what is given."""
    return {
        "daemon": {
            "running": True,
            "state": "running",
            "reason": None,
            "pid": 4242,
            "version": "0.1.0",
            "started_at": "2025-12-31T22:00:00.000Z",
            **daemon,
        },
        "outbox": {
            "pending": 0,
            "deferred": 0,
            "in_flight": 0,
            "held": 0,
            "dead": 0,
            "delivered": 12345,
            "discarded": 0,
            "suspect": 0,
            "oldest_pending_s": None,
        },
        "snapshots": {"count": 1},
        "gate": {
            "limit_per_s": 8.0,
            "rate_per_s": 8.0,
            "max_in_flight": 8,
            "window": 4,
            "closed_until": None,
            "breaker": "closed",
        },
        "throughput": {"delivered_per_s_1m": 3.25, "requests_per_s_1m": 1.5},
        "eta_s": 0.0,
        "spool": {"waiting": 0, "rejected": 0},
        "last_error": None,
        "troubles": [],
    }


def shown(status: dict[str, Any]) -> str:
    """The screen as text without colours."""
    return click.unstyle("\n".join(screen(status, NOW)))


def test_what_else_is_wrong_has_a_line_each() -> None:
    wrong = status() | {"troubles": ["the spool waits: [Errno 28] No space left on device"]}

    assert "  trouble      the spool waits: [Errno 28] No space left on device" in shown(wrong)


def test_what_is_the_reason_and_a_trouble_too_is_said_once() -> None:
    moved = "a.db: the database was moved"

    screen = shown(status(reason=moved) | {"troubles": [moved, "the spool waits: x"]})

    assert screen.count(moved) == 1
    assert "  reason       a.db" in screen
    assert "  trouble      the spool waits: x" in screen


def test_a_calm_screen_gives_no_advice() -> None:
    """Nothing is stuck: figures only, all within 80 columns."""
    text = shown(status())

    assert "running  ·  pid 4242, up 2 h 0 min" in text
    assert "12,345   1 run cached" in text
    assert "8/s of 8/s, 4 of 8 at once" in text
    assert "90 requests, 195 patches delivered" in text
    assert "watched" not in text
    assert "nothing waits" in text
    assert "Next:" not in text
    assert max(map(len, text.splitlines())) < 80


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("paused", "an operator has paused sending: syncd resume"),
        ("blocked", "the API does not accept the credentials: see the last error"),
        ("waiting", "the API is failing; next probe at 2026-01-01T00:00:30.000Z"),
        ("waiting", "nothing can be written down: /srv/data/syncd.db: " + "disk full, " * 9),
    ],
)
def test_no_line_is_wider_than_a_terminal_whatever_is_wrong(
    state: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    wrong = status(state=state, reason=reason, started_at="2024-01-01T00:00:00.000Z")
    wrong["outbox"] |= {"pending": 1_234_567, "deferred": 1_234_567, "oldest_pending_s": 172_799.0}
    wrong["outbox"] |= {"held": 1_234_567, "dead": 1_234_567, "suspect": 1_234_567}
    wrong["gate"] |= {"closed_until": "2026-01-01T01:59:00.000Z", "rate_per_s": 1234.567}
    wrong["troubles"] = ["the last reload was refused: /etc/syncd/syncd.toml: " + "a key; " * 20]
    wrong["last_error"] = {
        "at": "2025-12-31T23:59:30.000Z",
        "code": "SERVICE_UNAVAILABLE",
        "message": "The workflow run was not found. " * 4,
        "request_id": "req_xKm9pNv3qWsY_jL2tR5Dh",
    }

    text = shown(wrong)

    assert max(map(len, text.splitlines())) <= 80
    assert " ".join(reason.split()) in " ".join(text.split())


def test_a_database_that_was_moved_is_put_back_before_anything_else() -> None:
    advice = shown(status(state="paused", moved=True)).partition("\nNext:\n")[2].splitlines()

    assert [line.strip().partition("   ")[0] for line in advice] == [
        "put the database back",
        "syncd resume",
    ]


@pytest.mark.parametrize(
    ("state", "advice"),
    [("paused", "syncd resume"), ("blocked", "syncd check --online")],
)
def test_a_state_with_a_remedy_names_it(state: str, advice: str) -> None:
    """And why it is so."""
    text = shown(status(state=state, reason="somebody said so"))

    assert f"  {state}  ·  pid 4242, up 2 h 0 min\n  reason       somebody said so\n" in text
    assert advice in text


def test_nothing_that_waits_has_no_oldest() -> None:
    """What is in flight is on a line of its own."""
    busy = status()
    busy["outbox"] |= {"in_flight": 1, "oldest_pending_s": 0.7}

    assert "oldest" not in shown(busy)


def test_an_open_breaker_says_until_when() -> None:
    """With the last error, which is its cause, made harmless for the terminal."""
    waiting = status(state="waiting", reason="the API is failing")
    waiting["gate"] |= {"breaker": "open", "closed_until": "2026-01-01T00:00:30.000Z"}
    waiting["outbox"] |= {"pending": 5, "deferred": 2, "oldest_pending_s": 90.0}
    waiting["eta_s"] = 31.0
    waiting["last_error"] = {
        "at": "2025-12-31T23:59:30.000Z",
        "code": "http_503",
        "message": "down\x1b[2J for\nmaintenance",
        "request_id": None,
    }

    text = shown(waiting)

    assert "open, next probe in 30 s" in text
    waiting["gate"]["breaker"] = "half-open"
    assert "half-open, a probe is out\n" in shown(waiting)
    assert "5   the oldest for 90 s, 2 deferred\n" in text
    assert "in about 31 s" in text
    assert "30 s ago: http_503" in text
    assert "down\\x1b[2J for\\nmaintenance" in text


@pytest.mark.parametrize(
    ("state", "pending", "deferred", "advised"),
    [
        ("running", 5, 2, "deferred"),
        ("running", 5, 0, None),
        ("waiting", 5, 2, "pending"),
        ("waiting", 5, 0, "pending"),
        ("waiting", 0, 0, None),
        ("paused", 5, 2, "pending"),
        ("paused", 5, 0, None),
        ("stopped", 5, 2, "pending"),
    ],
)
def test_the_list_that_is_advised_will_not_be_empty(
    state: str, pending: int, deferred: int, advised: str | None
) -> None:
    """What is deferred while nothing goes is due in a moment, and goes no sooner for that."""
    wrong = status(state=state, running=state != "stopped")
    wrong["outbox"] |= {"pending": pending, "deferred": deferred, "oldest_pending_s": 9.0}

    text = shown(wrong)

    listed = [line.split()[3] for line in text.splitlines() if "syncd list --state" in line]
    assert listed == ([advised] if advised else [])


@pytest.mark.parametrize(
    ("state", "said"),
    [
        *((state, "unknown: nothing gets through") for state in ("running", "waiting")),
        *((state, "not while nothing is sent") for state in ("paused", "blocked", "stopped")),
    ],
)
def test_where_nobody_knows_when_it_is_done_no_number_is_said(state: str, said: str) -> None:
    stuck = status(state=state) | {"eta_s": None}

    assert f"  done         {said}\n" in shown(stuck)


def test_one_request_in_the_last_minute_is_seen() -> None:
    """Rates of a quiet daemon do not round to nothing."""
    quiet = status()
    quiet["throughput"] = {"delivered_per_s_1m": 0.017, "requests_per_s_1m": 0.017}

    assert "1 request, 1 patch delivered" in shown(quiet)


def test_a_wait_that_the_api_asked_for_is_no_breaker() -> None:
    """It says until when nothing is sent."""
    told = status(state="waiting")
    told["gate"]["closed_until"] = "2026-01-01T00:00:30.000Z"

    assert "closed; the API asked for silence, next request in 30 s" in shown(told)


def test_runs_that_a_late_request_may_set_back_are_counted() -> None:
    watched = status()
    watched["outbox"]["suspect"] = 3

    assert "3   runs that a late request may set back" in shown(watched)


def test_who_is_down_is_told_how_to_start() -> None:
    """With the command that works here."""
    down = status(running=False, state="stopped", reason=None)
    down["gate"] |= {"rate_per_s": None, "window": None, "breaker": None}

    assert "syncd run   nothing is sent" in shown(down)
    assert "systemctl start syncd   nothing is sent" in "\n".join(
        screen(down, NOW, start="systemctl start syncd")
    )


def test_labels_and_values_stay_apart() -> None:
    """However large a figure is."""
    busy = status()
    busy["outbox"]["in_flight"] = 12_345_678_901

    lines = shown(busy).splitlines()

    assert all(line[14] == " " for line in lines if line.startswith("  ") and len(line) > 14)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"),
     (7200, "2 h 0 min"), (172_799, "47 h 59 min"), (172_800, "2 d 0 h")],
)  # fmt: skip
def test_spans_have_two_units_at_most(seconds: float, text: str) -> None:
    """Short ones to the tenth, long ones to what matters."""
    assert span(seconds) == text


def test_instants_are_told_from_now() -> None:
    """Past and future, and none."""
    assert ago("2025-12-31T23:58:00.000Z", NOW) == "2 min ago"
    assert ago("2026-01-01T00:00:05.000Z", NOW) == "in 5.0 s"
    assert ago(None, NOW) == ""


def test_plurals_are_right() -> None:
    """One patch, two patches, no lines."""
    assert (many(1, "patch"), many(2, "patch"), many(0, "line")) == (
        "1 patch",
        "2 patches",
        "0 lines",
    )


def test_plain_text_stays_on_its_line() -> None:
    """Control and direction characters appear as escapes, everything else as it is."""
    assert plain("naïve 運行") == "naïve 運行"
    assert plain("a\tb\u202e\u2028") == "a\\tb\\u202e\\u2028"
