"""What one attempt does: request -> answer -> classify -> settle, and what its lane does then."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog

from syncd.core.answer import NoReply, NotSent, Reply
from syncd.core.figures import RelayFigures
from syncd.core.fold import Fold
from syncd.core.outcome import (
    Blame,
    Confirmed,
    LockedOut,
    Outcome,
    Refused,
    Trouble,
    Unavailable,
    classify,
    lockout,
)
from syncd.core.plan import UNSENDABLE
from syncd.core.schedule import Lane
from syncd.core.sending import Out
from syncd.core.settlement import Dead, Deferred, Patience, Settlement, settlements
from syncd.gate import Gate
from syncd.lanes import Lanes
from syncd.settler import Settler
from syncd.store import Store

log = structlog.get_logger()


class Transport(Protocol):
    """What an attempt needs of the vendor's API. Cancelling abandons the request."""

    async def update(self, run_id: str, body: bytes) -> Reply | NoReply | NotSent:
        """POST the body to the run."""


class Attempts:
    """Each sends a lane's request and carries through what the answer asks for."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        gate: Gate,
        lanes: Lanes,
        patience: Callable[[], Patience],
        *,
        wall: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._gate = gate
        self._lanes = lanes
        self._patience = patience
        self._wall = wall
        self._draw = draw
        self._in_flight: dict[str, tuple[tuple[int, ...], float]] = {}
        """By run: the patches whose request is out, and the instant at which it began."""
        self.settler = Settler(store, self._nobody_else)
        """Writes the answers down; its `run` is for whoever owns the tasks."""
        self.figures = RelayFigures()

    def begun(self, lane: Lane, request: Fold | None, *, probe: bool) -> Coroutine[Any, Any, None]:
        """The lane is in flight from now on; what is returned sees to it, and has to be awaited.

        Without a request its first patch cannot be sent, and is buried.
        """
        began = asyncio.get_running_loop().time()
        if request is None:
            self._in_flight[lane.run] = (lane.waiting[0].id,), began
            return self._bury(lane)
        self._in_flight[lane.run] = request.ids, began
        return self._attempt(lane, request, probe)

    @property
    def busy(self) -> frozenset[str]:
        """The runs to which something is out."""
        return frozenset(self._in_flight)

    @property
    def in_flight(self) -> frozenset[int]:
        """The patches whose request is out or whose answer is being settled."""
        return frozenset(i for ids, _ in self._in_flight.values() for i in ids)

    @property
    def out(self) -> dict[str, Out]:
        """The same by run."""
        now = asyncio.get_running_loop().time()
        return {run: Out(ids, now - began) for run, (ids, began) in self._in_flight.items()}

    def _nobody_else(self) -> bool:
        """Whether all that is in flight waits to be settled already."""
        return len(self._in_flight) <= self.settler.backlog

    async def _attempt(self, lane: Lane, request: Fold, probe: bool) -> None:
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        answer = await self._transport.update(lane.run, request.body)
        if isinstance(answer, NotSent):
            self._gate.give_back(probe=probe)
            self._give_back(lane)
            return
        now = loop.time()
        self.figures.answered(now - sent_at, now)
        outcome = classify(answer, lane.run, self._wall())
        is_back = self._gate.leave(
            lane.run, outcome, probe=probe, again=lane.failures > 0, aside=lane.aside
        )
        self._report(lane, request, outcome)
        decided = settlements(
            lane, request, outcome, self._patience(), now=self._wall(), draw=self._draw()
        )
        if decided:
            await self.settler.settle(*decided)
        if is_back:
            await self._lanes.recall()
        await self._release(lane, request, outcome, decided)

    async def _bury(self, lane: Lane) -> None:
        """The lane's first patch cannot be sent: SQL has put into it what JSON cannot say."""
        trouble = Trouble(Blame.PATCH, "invalid", UNSENDABLE)
        first = (lane.waiting[0].id,)
        log.warning("patch.dead", run=lane.run, patches=first, reason=trouble.code)
        await self.settler.settle(Dead(lane.run, first, trouble, lane.troubled))
        await self._move_on(lane, first)

    async def _release(
        self, lane: Lane, request: Fold, outcome: Outcome, settled: list[Settlement]
    ) -> None:
        """What is next for the lane, now that the answer is on disk."""
        match outcome:
            case Confirmed():
                self.figures.confirms(len(request.ids), asyncio.get_running_loop().time())
                await self._move_on(lane, request.ids)
            case Refused(trouble) if trouble.blame is Blame.RUN:
                # All that waited is parked; what has come for the run since then is not.
                self.figures.refuses(lane.run, trouble)
                await self._move_on(lane, tuple(patch.id for patch in lane.waiting))
            case Refused(trouble) if len(request.ids) == 1:
                self.figures.refuses(lane.run, trouble)
                await self._move_on(lane, request.ids)
            case Refused():
                lane.alone_until = request.ids[-1]
                self._give_back(lane)
            case LockedOut():
                self._give_back(lane)
            case Unavailable():
                for one in settled:
                    if isinstance(one, Deferred) and one.decided_at is not None:
                        self._lanes.expect(self._wall() + one.due_at - one.decided_at)
                self._let_go(lane)

    async def _move_on(self, lane: Lane, settled: tuple[int, ...]) -> None:
        """These patches are done with: the lane's next ones may go."""
        self.figures.ends(len(settled), asyncio.get_running_loop().time())
        lane.done_with(settled)
        lane.failures, lane.troubled = 0, False
        if not lane.waiting and lane.more:
            await self._lanes.refresh(lane)
        if lane.waiting:
            self._give_back(lane)
        else:
            self._let_go(lane)
            if lane.more:  # arrived while the lane was read, or it could not be read
                self._lanes.look_again()

    def _give_back(self, lane: Lane) -> None:
        self._in_flight.pop(lane.run, None)
        self._lanes.give_back(lane)

    def _let_go(self, lane: Lane) -> None:
        self._in_flight.pop(lane.run, None)
        self._lanes.let_go(lane.run)

    def _report(self, lane: Lane, request: Fold, outcome: Outcome) -> None:
        match outcome:
            case Confirmed():
                log.debug("relay.delivered", run=lane.run, patches=request.ids)
            case Refused(trouble):
                if trouble.blame is Blame.RUN or len(request.ids) == 1:
                    log.warning(
                        "patch.dead",
                        run=lane.run,
                        patches=request.ids,
                        blame=trouble.blame.value,
                        reason=trouble.code,
                        message=trouble.message,
                        request_id=trouble.request_id,
                    )
                else:
                    log.info("relay.taken_apart", run=lane.run, patches=request.ids)
            case LockedOut(trouble):
                log.error(
                    "gate.blocked",
                    reason=trouble.code,
                    message=trouble.message,
                    meaning=lockout(trouble.code),
                )
            case Unavailable(trouble):
                log.debug(
                    "relay.deferred",
                    run=lane.run,
                    patches=request.ids,
                    reason=trouble.code,
                    message=trouble.message,
                )
