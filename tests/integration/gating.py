"""A gate on a loop whose clock leaps to the next timer: an hour of waiting takes no time."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from asyncio_throttle.throttler import Throttler

from syncd.core.answer import Run
from syncd.core.outcome import (
    Blame,
    Confirmed,
    LockedOut,
    Outcome,
    Refused,
    Trouble,
    Unavailable,
)
from syncd.gate import Gate, Limits
from syncd.selftest.time import VirtualLoop

GOOD = Confirmed(Run("r", b"{}", None, None, None))
REFUSED = Refused(Trouble(Blame.PATCH, "c", "m"))
LOCKED_OUT = LockedOut(Trouble(Blame.CREDENTIALS, "UNAUTHORIZED", "m"))
FAILING = Unavailable(Trouble(Blame.SERVER, "http_500", "m"))


def later(retry_after_s: float | None) -> Unavailable:
    return Unavailable(Trouble(Blame.SERVER, "http_503", "m"), retry_after_s, overloaded=True)


def too_fast(retry_after_s: float | None = None) -> Unavailable:
    trouble = Trouble(Blame.SERVER, "RATE_LIMIT_EXCEEDED", "m")
    return Unavailable(trouble, retry_after_s, throttled=True, overloaded=True)


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test on a loop of its own that never really waits."""

    @wraps(test)
    def run() -> None:
        loop = VirtualLoop()
        try:
            loop.run_until_complete(test())
        finally:
            loop.close()

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


def a_gate(rate: float = 100.0, in_flight: int = 8, *, cap_s: float = 60.0, **more: Any) -> Gate:
    """A gate whose first second is over after a pace.MARGIN; half of every backoff is drawn."""
    settings = {
        "started": 0.0,
        "draw": lambda: 0.0,
        "throttle": lambda _: Throttler(1_000_000),
        **more,
    }
    return Gate(Limits(rate, in_flight, 1.0, cap_s), now, **settings)


async def entered(gate: Gate, within_s: float = 3600.0) -> float:
    """When the next request may go."""
    async with asyncio.timeout(within_s):
        await gate.enter()
    return now()


async def answered(gate: Gate, run: str, outcome: Outcome) -> bool:
    """Let the next request go and give it that answer; whether the service is back by it."""
    return gate.leave(run, outcome, probe=await gate.enter())


async def stays_shut(gate: Gate, for_s: float) -> bool:
    """Whether nothing may go for so long. Waiting in vain changes nothing."""
    try:
        await entered(gate, for_s)
    except TimeoutError:
        return True
    return False


async def shut_by_failures(gate: Gate) -> float:
    """Let five requests of three runs fail; when the last of them did."""
    for run in "abcab":
        await answered(gate, run, FAILING)
    return now()
