"""Which run's turn it is. The unit is the run (a *lane*), not the patch.

A page of lanes is loaded into memory, never the whole outbox. A lane is `ready` (it may go), `busy`
(a request of it is in flight or being settled), or not loaded at all: it rests in the outbox.
"""

import heapq
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from syncd.core.fold import Waiting

FAILING = 2  # failures in a row from which on a lane keeps failing

Rank = tuple[int, int, str]
"""Where a lane stands in line: the lowest goes next."""


@dataclass(slots=True)
class Lane:
    """The waiting patches of one run, in arrival order: as many of them as a request can use."""

    run: str
    priority: int
    """The highest among them, or that of one that is not loaded yet: it pulls the whole lane
    forward, never one patch ahead."""
    waiting: list[Waiting]
    failures: int = 0
    """Failures in a row that blame the server; what the backoff grows with."""
    troubled: bool = False
    """The outbox has a row about this lane's trouble, which must go when it is over."""
    alone_until: int = 0
    """Patches up to this id go one by one: a fold of them was refused."""
    more: bool = False
    """The outbox has, or may have, patches of this run beyond those loaded."""
    aside: bool = False
    """It was taken though it was not its turn."""
    read_anew: bool = False
    """A moment ago: it may go as it is, even if more has come since."""

    def done_with(self, ids: Container[int]) -> None:
        """These patches are settled: what is left goes by its own priority.

        What is not loaded may be as urgent as ever: then that stays until it is read.
        """
        self.waiting = [patch for patch in self.waiting if patch.id not in ids]
        if self.waiting and not self.more:
            self.priority = max(patch.priority for patch in self.waiting)


