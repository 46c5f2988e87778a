"""The one door to the vendor: every request, first or repeated, goes through here.

Whether one may go is decided by four pure parts: pace (how fast), window (how many at once),
breaker (whether at all), and Retry-After (not before). asyncio-throttle stands behind the pace as
the hard cap: it is awaited by one task at a time, and in practice never makes it wait.
"""

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from asyncio_throttle.throttler import Throttler

from syncd.core import backoff, breaker, pace, window
from syncd.core.breaker import Breaker, Cause, Position, Probe
from syncd.core.minute import Minute
from syncd.core.outcome import (
    Confirmed,
    LockedOut,
    Outcome,
    Refused,
    Trouble,
    Unavailable,
)
from syncd.core.retry_after import MAX_RETRY_AFTER_S

log = structlog.get_logger()

Clock = Callable[[], float]
QUIET_S = 1.1  # after a sign of overload: the answers to what was already out tell nothing new
PROMPT_S = 0.005  # what a request may lose on its way before its place in the pace is another's
UNASKED_PAUSE_S = 1.02  # after a 429 without Retry-After: the sliding second must pass


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's settings."""

    rate_per_s: float
    max_in_flight: int
    base_s: float
    """First wait of the breaker."""
    cap_s: float
    """Longest wait of the breaker."""


@dataclass(frozen=True, slots=True)
class GateFigures:
    """The state of the gate, for people. Durations count from now."""

    limit_per_s: float
    rate_per_s: float
    max_in_flight: int
    window: int
    in_flight: int
    closed_for_s: float | None
    breaker: str
    cause: str | None
    requests_per_s_1m: float
    going_s: float
    """Since an operator's pause ended, or since the beginning."""


