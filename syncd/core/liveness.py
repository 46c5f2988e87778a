"""Whether the relay stands still though there is something to do: what the watchdog is told.

Waiting is no reason: for news, for the gate (paused, blocked, an outage, the pace), for an answer
within its time, for a full disk. Each of these ends by itself, and a restart would not hasten it.
"""

from dataclasses import dataclass
from enum import StrEnum


class Waits(StrEnum):
    """What the relay's sending task waits for."""

    NOTHING = "nothing"  # it reads the outbox or begins a request: a matter of moments
    NEWS = "news"  # nothing is to be sent now; it looks again by itself after a while
    GATE = "gate"  # something is to be sent, and the gate says when


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the relay stands. Seconds count until now."""

    waits: Waits
    still_s: float
    """Since its sending task has taken a step."""
    oldest_s: float
    """Since the oldest request was begun that is not settled; 0 where there is none."""
    may_go: bool
    """The gate would let a request pass."""
    can_write: bool
    """Answers can be written down, as far as is known."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How long what takes time."""

    answer_s: float
    """A request has its answer, or has failed, by then."""
    store_s: float
    """A database that is locked or full says so by then, and is waited for from there on."""
    look_s: float
    """Without news, the outbox is looked at again by then."""
    still_s: float
    """On top of each, and where nothing has to be waited for: the operator's own bound."""


def stuck(standing: Standing, allowance: Allowance) -> str | None:
    """Why the relay will not go on by itself, as a person reads it; None where it may."""
    answered_s = allowance.answer_s + allowance.store_s + allowance.still_s
    if standing.can_write and standing.oldest_s > answered_s:
        return f"a request is not done with after {standing.oldest_s:.0f} s"
    if standing.still_s <= _allowed_s(standing, allowance):
        return None
    match standing.waits:
        case Waits.NEWS:
            return f"the outbox was not looked at for {standing.still_s:.0f} s"
        case Waits.GATE:
            return f"nothing passes the gate, which is open; no step for {standing.still_s:.0f} s"
        case Waits.NOTHING:
            return f"the sending task has not moved for {standing.still_s:.0f} s"


def _allowed_s(standing: Standing, allowance: Allowance) -> float:
    match standing.waits:
        case Waits.NEWS:
            return allowance.look_s + allowance.still_s
        case Waits.GATE if not standing.may_go:
            return float("inf")
        case Waits.GATE:
            return allowance.still_s
        case Waits.NOTHING:
            return allowance.store_s + allowance.still_s