@dataclass(slots=True)
class Schedule:
    """The lanes loaded. Not a decision that needs a clock: lanes that must wait are not loaded.

    Lanes that keep failing stand in a line of their own: whoever takes can leave them out, so that
    what they wait for is not what everybody waits for.
    """

    _loaded: dict[str, Lane] = field(default_factory=dict)
    _steady: list[Rank] = field(default_factory=list)
    _failing: list[Rank] = field(default_factory=list)
    _failing_ready: set[str] = field(default_factory=set)
    _busy: set[str] = field(default_factory=set)
    _failing_busy: set[str] = field(default_factory=set)

    def add(self, lanes: Iterable[Lane]) -> None:
        """Lanes from the outbox. One that is loaded already is left as it is."""
        for lane in lanes:
            if lane.run not in self._loaded and lane.waiting:
                self._loaded[lane.run] = lane
                if _keeps_failing(lane):
                    self._failing_ready.add(lane.run)
                heapq.heappush(self._line(lane), rank_of(lane))

    def take(self, *, steady: bool = False) -> Lane | None:
        """The first in line: the highest priority, then the oldest patch; None if nobody may go.

        It is busy until `give_back` or `drop`. Lanes that keep failing go by their rank among all
        others, unless `steady` leaves them out.
        """
        lane = self._first(self._steady)
        if self._failing and not steady:
            other = self._first(self._failing)
            if lane is None or (other is not None and rank_of(other) < rank_of(lane)):
                lane = other
        return None if lane is None else self._taken(lane)

    def take_run(self, run: str | None) -> Lane | None:
        """The lane of this run, if it may go."""
        lane = None if run is None or run in self._busy else self._loaded.get(run)
        return None if lane is None else self._taken(lane)

    def take_beside(self, rank: Rank, most_failures: float) -> Lane | None:
        """The one that stands next to there in line, of those that have not failed more often."""

        def apart(lane: Lane) -> tuple[int, int, int]:
            place, first_id, _ = rank_of(lane)
            # Of two as near, the one behind.
            return abs(place - rank[0]), abs(first_id - rank[1]), -first_id

        found = (lane for lane in self._all_ready() if lane.failures <= most_failures)
        lane = min(found, key=apart, default=None)
        return None if lane is None else self._taken(lane)

    def drop(self, run: str) -> None:
        """The lane is no longer loaded: it rests in the outbox, or has nothing left."""
        self._busy.discard(run)
        self._failing_busy.discard(run)
        self._failing_ready.discard(run)
        self._loaded.pop(run, None)

    def give_back(self, lane: Lane) -> None:
        """A busy lane is ready again, with what it has now."""
        self.drop(lane.run)
        self.add([lane])

    def arrived(self, run: str, priority: int, newest_id: int | None = None) -> bool:
        """The outbox has patches that their lane may lack. False if the lane is not loaded.

        A lane has a run's patches in arrival order: up to `newest_id` it may have them all.
        """
        lane = self._loaded.get(run)
        if lane is None:
            return False
        if newest_id is None or not lane.waiting or lane.waiting[-1].id < newest_id:
            lane.more = True
        if priority > lane.priority:
            lane.priority = priority
            if run not in self._busy:
                heapq.heappush(self._line(lane), rank_of(lane))
        return True

    def reserve(self, run: str) -> bool:
        """Keep a run for another purpose than sending, until `drop`. False if it is busy."""
        if run in self._busy:
            return False
        self._failing_ready.discard(run)
        self._loaded[run] = Lane(run, 0, [], more=True)
        self._busy.add(run)
        return True

    @property
    def runs(self) -> frozenset[str]:
        """The runs of all lanes loaded."""
        return frozenset(self._loaded)

    @property
    def alone_until(self) -> dict[str, int]:
        """By run, of the lanes loaded: the id up to which its patches go one by one."""
        return {run: lane.alone_until for run, lane in self._loaded.items() if lane.alone_until}

    @property
    def ready(self) -> int:
        """How many lanes may go now."""
        return len(self._loaded) - len(self._busy)

    @property
    def steady_ready(self) -> int:
        """How many of them do not keep failing."""
        return self.ready - len(self._failing_ready)

    @property
    def fewest_failures(self) -> int:
        """How often in a row the one of them has failed that failed least."""
        return min((lane.failures for lane in self._all_ready()), default=0)

    @property
    def newcomer(self) -> str | None:
        """The run of the first in line of them that have not failed yet."""
        new = (lane for lane in self._all_ready() if not lane.failures)
        lane = min(new, key=rank_of, default=None)
        return None if lane is None else lane.run

    @property
    def failing_busy(self) -> int:
        """How many lanes that keep failing are busy."""
        return len(self._failing_busy)

    def forget(self) -> None:
        """An operator changed rows under the lanes: drop those not busy, distrust those busy."""
        for run in [run for run in self._loaded if run not in self._busy]:
            del self._loaded[run]
        self._steady.clear()
        self._failing.clear()
        self._failing_ready.clear()
        for lane in self._loaded.values():
            lane.more, lane.read_anew = True, False

    def _all_ready(self) -> Iterator[Lane]:
        return (lane for run, lane in self._loaded.items() if run not in self._busy)

    def _taken(self, lane: Lane) -> Lane:
        lane.aside = False
        # Its rank in line is passed by when it comes up.
        self._busy.add(lane.run)
        if _keeps_failing(lane):
            self._failing_ready.discard(lane.run)
            self._failing_busy.add(lane.run)
        return lane

    def _line(self, lane: Lane) -> list[Rank]:
        return self._failing if _keeps_failing(lane) else self._steady

    def _first(self, line: list[Rank]) -> Lane | None:
        """Whose turn it is in a line."""
        while line:
            lane = self._loaded.get(line[0][2])
            # A rank from before the lane was dropped and loaded again would put it ahead of others.
            if (
                lane is not None
                and lane.run not in self._busy
                and line[0] == rank_of(lane)
                and self._line(lane) is line
            ):
                return lane
            heapq.heappop(line)
        return None


def _keeps_failing(lane: Lane) -> bool:
    return lane.failures >= FAILING


def rank_of(lane: Lane) -> Rank:
    """Where it stands in line."""
    return -lane.priority, lane.waiting[0].id, lane.run
