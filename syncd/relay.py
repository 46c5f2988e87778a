"""The relay: who goes next, and when: outbox -> schedule -> fold -> gate -> attempt -> outbox."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from syncd.attempt import Attempts, Transport
from syncd.core.breaker import Probe, share
from syncd.core.figures import RelayFigures
from syncd.core.liveness import Standing, Waits
from syncd.core.plan import request_of
from syncd.core.schedule import Lane
from syncd.core.sending import Out
from syncd.core.settlement import Patience
from syncd.gate import PROMPT_S, Gate
from syncd.lanes import Lanes
from syncd.store import Store, StoreUnavailable

log = structlog.get_logger()

MAX_UNSETTLED = 512  # answers that wait for the disk; beyond, nothing more is sent
STORE_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's settings, as far as the relay decides by them."""

    fold: bool
    drain_s: float
    patience: Patience


class Relay:
    """Delivers what waits in the outbox. At most one request for each run is out at any time."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        gate: Gate,
        policy: Policy,
        *,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._gate = gate
        self.policy = policy
        self._lanes = Lanes(store, wall)
        self._attempts = Attempts(
            store,
            transport,
            gate,
            self._lanes,
            lambda: self.policy.patience,
            wall=wall,
            draw=draw,
        )
        self._turn = asyncio.Lock()
        self._tasks: dict[asyncio.Task[None], float] = {}
        """The attempts under way, each with the instant at which it began."""
        self._step: tuple[Waits, float] = (Waits.NEWS, 0.0)
        """What the sending task waits for, and since when."""
        self._stopping = asyncio.Event()
        self.cut: set[asyncio.Task[None]] = set()
        """Requests that the end of a drain has cut off: they may have been applied."""

    async def run(self) -> None:
        """Deliver until `stop`; then wait for the answers that are out, and settle them.

        Cancelled, it abandons them: they stay pending in the outbox and go again.
        """
        async with asyncio.TaskGroup() as tasks:
            settling = tasks.create_task(self._attempts.settler.run())
            sending = tasks.create_task(self._send(tasks))
            await self._stopping.wait()
            sending.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self.policy.drain_s)
                self.cut_short()
            if self.cut:
                log.warning("relay.drain_cut", in_flight=len(self.cut))
                await asyncio.wait(self.cut)
            settling.cancel()

    def stop(self) -> None:
        """Begin nothing new; `run` returns when what is out is settled, or `drain_s` is up."""
        self._stopping.set()

    def cut_short(self) -> None:
        """End the drain now: what is out is abandoned, stays pending, and goes again."""
        self.cut.update(attempt for attempt in self._tasks if attempt.cancel())

    def wake(self) -> None:
        """There may be something new in the outbox. May be called often, may be lost."""
        self._lanes.wake()

    def ask_at_once(self, run: str | None) -> bool:
        """Let the next probe go to that run, if it can, and now. False if none goes now."""
        if not (self._gate.down or self._gate.blocked):
            return False
        goes = self._gate.probe is Probe.AWAITED and not self._stopping.is_set()
        self._lanes.want(run)
        self._gate.hurry()
        return goes

    @asynccontextmanager
    async def standing_still(self) -> AsyncIterator[frozenset[int]]:
        """While a verb changes rows: no request begins. Yields the patches in flight."""
        async with self._turn:
            try:
                yield self.in_flight
            finally:
                self._lanes.distrust()

    @asynccontextmanager
    async def reserved(self, run: str) -> AsyncIterator[bool]:
        """While a run is looked into: nothing is sent to it. Yields False if something is out."""
        async with self._turn:
            reserved = self._lanes.reserve(run)
        try:
            yield reserved
        finally:
            if reserved:
                self._lanes.let_go(run)
                self._lanes.look_again()

    async def recall(self) -> None:
        """The service is back: whoever waited because of it need not wait any longer."""
        await self._lanes.recall()

    @property
    def figures(self) -> RelayFigures:
        """What was asked and answered."""
        return self._attempts.figures

    @property
    def busy(self) -> frozenset[str]:
        """The runs to which something is out."""
        return self._attempts.busy

    @property
    def in_flight(self) -> frozenset[int]:
        """The patches whose request is out or whose answer is being settled."""
        return self._attempts.in_flight

    @property
    def out(self) -> dict[str, Out]:
        """The same by run."""
        return self._attempts.out

    @property
    def alone_until(self) -> dict[str, int]:
        """By run: patches up to this id go one by one, because a fold of them was refused."""
        return self._lanes.alone_until

    @property
    def unsettled(self) -> int:
        """Answers that are not on disk yet."""
        return self._attempts.settler.backlog

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written down now, if so."""
        return self._attempts.settler.trouble

    @property
    def standing(self) -> Standing:
        """Where it stands, for whoever must tell waiting from being stuck."""
        now = asyncio.get_running_loop().time()
        waits, since = self._step
        return Standing(
            waits,
            still_s=now - since if since else 0.0,
            oldest_s=now - min(self._tasks.values(), default=now),
            may_go=self._gate.is_open,
            can_write=self.trouble is None,
        )

    def _stepped(self, waits: Waits) -> None:
        self._step = waits, asyncio.get_running_loop().time()

    async def _send(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._stepped(Waits.NOTHING)
            try:
                await self._lanes.refill()
            except StoreUnavailable as error:
                log.error("store.unavailable", doing="page", error=str(error))
                await asyncio.sleep(STORE_RETRY_S)
                continue
            may_go = self._lanes.may_go(self._gate.slots)
            if not may_go or self._attempts.settler.backlog >= MAX_UNSETTLED:
                self._stepped(Waits.NEWS)
                if not (self._lanes.ready or self._lanes.expecting or self.busy):
                    self.figures.rests()
                await self._lanes.rest()
                continue
            self._stepped(Waits.GATE)
            self.figures.works(self._step[1])
            if self._gate.down and (wait_s := self._gate.wait_s) > 0:
                # Whoever waits in line at the gate does not see who comes, and may be news.
                newcomer = self._lanes.newcomer if self._gate.doubtful else None
                if newcomer is None:
                    await self._lanes.rest(wait_s)
                    continue
                self._lanes.want(newcomer)
                self._gate.hurry()
            if trips := self._gate.trips:
                await self._lanes.load_to_probe(share(trips))
            elif self._gate.unsure:
                await self._lanes.load_in_doubt()
            await self._lanes.load_wanted()
            probe = await self._gate.enter()
            self._stepped(Waits.NOTHING)
            if self._turn.locked():
                # What was let through now must go now, or nobody has judged when it goes.
                self._gate.give_back(probe=probe)
                async with self._turn:
                    continue
            async with self._turn:
                await self._begin(tasks, probe)

    def _next(self, probe: bool) -> Lane | None:
        """Whose turn it is: the first in line's, unless it is not known who can be served."""
        if probe:
            return self._lanes.take_to_probe()
        slots = self._gate.slots
        if self._gate.unsure and (lane := self._lanes.take_in_doubt(slots)) is not None:
            return lane
        return self._lanes.take(slots)

    async def _begin(self, tasks: asyncio.TaskGroup, probe: bool) -> None:
        """Start the next lane's request in a task of its own."""
        lane = self._next(probe)
        late = False
        if lane is not None and lane.more and not lane.read_anew:
            before = asyncio.get_running_loop().time()
            if not await self._lanes.refresh(lane):
                # As it was read before, it may hold what an operator has taken back since.
                self._lanes.give_back(lane)
                self._gate.give_back(probe=probe)
                await asyncio.sleep(STORE_RETRY_S)
                return
            took = asyncio.get_running_loop().time() - before
            # Read anew once is enough: a slow disk must not keep a busy lane waiting for ever.
            lane.read_anew = late = took > PROMPT_S or self._gate.shut
        if lane is None or not lane.waiting or late:
            if lane is not None:
                self._lanes.give_back(lane)
            self._gate.give_back(probe=probe)
            return
        lane.read_anew = False
        if probe:
            self._lanes.want(None)
        request = request_of(lane, folding=self.policy.fold)
        began = asyncio.get_running_loop().time()
        if request is None:
            self._gate.give_back(probe=probe)
        attempt = tasks.create_task(self._attempts.begun(lane, request, probe=probe))
        self._tasks[attempt] = began
        attempt.add_done_callback(lambda done: self._tasks.pop(done, None))
