"""How much there was in the last minute, counted by the second: sixty numbers, however much."""

from collections import deque
from dataclasses import dataclass, field

SECONDS = 60


@dataclass(slots=True)
class Minute:
    """Counts by whole seconds of one steady clock, the newest last."""

    counts: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=SECONDS))

    def add(self, n: int, now: float) -> None:
        """So many, now; fewer than none takes back what was just added."""
        second = int(now)
        before = 0
        if self.counts and self.counts[-1][0] == second:
            before = self.counts.pop()[1]
        self.counts.append((second, before + n))

    def count(self, now: float) -> int:
        """How many in the last minute."""
        return sum(n for at, n in self.counts if at > now - SECONDS)

    def per_s(self, now: float) -> float:
        """The mean of the last minute."""
        return round(self.count(now) / SECONDS, 3)
