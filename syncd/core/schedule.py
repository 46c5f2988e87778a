"""Which run's turn it is. The unit is the run (a *lane*), not the patch.

A page of lanes is held in memory, never the whole outbox. A lane is `ready` (it may go), `busy` (a
request of it is in flight or being settled), or not held at all: it rests in the outbox.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from syncd.core.fold import Waiting


@dataclass(slots=True)
class Lane:
    """The waiting patches of one run, in arrival order: as many of them as a request can use."""

    run: str
    priority: int
    """The highest priority among them: it pulls the whole lane forward, never one patch ahead."""
    waiting: list[Waiting]
    failures: int = 0
    """Failures in a row that blame the server; what the backoff grows with."""
    troubled: bool = False
    """The outbox has a row about this lane's trouble, which must go when it is over."""
    alone_until: int = 0
    """Patches up to this id go one by one: a fold of them was refused."""
    more: bool = False
    """The outbox has, or may have, patches of this run beyond those held."""
    fresh: bool = False
    """It was read anew a moment ago: it may go as it is, even if more has come since."""


@dataclass(slots=True)
class Schedule:
    """The lanes held. Not a decision that needs a clock: lanes that must wait are not held."""

    _held: dict[str, Lane] = field(default_factory=dict)
    _ready: list[tuple[int, int, str]] = field(default_factory=list)
    _busy: set[str] = field(default_factory=set)

    def add(self, lanes: Iterable[Lane]) -> None:
        """Lanes from the outbox. One that is held already is left as it is."""
        for lane in lanes:
            if lane.run not in self._held and lane.waiting:
                self._held[lane.run] = lane
                heapq.heappush(self._ready, _place(lane))

    def take(self) -> Lane | None:
        """The next lane: highest priority, then oldest patch. It is busy until `drop`."""
        while self._ready:
            place = heapq.heappop(self._ready)
            lane = self._held.get(place[2])
            # A place from before the lane was dropped and held again would put it ahead of others.
            if lane is not None and lane.run not in self._busy and place == _place(lane):
                self._busy.add(lane.run)
                return lane
        return None

    def drop(self, run: str) -> None:
        """The lane is no longer held: it rests in the outbox, or has nothing left."""
        self._busy.discard(run)
        self._held.pop(run, None)

    def give_back(self, lane: Lane) -> None:
        """A busy lane is ready again, with what it now holds."""
        self.drop(lane.run)
        self.add([lane])

    def arrived(self, run: str, priority: int) -> bool:
        """The outbox has a patch that its lane may not hold. False if the lane is not held."""
        lane = self._held.get(run)
        if lane is None:
            return False
        lane.more = True
        if priority > lane.priority:
            lane.priority = priority
            if run not in self._busy:
                heapq.heappush(self._ready, _place(lane))
        return True

    def reserve(self, run: str) -> bool:
        """Keep a run for another purpose than sending, until `drop`. False if it is busy."""
        if run in self._busy:
            return False
        self._held[run] = Lane(run, 0, [], more=True)
        self._busy.add(run)
        return True

    @property
    def runs(self) -> frozenset[str]:
        """The runs of all lanes held."""
        return frozenset(self._held)

    @property
    def alone(self) -> dict[str, int]:
        """By run, of the lanes held: the id up to which its patches go one by one."""
        return {run: lane.alone_until for run, lane in self._held.items() if lane.alone_until}

    @property
    def ready(self) -> int:
        """How many lanes may go now."""
        return len(self._held) - len(self._busy)

    def forget(self) -> None:
        """An operator changed rows under the lanes: drop those not busy, distrust those busy."""
        for run in [run for run in self._held if run not in self._busy]:
            del self._held[run]
        self._ready.clear()
        for lane in self._held.values():
            lane.more, lane.fresh = True, False


def _place(lane: Lane) -> tuple[int, int, str]:
    """Where it stands in line."""
    return -lane.priority, lane.waiting[0].id, lane.run
