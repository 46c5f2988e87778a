"""When to stop asking a service that is down, or that does not know us, and when to ask again."""

from dataclasses import dataclass, replace
from enum import StrEnum

STREAK = 5  # failures in a row …
RUNS = 3  # … that speak for the service only if they come from this many runs
APART = (5**0.5 - 1) / 2  # steps of so much of a line, over and over, leave no part of it out


class Position(StrEnum):
    """Closed lets everything pass, open nothing, half-open one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Cause(StrEnum):
    """Why the breaker is not closed."""

    SERVER = "server"
    CREDENTIALS = "credentials"


class Probe(StrEnum):
    """What is to tell whether it may close."""

    AWAITED = "awaited"  # it goes at its time, or at once if somebody hurries
    OUT = "out"


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of the breaker. Instants are seconds on one steady clock."""

    position: Position = Position.CLOSED
    cause: Cause = Cause.SERVER
    streak: int = 0
    """Failures of the service since its last good answer, while closed."""
    runs: frozenset[str] = frozenset()
    """The runs that the streak came from, as many as matter."""
    trips: int = 0
    """Failed probes, the first opening included, those that were hurried not; what the time between
    probes grows with."""
    probe_at: float = 0.0
    """When open: a probe may go from this instant on …"""
    due_at: float = 0.0
    """… and from this one on if nobody hurries."""
    doubtful: bool = False
    """It was a run that had failed before that failed last: others might fare better."""
    unsure: bool = False
    """When closed: after an outage nobody whose turn it was has had a good answer yet: perhaps
    they alone cannot be served."""


def may_pass(breaker: Breaker, now: float) -> bool:
    """Whether a request may go: always when closed, and as the one probe when its time has come."""
    match breaker.position:
        case Position.CLOSED:
            return True
        case Position.OPEN:
            return now >= breaker.probe_at
        case Position.HALF_OPEN:
            return False


def share(trips: int) -> float | None:
    """How much of the line stands before the one that the next probe is to go to: 1 for the last;
    None: it is the turn of those that had failed.

    Those within come to lie evenly, however many there are: of a stretch that is the n-th part of
    the line one is met in 5 n probes.
    """
    rounds, turn = divmod(trips, 5)
    match turn:
        case 0:
            return 0.0
        case 2:
            return 1.0
        case 4:
            return None
        case _:
            return (2 * rounds + (turn + 1) // 2) * APART % 1.0


def passed(breaker: Breaker) -> Breaker:
    """A request went through the gate. If the breaker was open, it is the probe."""
    if breaker.position is Position.OPEN:
        return replace(breaker, position=Position.HALF_OPEN)
    return breaker


def good(breaker: Breaker, *, aside: bool = False) -> Breaker:
    """The service answered in its right mind (a refusal of one patch is a good answer too).

    To one that went `aside` of its turn: of those whose turn it is that tells nothing.
    """
    if breaker.position is not Position.CLOSED:
        return UNSURE if breaker.cause is Cause.SERVER else CLOSED
    if breaker.unsure and aside:
        return UNSURE
    return breaker if breaker == CLOSED else CLOSED


def bad(
    breaker: Breaker,
    run: str,
    now: float,
    wait_s: float,
    *,
    probe: bool = False,
    again: bool = False,
    aside: bool = False,
) -> Breaker:
    """The service failed on a request for `run`; `wait_s` is the wait if it opens by this.

    A streak from one or two runs says something about them, not about the service. So may a run
    that fails `again`: what it opens is doubtful. While not closed only the probe's failure counts:
    any other was sent before, and tells nothing new. Of a service that has refused our credentials
    it tells that it could not be asked again: that it fails is what is known of it now.

    A probe that was hurried raises no doubt: who asks for a run that had failed asks for that one,
    and what is known of the others is as true as before. No more does one that went `aside`.
    """
    if breaker.position is not Position.CLOSED:
        if not probe:
            return breaker
        hurried = breaker.probe_at < breaker.due_at
        doubtful = again and (breaker.doubtful or not (hurried or aside))
        return replace(_failed(breaker, Cause.SERVER, now, wait_s), doubtful=doubtful)
    runs = breaker.runs if len(breaker.runs) >= RUNS else breaker.runs | {run}
    counted = replace(breaker, streak=breaker.streak + 1, runs=runs)
    if counted.streak >= STREAK and len(runs) >= RUNS:
        return replace(_opened(counted, Cause.SERVER, now + wait_s), doubtful=again)
    return counted


def locked_out(breaker: Breaker, now: float, wait_s: float, *, probe: bool = False) -> Breaker:
    """The service does not accept our credentials: one such answer is enough.

    Of a request from before the opening it may still tell the better cause, but never takes the
    word from a probe that is out.
    """
    known = breaker.position is Position.OPEN and breaker.cause is Cause.CREDENTIALS
    if probe:
        return _failed(breaker, Cause.CREDENTIALS, now, wait_s)
    if known or breaker.position is Position.HALF_OPEN:
        return breaker
    return _opened(breaker, Cause.CREDENTIALS, now + wait_s)


def given_back(breaker: Breaker) -> Breaker:
    """The probe was not sent after all, or has told nothing: the next request is the probe."""
    if breaker.position is Position.HALF_OPEN:
        return replace(breaker, position=Position.OPEN)
    return breaker


def hurried(breaker: Breaker, now: float) -> Breaker:
    """Something changed on our side (a new token), or an operator asks: probe at once.

    It goes beside those that go by themselves: should it fail, the next is due when it was before.
    """
    if breaker.position is Position.OPEN:
        return replace(breaker, probe_at=now)
    return breaker


def _failed(breaker: Breaker, cause: Cause, now: float, wait_s: float) -> Breaker:
    """A probe has failed. One that is hurried and takes until the next is due was that one."""
    if now < breaker.due_at:
        return replace(
            breaker, position=Position.OPEN, cause=cause, probe_at=breaker.due_at, doubtful=False
        )
    return _opened(breaker, cause, now + wait_s)


def _opened(breaker: Breaker, cause: Cause, due_at: float) -> Breaker:
    return Breaker(Position.OPEN, cause, 0, frozenset(), breaker.trips + 1, due_at, due_at)


CLOSED = Breaker()
UNSURE = Breaker(unsure=True)
