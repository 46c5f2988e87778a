"""The limit as the vendor would judge it: at most so many requests in any sliding second."""

import math
from collections import deque
from email.utils import formatdate

from syncd.sandbox.settings import RetryAfter


class SlidingSecond:
    """Instants of the second that ends now, oldest first; `now` must never go back."""

    __slots__ = ("_instants",)

    def __init__(self) -> None:
        self._instants: deque[float] = deque()

    def count(self, now: float) -> int:
        """How many instants are less than a second old."""
        while self._instants and now - self._instants[0] >= 1.0:
            self._instants.popleft()
        return len(self._instants)

    def add(self, now: float) -> int:
        """Count one more; answers how many that makes."""
        self._instants.append(now)
        return self.count(now)

    def room_in_s(self, now: float, rate: int) -> float:
        """Seconds until fewer than `rate` instants are left, if none is added meanwhile."""
        surplus = self.count(now) - rate
        return 0.0 if surplus < 0 else 1.0 - (now - self._instants[surplus])


def admit(second: SlidingSecond, rate: int, now: float) -> bool:
    """Whether a request may pass; one that may not leaves no trace. A rate of 0 admits all."""
    if rate and second.count(now) >= rate:
        return False
    second.add(now)
    return True


def retry_after_header(form: str, wait_s: float, wall_s: float) -> str | None:
    """The header's value, never too early: both forms know whole seconds only, so both round up."""
    match form:
        case RetryAfter.SECONDS:
            return str(max(1, math.ceil(wait_s)))
        case RetryAfter.DATE:
            return formatdate(math.ceil(wall_s + wait_s), usegmt=True)
        case _:
            return None
