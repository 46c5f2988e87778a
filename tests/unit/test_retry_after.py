"""How long a Retry-After asks to wait: numbers, dates, lists, and what is none of it."""

import time
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.retry_after import MAX_RETRY_AFTER_S, MOST_CHARACTERS, asked_for

NOW = datetime(2026, 2, 9, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        ("  12\t", 12.0),
        ("007", 7.0),
        ("86400", 86_400.0),
        ("86400.1", None),
        ("86401", None),
        ("9" * 400, None),
        ("9" * 400 + ", 5", 5.0),
        ("-1", None),
        ("+5", None),
        ("1.5", 2.0),
        ("90.0", 90.0),
        ("0.001", 1.0),
        ("1.", None),
        (".5", None),
        ("1.5.2", None),
        ("1, 2", 2.0),
        ("9,2", 9.0),
        ("2, soon, 1.5", 2.0),
        ("5,", 5.0),
        (",", None),
        ("7, Mon, 09 Feb 2026 12:00:30 GMT", 30.0),
        ("Monday, 09-Feb-26 12:00:30 GMT,45", 45.0),
        ("Mon, 09 Feb 2026 12:00:05 GMT, Mon, 09 Feb 2026 12:00:30 GMT", 30.0),
        ("1e3", None),
        ("٣", None),
        ("²", None),
        ("", None),
        ("soon", None),
        ("in 5 seconds", None),
        ("Mon, 09 Feb 2026 12:00:30 GMT", 30.0),
        ("Monday, 09-Feb-26 12:00:30 GMT", 30.0),
        ("Mon Feb  9 12:00:30 2026", 30.0),
        ("Mon, 09 Feb 2026 12:00:30 -0000", 30.0),
        ("Mon, 09 Feb 2026 14:00:30 +0200", 30.0),
        ("Mon, 09 Feb 2026 11:59:59 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("Mon, 09 Feb 2026 12:00:30 +9999", None),
        ("Mon, 32 Feb 2026 12:00:30 GMT", None),
        ("Mon, 09 Feb 99999 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_read_in_every_form(header: str | None, seconds: float | None) -> None:
    assert asked_for(header, NOW).seconds == seconds


def test_a_date_without_a_zone_is_utc_wherever_this_machine_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        waits = [
            asked_for("Mon Feb  9 12:00:30 2026", NOW).seconds,
            asked_for("Mon, 09 Feb 2026 12:00:30 -0000", NOW).seconds,
        ]
    finally:
        monkeypatch.undo()
        time.tzset()

    assert waits == [30.0, 30.0]


@given(
    wait_s=st.integers(-1_000_000, 1_000_000),
    zone_h=st.integers(-14, 14),
)
def test_a_date_asks_for_the_time_until_it_never_for_less_than_none(
    wait_s: int, zone_h: int
) -> None:
    zone = timezone(timedelta(hours=zone_h))
    header = format_datetime(datetime.fromtimestamp(NOW, zone) + timedelta(seconds=wait_s))

    assert asked_for(header, NOW).seconds == (
        max(0, wait_s) if wait_s <= MAX_RETRY_AFTER_S else None
    )


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2},? \d+ [A-Z][a-z]{2} \d+ \d+:\d+(:\d+)?.*"))
def test_no_retry_after_can_raise_or_ask_for_more_than_a_day(header: str) -> None:
    seconds = asked_for(header, NOW).seconds

    assert seconds is None or 0.0 <= seconds <= MAX_RETRY_AFTER_S


@pytest.mark.parametrize(
    ("header", "disregarded"),
    [
        (None, None),
        ("", None),
        (" , ", None),
        ("7", None),
        ("soon", "soon"),
        ("-1", "-1"),
        ("86401", "86401"),
        ("Wed, 09 Feb 2099 12:00:00 GMT", "Wed, 09 Feb 2099 12:00:00 GMT"),
        ("2, soon, 7, never", "soon, never"),
        ("x" * 1000, "x" * MOST_CHARACTERS),
    ],
)
def test_what_is_not_obeyed_is_told(header: str | None, disregarded: str | None) -> None:
    assert asked_for(header, NOW).disregarded == disregarded
