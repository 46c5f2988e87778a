"""When the next request may leave, so that no sliding second at the server holds too many.

Requests are spaced evenly by 1.019 / rate. A gate that wakes late may catch up by at most 5 ms, so
that timer error costs no throughput. In any second there are then at most
floor((1 + 0.005) / 1.019 * rate) + 1 departures, which is at most the rate; the remaining 14 ms
absorb unequal travel times. A margin of 1.9 % loses less than a single refusal does.
"""

import math
from dataclasses import dataclass, replace

MARGIN = 1.019
SLACK_S = 0.005
SLOWER = 0.7  # what is left of the rate after a refusal
RECOVERY_S = 10.0  # from zero to the limit, by even steps


@dataclass(frozen=True, slots=True)
class Pace:
    """A schedule of departures. Instants are seconds on one steady clock."""

    limit: float
    """Requests a second that are never exceeded."""
    rate: float
    """Requests a second in use: at most the limit, less after refusals."""
    due: float
    """The next request may leave from this instant on."""
    raised_at: float
    """The rate was last judged at this instant; until then (if in the future) it is frozen."""


def begin(limit: float, *, last_second_spent_until: float) -> Pace:
    """A pace whose first request waits until a second after the given instant has passed.

    Whoever sent before a restart may have used the whole limit until then.
    """
    return Pace(limit, limit, last_second_spent_until + MARGIN, last_second_spent_until)


def spacing_s(pace: Pace) -> float:
    """Seconds between departures. Of a limit of 2.5 a sliding second can hold 2."""
    whole = math.floor(pace.limit) if pace.limit >= 1 else pace.limit
    return MARGIN / min(pace.rate, whole)


def sent(pace: Pace, now: float) -> Pace:
    """The pace after a request has left at `now`, which must not be before `due`."""
    due = max(pace.due, now - SLACK_S) + spacing_s(pace)
    return Pace(pace.limit, pace.rate, due, pace.raised_at)  # a third of what `replace` costs


def late(pace: Pace, now: float, by_s: float) -> tuple[Pace, float]:
    """The pace when the request that was to leave `by_s` seconds ago has not left yet, and the
    instant at which it may.

    If nobody has left since, that is now, and the next one a whole space later.
    """
    if pace.due - spacing_s(pace) <= now - by_s:
        return replace(pace, due=max(pace.due, now + spacing_s(pace))), now
    at = max(now, pace.due)
    return sent(pace, at), at


def refused(pace: Pace, now: float, frozen_s: float) -> Pace:
    """The server counted too many: slow down, and stay so for `frozen_s` seconds.

    Answers to requests that left before the last slowing down do not slow it again.
    """
    if pace.raised_at > now:
        return pace
    rate = max(pace.rate * SLOWER, pace.limit / 20)
    return replace(pace, rate=rate, raised_at=now + frozen_s)


def accepted(pace: Pace, now: float) -> Pace:
    """A request got through: the rate climbs towards the limit, evenly in time."""
    if pace.rate >= pace.limit or now <= pace.raised_at:
        return pace
    step = pace.limit * (now - pace.raised_at) / RECOVERY_S
    return replace(pace, rate=min(pace.limit, pace.rate + step), raised_at=now)


def limited(pace: Pace, limit: float, now: float) -> Pace:
    """The same pace under a new limit (a reload).

    The next departure keeps its place, but after a limit so low that this is far away.
    """
    new = replace(pace, limit=limit, rate=limit * min(1.0, pace.rate / pace.limit))
    return replace(new, due=min(pace.due, now + max(MARGIN, spacing_s(new))))
