"""The sandbox's own books: what arrived, what came of it, and how much at once."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from syncd.sandbox.limit import SlidingSecond

KEPT_VISITS = 10_000
KEPT_BYTES = 16_384  # of each body


class Connection(Protocol):
    """As much of an asyncio transport as the books need."""

    def is_closing(self) -> bool: ...


@dataclass(slots=True, eq=False)
class Visit:
    """One request, from its arrival on; `status` stays None where no answer was given."""

    run_id: str
    method: str
    at_s: float  # monotonic
    connection: Connection | None
    body: bytes = b""
    status: int | None = None
    fault: str | None = None
    applied: bool = False
    in_flight: bool = True

    def is_live(self) -> bool:
        """Whether anybody still waits for the answer."""
        return self.connection is not None and not self.connection.is_closing()


@dataclass(slots=True)
class Books:
    """Counts of everything, and the last 10,000 requests."""

    started_s: float  # monotonic, and the same instant by the wall clock:
    started_at: datetime
    requests: int = 0
    applied: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    refused_by_limit: int = 0
    max_in_one_second: int = 0
    max_in_flight: int = 0
    max_in_flight_per_run: int = 0
    _second: SlidingSecond = field(default_factory=SlidingSecond)
    _open: dict[str, list[Visit]] = field(default_factory=dict)
    _open_count: int = 0
    _visits: deque[Visit] = field(default_factory=lambda: deque(maxlen=KEPT_VISITS))

    def arrive(self, visit: Visit) -> None:
        """A request is here; it counts as in flight until it leaves."""
        self.requests += 1
        self._visits.append(visit)
        self.max_in_one_second = max(self.max_in_one_second, self._second.add(visit.at_s))
        lane = self._open.setdefault(visit.run_id, [])
        lane.append(visit)
        self._open_count += 1
        # A client that gave up is no longer in flight, though its request may not have noticed.
        if len(lane) > self.max_in_flight_per_run:
            self.max_in_flight_per_run = max(self.max_in_flight_per_run, _live(lane))
        if self._open_count > self.max_in_flight:
            everything = (each for lane in self._open.values() for each in lane)
            self.max_in_flight = max(self.max_in_flight, _live(everything))

    def leave(self, visit: Visit) -> None:
        """The request is over, answered or not; saying it twice does no harm."""
        if not visit.in_flight:
            return
        visit.in_flight = False
        visit.connection = None
        self._open_count -= 1
        lane = self._open[visit.run_id]
        lane.remove(visit)
        if not lane:
            del self._open[visit.run_id]

    def fault(self, visit: Visit, kind: str) -> None:
        """The request met a fault."""
        visit.fault = kind
        self.faults[kind] += 1

    def apply(self, visit: Visit) -> None:
        """The request's update was applied."""
        visit.applied = True
        self.applied += 1

    def answer(self, visit: Visit, status: int) -> None:
        """The request is about to be answered."""
        visit.status = status
        self.by_status[status] += 1

    def stats(self) -> dict[str, object]:
        """The counts, as `/_sandbox/stats` shows them."""
        return {
            "requests": self.requests,
            "applied": self.applied,
            "by_status": {str(status): n for status, n in sorted(self.by_status.items())},
            "faults": dict(sorted(self.faults.items())),
            "refused_429_limit": self.refused_by_limit,
            "max_in_one_second": self.max_in_one_second,
            "max_in_flight": self.max_in_flight,
            "max_in_flight_per_run": self.max_in_flight_per_run,
        }

    def visits(self, run_id: str | None) -> list[dict[str, object]]:
        """The kept requests, oldest first, of one run or of all; bodies as the text received."""
        return [
            {
                "run": visit.run_id,
                "method": visit.method,
                "at": self._stamp(visit.at_s),
                "at_s": visit.at_s - self.started_s,
                "body": visit.body.decode(errors="replace"),
                "status": visit.status,
                "fault": visit.fault,
                "applied": visit.applied,
            }
            for visit in self._visits
            if run_id is None or visit.run_id == run_id
        ]

    def _stamp(self, at_s: float) -> str:
        instant = self.started_at.timestamp() + at_s - self.started_s
        return datetime.fromtimestamp(instant, UTC).isoformat().replace("+00:00", "Z")


def _live(visits: Iterable[Visit]) -> int:
    return sum(visit.is_live() for visit in visits)
