"""How things stand, told by the parts: what `syncd status`, /metrics and systemd are shown."""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from syncd import __version__
from syncd.core import estimate
from syncd.core.outcome import lockout
from syncd.core.sending import Sending
from syncd.gate import Gate
from syncd.relay import Relay
from syncd.spool import Spool
from syncd.store import Store, StoreMoved, read


class Status:
    """Asks the parts of one daemon. They are not changed by it."""

    def __init__(
        self,
        store: Store,
        gate: Gate,
        relay: Relay,
        spool: Spool,
        *,
        troubles: Callable[[], Iterable[str]],
        wall: Callable[[], float],
    ) -> None:
        """`troubles` tells what else is wrong, a line each: what delays no delivery yet."""
        self._store = store
        self._gate = gate
        self._relay = relay
        self._spool = spool
        self._troubles = troubles
        self._wall = wall
        self._started_at = wall()
        self.draining = False
        """Set when the stop has begun."""

    async def __call__(self) -> dict[str, Any]:
        """As one object: what `syncd status --json` prints."""
        now = self._wall()
        # The spool first, in the order in which patches go: else those of a file that is taken in
        # between would be in neither, and nothing would seem to wait.
        files_waiting = await asyncio.to_thread(self._spool.waiting)
        status, last_due_s = await self._store.read(
            lambda db: (read.outbox(db, now), read.last_due_s(db, now))
        )
        del status["paused"]
        files_rejected = await asyncio.to_thread(self._spool.rejected)
        # An answer on its way to the disk may have got there since: nobody is counted twice.
        in_flight = min(len(self._relay.in_flight), status["outbox"]["pending"])
        status["outbox"]["in_flight"] = in_flight
        status["outbox"]["pending"] -= in_flight
        moved = await asyncio.to_thread(self._store.moved)
        # From here on nothing is awaited: what is told once shall be of one moment.
        gate = self._gate.figures()
        sending = self.sending()
        troubles = list(self._troubles())
        if refusals := self._relay.figures.trouble():
            troubles.append(refusals)
        reason = sending.reason
        if moved is not None:
            troubles.insert(0, str(moved))
            reason = reason or str(moved)  # it delivers what it has, and takes nothing in
        if unwritten := self._unwritten(sending, troubles):
            troubles.insert(0, f"nothing can be written down: {unwritten}")
        return {
            "daemon": {
                "running": True,
                "state": sending.state,
                "reason": reason,
                "pid": os.getpid(),
                "version": __version__,
                "started_at": read.instant(self._started_at),
                "now": read.instant(now),
                "moved": isinstance(moved, StoreMoved),
            },
            **status,
            "gate": {
                "limit_per_s": gate.limit_per_s,
                "rate_per_s": gate.rate_per_s,
                "max_in_flight": gate.max_in_flight,
                "window": gate.window,
                "closed_until": read.instant(sending.closed_until),
                "breaker": gate.breaker,
            },
            "throughput": {
                "delivered_per_s_1m": self._relay.figures.delivered_per_s_1m(
                    asyncio.get_running_loop().time()
                ),
                "requests_per_s_1m": gate.requests_per_s_1m,
            },
            "eta_s": self._eta_s(
                sending,
                status["outbox"]["pending"] + in_flight,
                last_due_s if status["outbox"]["deferred"] else 0.0,
            ),
            "spool": {
                "waiting": files_waiting,
                "rejected": files_rejected,
            },
            "last_error": status["last_error"],
            "troubles": troubles,
        }

    def _unwritten(self, sending: Sending, said: Sequence[str]) -> str | None:
        """Why nothing can be written down, where nothing else says so."""
        if self._relay.trouble:
            return self._relay.trouble if sending.state != "waiting" else None
        why = self._store.trouble
        return None if why is None or any(str(why) in it for it in said) else str(why)

    def sending(self) -> Sending:
        """How sending stands, and what to reckon with."""
        gate, figures = self._gate.figures(), self._relay.figures
        closed = None if gate.closed_for_s is None else self._wall() + gate.closed_for_s
        state, reason = self._state(read.instant(closed))
        rate: float | None = gate.rate_per_s
        if figures.latency_s > 0:
            rate = min(gate.rate_per_s, gate.window / figures.latency_s)
        if self.draining or self._gate.paused or self._relay.trouble or gate.breaker != "closed":
            rate = None
        by_api = state == "blocked" or (state == "waiting" and not self._relay.trouble)
        sending = Sending(
            state,
            reason,
            closed,
            rate,
            figures.patches_per_request,
            by_api=by_api,
            probe=self._gate.probe if by_api else None,
        )
        if not estimate.gets_through(sending, self._lately()):
            return replace(sending, requests_per_s=None)
        return sending

    def _state(self, closed_until: str | None) -> tuple[str, str | None]:
        """The daemon's state in one word, and why. The first that holds is the one that is said."""
        gate = self._gate.figures()
        if self.draining:
            return "draining", "stopping: waiting for the answers that are out"
        if self._gate.paused:
            return "paused", "an operator has paused sending: syncd resume"
        if refusal := self._gate.lockout:
            return "blocked", lockout(refusal.code)
        if trouble := self._relay.trouble:
            return "waiting", f"nothing can be written down: {trouble}"
        if gate.breaker == "half-open":
            return "waiting", "the API is failing; a probe is out"
        if gate.breaker != "closed":
            return "waiting", f"the API is failing; next probe at {closed_until or 'any moment'}"
        if closed_until is not None:
            return "waiting", f"the API asked to wait until {closed_until}"
        return "running", None

    def _lately(self) -> estimate.Lately:
        lately = self._relay.figures.lately(asyncio.get_running_loop().time())
        return replace(lately, worked_s=min(lately.worked_s, self._gate.figures().going_s))

    def _eta_s(self, sending: Sending, pending: int, last_due_s: float) -> float | None:
        seconds = estimate.eta_s(
            pending, sending, self._lately(), now=self._wall(), last_due_s=last_due_s
        )
        return None if seconds is None else round(seconds, 1)
