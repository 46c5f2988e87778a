"""When it will be done: what waits, no faster than the last minute has shown."""

from dataclasses import dataclass

from syncd.core.minute import SECONDS
from syncd.core.sending import Sending

TELLING = 2  # requests that a minute must have room for, or it says nothing of how fast they go


@dataclass(frozen=True, slots=True)
class Lately:
    """What became of the work in the last minute."""

    requests: int = 0
    """Those that came to their end in it, well or not."""
    done: int = 0
    """Patches that these were the end of: delivered, or refused for good."""
    worked_s: float = 0.0
    """For so long, until now, something has waited without a break, and was meant to go."""


def gets_through(sending: Sending, lately: Lately) -> bool:
    """Whether there is anything to reckon with."""
    return _patches_per_s(sending, lately) > 0


def eta_s(
    pending: int, sending: Sending, lately: Lately, *, now: float, last_due_s: float = 0.0
) -> float | None:
    """Seconds until nothing waits any more; 0 when nothing does, None when nobody knows.

    `last_due_s`: so long a run in trouble is not tried again.
    """
    if pending == 0:
        return 0.0
    if not gets_through(sending, lately):
        return None
    return max(_closed_s(sending, now) + pending / _patches_per_s(sending, lately), last_due_s)


def turn_s(requests_ahead: int, sending: Sending, now: float) -> float | None:
    """Seconds until a request goes that has so many before it; None while nothing goes."""
    if not sending.requests_per_s:
        return None
    return _closed_s(sending, now) + requests_ahead / sending.requests_per_s


def _patches_per_s(sending: Sending, lately: Lately) -> float:
    """What to reckon with: what is possible, with failures as they are, or less if it was less."""
    possible = sending.requests_per_s or 0.0
    folded = max(1.0, sending.patches_per_request)
    per_s = possible * (lately.done / lately.requests if lately.requests else folded)
    if lately.worked_s >= SECONDS and possible * SECONDS >= TELLING:
        return min(per_s, lately.done / SECONDS)
    return per_s


def _closed_s(sending: Sending, now: float) -> float:
    return max(0.0, (sending.closed_until or now) - now)
