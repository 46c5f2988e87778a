"""How long a Retry-After asks to wait, in whichever form it comes."""

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_S = 86_400.0  # a longer one is taken for a mistake
MOST_CHARACTERS = 100  # kept of what is not understood

_SECONDS = re.compile(r"0*(?P<whole>[0-9]+)(?:\.(?P<rest>[0-9]+))?")
_COMMA = re.compile(r",(?!\s*[0-9]{1,2}[ -][A-Za-z]{3})")  # but that behind the weekday of a date


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """What is made of the header, or of several."""

    seconds: float | None = None
    """None: there is none to obey."""
    disregarded: str | None = None
    """What is not obeyed: neither a number nor a date, or too far ahead to be meant."""


def asked_for(header: str | None, now: float) -> RetryAfter:
    """Of several values, in a list or in headers of their own, the longest holds.

    `now` is the clock that a date is meant by, in seconds since the epoch.
    """
    values = [value.strip() for value in _COMMA.split(header or "")]
    asked = {value: _seconds(value, now) for value in values if value}
    odd = ", ".join(value for value, seconds in asked.items() if seconds is None)
    understood = [seconds for seconds in asked.values() if seconds is not None]
    return RetryAfter(max(understood, default=None), odd[:MOST_CHARACTERS] or None)


def _seconds(value: str, now: float) -> float | None:
    if number := _SECONDS.fullmatch(value):
        whole, rest = number["whole"], number["rest"] or ""
        # Rounded up: too early is refused once more.
        seconds = float(whole[:12]) + bool(rest.strip("0"))
    elif (until := instant(value)) is not None:
        seconds = max(0.0, until - now)
    else:
        return None
    return seconds if seconds <= MAX_RETRY_AFTER_S else None


def instant(http_date: str | None) -> float | None:
    """An HTTP date as seconds since the epoch; None for what is none.

    One that names no zone is UTC, as HTTP has it, and never this machine's own.
    """
    if http_date is None:
        return None
    try:
        at = parsedate_to_datetime(http_date)
        return at.replace(tzinfo=at.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None
