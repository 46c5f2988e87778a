"""Group commit: answers wait a moment for others, then are written down together."""

import asyncio
from collections.abc import Callable

import structlog

from syncd.core.settlement import Settlement
from syncd.store import Store, StoreUnavailable

log = structlog.get_logger()

GROUP_S = 0.015  # longer makes acknowledgement late, shorter makes commits many
MOST = 256  # settlements in one transaction
RETRY_S = 1.0


class Settler:
    """Writes settlements down. `run` is a task; `settle` is awaited by whoever has an answer."""

    def __init__(self, store: Store, nobody_else: Callable[[], bool]) -> None:
        """`nobody_else` tells that no other answer is to be expected soon: then nobody waits."""
        self._store = store
        self._nobody_else = nobody_else
        self._waiting: list[tuple[tuple[Settlement, ...], asyncio.Future[None]]] = []
        self._since = 0.0
        """The first of those that wait has come then."""
        self._writing = 0
        self._work = asyncio.Event()
        self.trouble: str | None = None
        """Why answers cannot be written down now, as a person reads it."""

    @property
    def backlog(self) -> int:
        """Answers not written down yet; whoever sends stops sending when it grows."""
        return len(self._waiting) + self._writing

    async def settle(self, *settlements: Settlement) -> None:
        """Return when the settlements are on disk, however long the disk takes.

        Cancelled, they may or may not be written; both are true to what happened.
        """
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            self._since = loop.time()
        self._waiting.append((settlements, written))
        self._work.set()
        await written

    async def run(self) -> None:
        """Write groups until cancelled."""
        while True:
            await self._work.wait()
            # What came while others were written has waited already.
            early_s = self._since + GROUP_S - asyncio.get_running_loop().time()
            if early_s > 0 and len(self._waiting) < MOST and not self._nobody_else():
                await asyncio.sleep(early_s)
            group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            if not self._waiting:
                self._work.clear()
            self._writing = len(group)
            await self._write([one for settlements, _ in group for one in settlements])
            self._writing = 0
            for _, written in group:
                if not written.done():
                    written.set_result(None)

    async def _write(self, settlements: list[Settlement]) -> None:
        while True:
            try:
                await self._store.settle(settlements)
            except StoreUnavailable as error:
                if self.trouble is None:
                    log.error("store.unavailable", doing="settle", error=str(error))
                self.trouble = str(error)
                await asyncio.sleep(RETRY_S)
            else:
                if self.trouble is not None:
                    log.warning("store.available")
                    self.trouble = None
                return
