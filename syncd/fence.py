"""The fence: runs that a late request may have set back are read back, and sent again if so."""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from syncd.core.answer import NoReply, NotSent, Reply
from syncd.core.outcome import Blame, Confirmed, LockedOut, Refused, Unavailable, classify
from syncd.core.suspect import Suspect, at_risk, unconfirmed
from syncd.core.undone import Undone
from syncd.gate import Gate
from syncd.relay import Relay
from syncd.store import Store, StoreUnavailable

log = structlog.get_logger()

SHARE = 0.1  # of the pace, at most: what was delivered shall not keep what waits from going
LOOK_S = 30.0  # between looks where nothing is known to be due sooner
RETRY_S = 5.0


class Reader(Protocol):
    """What the fence needs of the vendor's API."""

    async def retrieve(self, run_id: str) -> Reply | NoReply | NotSent:
        """GET the run."""


class Fence:
    """Checks one suspect at a time, through the gate, on a small budget of its own.

    Whether the vendor counts reads apart is not documented: they are kept within the one limit.
    """

    def __init__(
        self,
        store: Store,
        reader: Reader,
        gate: Gate,
        relay: Relay,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._reader = reader
        self._gate = gate
        self._relay = relay
        self._wall = wall
        self._may_read_at = 0.0
        """On the loop's clock: the last read-back has used up the budget until then."""
        self._undone = Undone()

    async def run(self) -> None:
        """Check suspects as they become due, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(0.0, self._may_read_at - loop.time()))
            try:
                found, next_due_at = await self._store.suspect(self._relay.busy)
                if found is not None and await self._checked(found):
                    continue
            except StoreUnavailable as error:
                log.warning("store.unavailable", doing="fence", error=str(error))
                next_due_at = None
            # Whatever comes up meanwhile is not due sooner than this.
            wait_s = self._longest_s if next_due_at is None else next_due_at - self._wall()
            await asyncio.sleep(min(self._longest_s, max(0.05, wait_s)))

    def trouble(self) -> str | None:
        """What is sent again and again, in a line."""
        return self._undone.trouble(asyncio.get_running_loop().time())

    @property
    def _longest_s(self) -> float:
        return min(LOOK_S, self._relay.policy.patience.suspect_s)

    async def _checked(self, found: Suspect) -> bool:
        """Settle the suspicion; False if that has to wait."""
        only_probes_go = self._gate.down or self._gate.blocked
        if at_risk(found) and only_probes_go and (wait_s := self._gate.wait_s) > 0:
            # Whoever stands in line there is the next probe: what is to be delivered tells more.
            await asyncio.sleep(min(wait_s, RETRY_S))
            return False
        async with self._relay.reserved(found.run) as reserved:
            if not reserved:
                return False
            # More may have been delivered until the run was kept for this.
            suspect = await self._store.suspect_of(found.run)
            if suspect is None:
                return True
            if not at_risk(suspect):
                await self._clear(suspect)
                return True
            wait_s = self._undone.wait_s(suspect, asyncio.get_running_loop().time())
            if wait_s > 0:
                await self._store.put_off(suspect, wait_s)
                return True
            probe = await self._gate.enter()
            spacing_s = 1.0 / (SHARE * self._gate.figures().rate_per_s)
            self._may_read_at = asyncio.get_running_loop().time() + spacing_s
            answer = await self._reader.retrieve(suspect.run)
            if isinstance(answer, NotSent):
                self._gate.give_back(probe=probe)
                return False
            outcome = classify(answer, suspect.run, self._wall())
            # A request to it has failed before, or it were not suspect: that is no outage's voice.
            if self._gate.leave(suspect.run, outcome, probe=probe, again=True, aside=True):
                await self._relay.recall()
            log.debug("fence.read", run=suspect.run, outcome=type(outcome).__name__.lower())
            match outcome:
                case Confirmed(run):
                    if keys := unconfirmed(suspect, run):
                        again = await self._mend(suspect, keys)
                        log.warning("fence.unconfirmed", run=suspect.run, patches_again=again)
                    else:
                        await self._clear(suspect)
                    return True
                case Refused(trouble) if trouble.blame is Blame.RUN:
                    log.info("fence.gone", run=suspect.run, reason=trouble.code)
                    await self._clear(suspect)
                    return True
                case Refused(trouble):
                    # A read has no patch to blame: it is refused, and would be again.
                    again = await self._mend(suspect, at_risk(suspect))
                    log.warning(
                        "fence.unreadable",
                        run=suspect.run,
                        reason=trouble.code,
                        patches_again=again,
                    )
                    return True
                case Unavailable(retry_after_s=asked):
                    if asked is not None:
                        await self._store.stay_silent(asked)
                    # A run that cannot be read shall not keep the others from being looked at.
                    await self._store.put_off(suspect, self._longest_s)
                    return True
                case LockedOut():
                    await asyncio.sleep(RETRY_S)
                    return False

    async def _mend(self, suspect: Suspect, keys: Collection[str]) -> int:
        """Have these keys sent again; in how many patches."""
        going = await self._store.send_again(suspect, keys)
        now, usual_s = asyncio.get_running_loop().time(), self._relay.policy.patience.suspect_s
        self._undone.mended(suspect, max(going, default=0), now, usual_s)
        return len(going)

    async def _clear(self, suspect: Suspect) -> None:
        await self._store.clear(suspect)
        self._undone.end(suspect.run)
