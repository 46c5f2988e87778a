"""The lanes loaded into memory: read from the outbox a page at a time, given out one by one."""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress

import structlog

from syncd.core.outcome import Blame, Trouble
from syncd.core.schedule import FAILING, Lane, Rank, Schedule, rank_of
from syncd.core.settlement import Dead
from syncd.store import Cursor, Store, StoreUnavailable

log = structlog.get_logger()

UNREADABLE = Trouble(Blame.PATCH, "invalid", "its text is not UTF-8")
PAGE = 256  # lanes read at a time
LOW = 64  # fewer ready lanes than this that do not keep failing: read the next page
MOST_LOADED = 2 * PAGE  # with as many loaded, lanes that keep failing have to wait for room
FAILING_SHARE = 4  # of the turns and slots one in so many, but at least one, is for those that do
SLOW_LOOK_S = 30.0  # a whole look at the outbox, in case a wake-up was lost

FRONT: Rank = 1 - (1 << 63), 0, ""  # before everybody


class Lanes:
    """What of the outbox is in memory, whatever its size. One task refills and takes.

    A lane that was taken is busy: nobody else is given its run until `give_back` or `let_go`.
    """

    def __init__(self, store: Store, wall: Callable[[], float]) -> None:
        self._store = store
        self._wall = wall
        self._schedule = Schedule()
        self._cursor = Cursor()
        self._exhausted = False
        self._next_due_at: float | None = None
        self._turns = 0
        self._probing: Rank = FRONT
        """Where the last probe has gone, or the next is to go …"""
        self._failed_too = False
        """… even to one that had failed though others have not."""
        self._probed_failures = 0
        """How often the one had failed that the last probe was for."""
        self._aside = False
        """The last turn was not the first in line's."""
        self._wanted: str | None = None
        """The run that the next probe shall go to."""
        self._news = True
        """The outbox may have something that was not looked at."""
        self._moved = asyncio.Event()
        """Something has changed for whoever takes."""

    @property
    def ready(self) -> int:
        """How many lanes may go now."""
        return self._schedule.ready

    @property
    def alone_until(self) -> dict[str, int]:
        """By run, of the lanes loaded: the id up to which its patches go one by one."""
        return self._schedule.alone_until

    @property
    def expecting(self) -> bool:
        """Whether a lane in trouble is known to wait for its time."""
        return self._next_due_at is not None

    def wake(self) -> None:
        """There may be something new in the outbox. May be called often, may be lost."""
        self._news = True
        self._moved.set()

    def look_again(self) -> None:
        """Walk the outbox from the top."""
        self._cursor = Cursor()
        self._exhausted = False
        self.wake()

    def distrust(self) -> None:
        """Rows have been changed under the lanes loaded."""
        self._schedule.forget()
        self.look_again()

    def expect(self, due_at: float) -> None:
        """A lane in trouble is due at this instant: look then."""
        known = self._next_due_at
        self._next_due_at = due_at if known is None else min(known, due_at)
        self._moved.set()

    async def recall(self) -> None:
        """The service is back: whoever waited because of it need not wait any longer."""
        try:
            recalled = await self._store.recall()
        except StoreUnavailable as error:
            log.error("store.unavailable", doing="recall", error=str(error))
            return
        log.info("relay.recalled", lanes=recalled)
        self.expect(self._wall())

    def want(self, run: str | None) -> None:
        """The next probe shall go to this run, if it can; None takes that back."""
        self._wanted = run
        self._moved.set()

    def may_go(self, slots: int) -> bool:
        """Whether `take` would give a lane."""
        return self._schedule.steady_ready > 0 or (
            self._schedule.ready > 0 and self._room_for_failing(slots)
        )

    def take(self, slots: int) -> Lane | None:
        """The next lane: highest priority, then oldest patch.

        Those that keep failing are left out of most turns, and have but a part of the `slots` that
        there are: what they wait for, a timeout perhaps, shall not be what everybody waits for.
        """
        turn_of_others = self._schedule.steady_ready > 0 and self._turns % FAILING_SHARE != 0
        self._turns += 1
        self._wanted = None  # no probe is asked for any more
        return self._schedule.take(steady=turn_of_others or not self._room_for_failing(slots))

    def take_to_probe(self) -> Lane | None:
        """The lane that is wanted, or the one of where the probe is to go."""
        fewest = self._schedule.fewest_failures
        lane = self._schedule.take_run(self._wanted) or self._schedule.take_beside(
            self._probing, math.inf if self._failed_too else fewest
        )
        self._aside = True
        if lane is not None:
            self._probing, self._probed_failures = rank_of(lane), lane.failures
            lane.aside = lane.failures > fewest
        return lane

    def take_in_doubt(self, slots: int) -> Lane | None:
        """Every second time one next to where a probe has found that the service is back, that had
        failed no more often; else None: it is the turn of the first in line.

        If those in front cannot be served, they do not hold up others who can.
        """
        self._aside = not self._aside
        if not self._aside:
            return None
        most = math.inf if self._room_for_failing(slots) else FAILING - 1
        lane = self._schedule.take_beside(self._probing, min(most, self._probed_failures))
        if lane is not None:
            lane.aside = True
        return lane

    async def load_wanted(self) -> None:
        """Load the run that the next probe shall go to, wherever it stands in line."""
        if self._wanted is not None:
            known = self._cursor
            with suppress(StoreUnavailable):
                self._add_alone(await self._store.lane(self._wanted), known)

    async def load_to_probe(self, share: float | None) -> None:
        """Load the lane too with that share of the line before it, which may be far beyond those
        that are read ahead; with None one that has failed, and is due longest.

        Else whoever fails because of the service would wait for all who fail of themselves.
        """
        known = self._cursor
        with suppress(StoreUnavailable):
            found = await self._store.to_probe(share, self._schedule.runs)
            self._probing, lane = found or (FRONT, None)
            self._failed_too = found is not None and share is None
            self._add_alone(lane, known)

    async def load_in_doubt(self) -> None:
        """Load whom `take_in_doubt` gives next, wherever it stands in line."""
        if self._aside:
            return
        known = self._cursor
        with suppress(StoreUnavailable):
            most, loaded = self._probed_failures, self._schedule.runs
            self._add_alone(await self._store.beside(self._probing, most, loaded), known)

    @property
    def newcomer(self) -> str | None:
        """The run of the first in line that may go and has not failed yet."""
        return self._schedule.newcomer

    def reserve(self, run: str) -> bool:
        """Keep a run busy for another purpose, until `let_go`. False if it is busy already."""
        return self._schedule.reserve(run)

    def give_back(self, lane: Lane) -> None:
        """A busy lane may go again, with what it has now."""
        self._schedule.give_back(lane)
        self._moved.set()

    def let_go(self, run: str) -> None:
        """A busy lane rests in the outbox, or has nothing left."""
        self._schedule.drop(run)
        self._moved.set()

    async def refill(self) -> None:
        """Read the next lanes if there is room for them, or if something urgent may have come.

        Raises StoreUnavailable; then everything is looked at anew the next time.
        """
        # Cleared before looking, so that whatever happens from here on is not slept through.
        self._moved.clear()
        due = self._next_due_at is not None and self._next_due_at <= self._wall()
        room = self._schedule.steady_ready < LOW
        if not (self._news or due or (room and not self._exhausted)):
            return
        self._news = False
        before = self._cursor
        try:
            await self._page(PAGE if room else 0)
            if not room and self._cursor.priority > before.priority:
                await self._page(LOW)
        except StoreUnavailable:
            self.look_again()
            raise

    async def rest(self, most_s: float = SLOW_LOOK_S) -> None:
        """Until there may be something to do, but not for longer than `most_s`."""
        wait = min(SLOW_LOOK_S, most_s)
        if self._next_due_at is not None:
            wait = min(wait, max(0.0, self._next_due_at - self._wall()) + 0.001)
        try:
            async with asyncio.timeout(wait):
                await self._moved.wait()
        except TimeoutError:
            if wait == SLOW_LOOK_S:
                self.look_again()

    async def refresh(self, lane: Lane) -> bool:
        """Give a busy lane what the outbox has of it now. False if that cannot be read."""
        lane.more = False  # what is met while reading sets it again
        try:
            fresh = await self._store.lane(lane.run)
        except StoreUnavailable as error:
            log.error("store.unavailable", doing="lane", error=str(error))
            lane.more = True
            return False
        lane.waiting = fresh.waiting if fresh else []
        lane.more = lane.more or (fresh is not None and fresh.more)
        lane.priority = fresh.priority if fresh else lane.priority
        return True

    def _room_for_failing(self, slots: int) -> bool:
        return self._schedule.failing_busy < max(1, slots // FAILING_SHARE)

    def _add_alone(self, lane: Lane | None, known: Cursor) -> None:
        """Unless an operator has moved the ground since it was read."""
        if lane is not None and self._cursor is known:
            self._schedule.add([lane])

    async def _page(self, limit: int) -> None:
        """Take up to `limit` lanes from the outbox."""
        cursor = self._cursor
        self._next_due_at = None  # what is expected from here on may not be in the page
        loaded = self._schedule.runs
        due = limit // 2, max(0, MOST_LOADED - len(loaded))
        page = await self._store.page(cursor, loaded, limit, due)
        if self._cursor is not cursor:
            return  # an operator has moved the ground meanwhile
        self._cursor = page.cursor
        self._exhausted = page.exhausted and limit > 0
        if page.next_due_at is not None:
            self.expect(page.next_due_at)
        self._schedule.add(page.lanes)
        if page.unreadable:
            log.warning("patch.dead", patches=page.unreadable, reason=UNREADABLE.code)
            await self._store.settle([Dead("", tuple(page.unreadable), UNREADABLE, troubled=False)])
        if page.empty:
            # What has come for one of them meanwhile was passed by, as that of a run in trouble.
            await self._store.untrouble(page.empty)
            self.look_again()
        known = self._cursor
        for run, priority in page.arrived.items():
            # A lane may have been let go of while the page was read.
            if not self._schedule.arrived(run, priority, page.newest[run]):
                lane = await self._store.lane(run)
                if self._cursor is not known:
                    return
                if lane is not None and not lane.troubled:
                    self._schedule.add([lane])