class Gate:
    """Lets requests pass one by one: whoever comes while another waits stands in line."""

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        *,
        started: float,
        closed_for_s: float = 0.0,
        draw: Callable[[], float] = random.random,
        throttle: Callable[[float], Throttler] | None = None,
    ) -> None:
        """`started`: when this process began, on `clock`; another may have sent until then.

        `closed_for_s`: what is left of a Retry-After that the process before this one was given,
        but never more than is believed of one. `throttle` makes the hard cap for a rate; the usual
        one lives on the system's own clock.
        """
        self._limits = limits
        self._clock = clock
        self._draw = draw
        self._pace = pace.begin(limits.rate_per_s, last_second_spent_until=started)
        self._window = window.begin(limits.max_in_flight)
        self._breaker = breaker.CLOSED
        self._cap = throttle or _cap
        self._throttle = self._cap(limits.rate_per_s)
        self._closed_until = clock() + min(closed_for_s, MAX_RETRY_AFTER_S)
        self._in_flight = 0
        self._paused = False
        self._lockout: Trouble | None = None
        self._going_since = clock()
        self._line = asyncio.Lock()
        self._changed = asyncio.Event()
        self._sent = Minute()

    async def enter(self) -> bool:
        """Wait until a request may go, and count it as gone. True if it goes as a probe.

        Each entry is ended by `leave` or, if nothing was sent, by `give_back`, which are told that
        again. Cancelling while waiting changes nothing.
        """
        async with self._line:
            return await self._pass()

    async def connected(self, took_s: float) -> bool:
        """A request that is counted as gone had to connect first: it goes when this returns.

        The vendor counts what arrives, and on open connections others have arrived meanwhile: if it
        took long, the request waits for a new place in the pace. The old one is lost. False if it
        must not go any more, because the gate was shut meanwhile.
        """
        if took_s > PROMPT_S:
            now = self._clock()
            self._pace, at = pace.late(self._pace, now, took_s)
            await asyncio.sleep(at - now)
        return not self.shut

    def give_back(self, *, probe: bool) -> None:
        """The entry was not used: nothing was sent. Its place in the pace is lost."""
        self._in_flight -= 1
        if probe:
            self._breaker = breaker.given_back(self._breaker)
        self._sent.add(-1, self._clock())
        self._changed.set()

    def leave(
        self,
        run_id: str,
        outcome: Outcome,
        *,
        probe: bool,
        again: bool = False,
        aside: bool = False,
    ) -> bool:
        """An answer came, or none will. Returns True if by this the service is back again.

        `again` tells that the run's request before this one has failed too, `aside` that it was not
        the run's turn.
        """
        now = self._clock()
        in_flight = self._in_flight
        self._in_flight -= 1
        was = self._breaker
        match outcome:
            case Confirmed() | Refused():
                self._breaker = breaker.good(self._breaker, aside=aside)
                self._pace = pace.accepted(self._pace, now)
                self._window = (
                    window.restarted(self._window)
                    if was.position is not Position.CLOSED
                    else window.grown(self._window, now, in_flight)
                )
            case LockedOut(trouble):
                self._lockout = trouble
                self._breaker = breaker.locked_out(
                    self._breaker, now, self._probe_wait_s(), probe=probe
                )
            case Unavailable():
                self._unavailable(run_id, outcome, now, probe=probe, again=again, aside=aside)
        self._changed.set()
        return self._told(was, outcome)

    def pause(self) -> None:
        """An operator wants nothing sent."""
        self._paused = True
        self._changed.set()

    def resume(self) -> None:
        """The operator's pause ends."""
        if self._paused:
            self._going_since = self._clock()
        self._paused = False
        self._changed.set()

    def hurry(self) -> None:
        """Something changed on our side (a new token), or an operator asks: an open breaker
        probes at once."""
        self._breaker = breaker.hurried(self._breaker, self._clock())
        self._changed.set()

    def limit(self, limits: Limits) -> None:
        """New settings, from the next request on."""
        self._limits = limits
        self._pace = pace.limited(self._pace, limits.rate_per_s, self._clock())
        self._window = window.bounded(self._window, limits.max_in_flight)
        self._throttle = self._cap(limits.rate_per_s)
        self._changed.set()

    @property
    def slots(self) -> int:
        """How many requests may be in flight."""
        return window.slots(self._window)

    @property
    def shut(self) -> bool:
        """Whether nobody would be let through now, whatever the pace: who was, must not go."""
        silent = self._clock() < self._closed_until
        return self._paused or silent or self._breaker.position is Position.OPEN

    @property
    def paused(self) -> bool:
        """Whether an operator has stopped sending."""
        return self._paused

    @property
    def down(self) -> bool:
        """Whether the service is taken to be down: only probes go."""
        shut = self._breaker.position is not Position.CLOSED
        return shut and self._breaker.cause is Cause.SERVER

    @property
    def trips(self) -> int:
        """How often it has been found to be down in a row."""
        return self._breaker.trips

    @property
    def doubtful(self) -> bool:
        """Whether only runs that had failed before tell that the service is down."""
        return self._breaker.position is Position.OPEN and self._breaker.doubtful

    @property
    def unsure(self) -> bool:
        """Whether an outage is over, but perhaps not for those whose turn it is."""
        return self._breaker.unsure

    @property
    def blocked(self) -> bool:
        """Whether our credentials were refused when the service was asked last."""
        return self._breaker.position is not Position.CLOSED and (
            self._breaker.cause is Cause.CREDENTIALS
        )

    @property
    def lockout(self) -> Trouble | None:
        """The last answer by which sending is blocked; None while it is not."""
        return self._lockout if self.blocked else None

    @property
    def probe(self) -> Probe | None:
        """What the end of an outage or a lockout hangs on; None where it is nothing of that, or a
        pause or a silence has to end first."""
        match self._breaker.position:
            case Position.HALF_OPEN if not self._paused:
                return Probe.OUT
            case Position.OPEN if not self._paused and self._clock() >= self._closed_until:
                return Probe.AWAITED
            case _:
                return None

    @property
    def is_open(self) -> bool:
        """Whether a request could pass right now."""
        return self.wait_s <= 0

    def figures(self) -> GateFigures:
        """How things stand."""
        now = self._clock()
        shut_until = self._closed_until
        if self._breaker.position is not Position.CLOSED:
            shut_until = max(shut_until, self._breaker.probe_at)
        return GateFigures(
            limit_per_s=self._limits.rate_per_s,
            rate_per_s=round(self._pace.rate, 3),
            max_in_flight=self._limits.max_in_flight,
            window=window.slots(self._window),
            in_flight=self._in_flight,
            closed_for_s=max(0.0, shut_until - now) if shut_until > now else None,
            breaker=self._breaker.position.value,
            cause=None if self._breaker.position is Position.CLOSED else self._breaker.cause.value,
            requests_per_s_1m=self._sent.per_s(now),
            going_s=now - self._going_since,
        )

    async def _pass(self) -> bool:
        while (wait := self.wait_s) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if math.isinf(wait) else wait):
                    await self._changed.wait()
            except TimeoutError:
                pass
        await self._throttle.acquire()  # type: ignore[no-untyped-call]  # it has no annotations
        now = self._clock()
        self._pace = pace.sent(self._pace, now)
        self._breaker = breaker.passed(self._breaker)
        self._in_flight += 1
        self._sent.add(1, now)
        return self._breaker.position is Position.HALF_OPEN

    @property
    def wait_s(self) -> float:
        """Seconds until the next request may go; infinite: until something changes."""
        now = self._clock()
        if self._paused or self._in_flight >= window.slots(self._window):
            return math.inf
        if not breaker.may_pass(self._breaker, now):
            if self._breaker.position is Position.HALF_OPEN:
                return math.inf
            return max(self._breaker.probe_at, self._closed_until) - now
        return max(self._pace.due, self._closed_until) - now

    def _unavailable(
        self,
        run_id: str,
        outcome: Unavailable,
        now: float,
        *,
        probe: bool,
        again: bool,
        aside: bool,
    ) -> None:
        asked = outcome.retry_after_s
        if outcome.disregarded is not None:
            meaning = "neither seconds nor a date, or over a day: taken for no Retry-After"
            log.warning("gate.disregarded", retry_after=outcome.disregarded, meaning=meaning)
        if outcome.throttled:
            pause = UNASKED_PAUSE_S if asked is None else asked
            log.info("gate.throttled", pause_s=round(pause, 3))
            self._pace = pace.refused(self._pace, now, frozen_s=max(2 * pause, QUIET_S))
            self._closed_until = max(self._closed_until, now + pause)
        elif asked is not None:
            self._closed_until = max(self._closed_until, now + asked)
        if outcome.overloaded and (outcome.throttled or not again):
            quiet = max(QUIET_S, 2 * (asked or 0.0))
            self._window = window.shrunk(self._window, now, quiet)
        if outcome.throttled:
            # It answers, and says that we are too fast: alive, and the pace has the remedy.
            if probe:
                self._breaker = breaker.given_back(self._breaker)
        else:
            wait_s = self._probe_wait_s()
            self._breaker = breaker.bad(
                self._breaker, run_id, now, wait_s, probe=probe, again=again, aside=aside
            )

    def _told(self, was: Breaker, outcome: Outcome) -> bool:
        """Tell the log of a breaker that `outcome` has opened or closed. True if it has closed.

        One that is open for another cause than before has opened for that.
        """
        opened = self._breaker.position is Position.OPEN and (
            was.position is Position.CLOSED or was.cause is not self._breaker.cause
        )
        closed = self._breaker.position is Position.CLOSED and was.position is not Position.CLOSED
        if opened and isinstance(outcome, LockedOut | Unavailable):
            log.warning(
                "gate.shut",
                cause=self._breaker.cause.value,
                reason=outcome.trouble.code,
                message=outcome.trouble.message,
                probe_in_s=round(self._breaker.probe_at - self._clock(), 1),
            )
        elif closed:
            # As loud as what it ends: who reads warnings alone shall not think that it goes on.
            log.warning("gate.open", cause=was.cause.value, after_probes=was.trips)
        return closed

    def _probe_wait_s(self) -> float:
        return backoff.patient(
            self._breaker.trips + 1,
            self._draw(),
            base_s=self._limits.base_s,
            cap_s=self._limits.cap_s,
        )


def _cap(rate_per_s: float) -> Throttler:
    if rate_per_s >= 1:
        return Throttler(rate_limit=math.floor(rate_per_s), period=1.0)
    return Throttler(rate_limit=1, period=1.0 / rate_per_s)
