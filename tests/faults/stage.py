"""The real relay, gate, fence and store on a virtual clock, before a vendor that plays a part."""

import asyncio
import json
import random
import sqlite3
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from asyncio_throttle.throttler import Throttler

from syncd.core.answer import NoReply, NotSent, Reply
from syncd.core.settlement import Patience
from syncd.fence import Fence
from syncd.gate import Gate, Limits
from syncd.relay import Policy, Relay
from syncd.selftest.reckoning import pending
from syncd.selftest.store import Life, connecting
from syncd.selftest.time import VirtualLoop
from syncd.selftest.vendor import EPOCH
from syncd.store import Store

T = TypeVar("T")
Row = tuple[str, str | None, str | None]
Answer = Reply | NoReply | NotSent

BASE_S, CAP_S, TIMEOUT_S = 1.0, 300.0, 30.0  # as shipped
READ = b"{}"  # stands for the body of what reads a run back


def virtually(play: Coroutine[Any, Any, T]) -> T:
    """What comes out of it on a clock that leaps. Nothing of it may be left over."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(play)
    finally:
        loop.close()


class Vendor:
    """Applies what it is sent and answers with the run, unless told to answer otherwise.

    Over `limit` requests in any second it says 429, without a Retry-After.
    """

    def __init__(self, limit: float = 1e9) -> None:
        self.limit = limit
        self.otherwise: Answer | None = None
        """The answer to everything."""
        self.refused: dict[str, Answer] = {}
        """The answer to what is for these runs."""
        self.unread: Answer | None = None
        """The answer to what reads a run back."""
        self.poison: str | None = None
        """A body that holds this text is refused."""
        self.requests: list[tuple[float, str, bytes, int]] = []
        """Each with its instant, its run, its body, and the status (0: none)."""
        self.runs: dict[str, dict[str, Any]] = defaultdict(lambda: {"name": None, "metadata": {}})
        self._lately: deque[float] = deque()
        self._chance = random.Random(3)

    async def update(self, run_id: str, body: bytes) -> Answer:
        return await self._request(run_id, body)

    async def retrieve(self, run_id: str) -> Answer:
        return await self._request(run_id, READ)

    def between(self, begin: float, end: float) -> list[int]:
        """The statuses of the requests from one instant to another."""
        return [status for at, _, _, status in self.requests if begin <= at < end]

    async def _request(self, run_id: str, body: bytes) -> Answer:
        await asyncio.sleep(self._chance.uniform(0.040, 0.045))
        now = asyncio.get_running_loop().time()
        answer = self._answer(run_id, body, now)
        status = answer.status if isinstance(answer, Reply) else 0
        self.requests.append((now, run_id, body, status))
        await asyncio.sleep(self._chance.uniform(0.02, 0.2))
        return answer

    def _answer(self, run_id: str, body: bytes, now: float) -> Answer:
        while self._lately and now - self._lately[0] >= 1.0:
            self._lately.popleft()
        self._lately.append(now)
        if len(self._lately) > self.limit:
            return Reply(429, b'{"error": "slow down"}')
        if self.otherwise is not None:
            return self.otherwise
        if body == READ and self.unread is not None:
            return self.unread
        if run_id in self.refused:
            return self.refused[run_id]
        if self.poison is not None and self.poison.encode() in body:
            return Reply(400, b'{"code": "INVALID_REQUEST", "message": "no", "retryable": false}')
        run, patch = self.runs[run_id], json.loads(body)
        run["name"] = patch.get("name", run["name"])
        run["metadata"].update(patch.get("metadata", {}))
        return Reply(200, json.dumps({"object": "workflow_run", "id": run_id, **run}).encode())


@dataclass(slots=True)
class Stage:
    """What is at work."""

    path: Path
    vendor: Vendor
    store: Store
    gate: Gate
    relay: Relay
    fence: Fence

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def insert(self, rows: Iterable[Row]) -> None:
        """What a producer does."""
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute("PRAGMA synchronous = OFF")
            db.executemany(
                "INSERT INTO outbox (workflow_run_id, name, metadata) VALUES (?, ?, ?)", rows
            )
        self.relay.wake()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(sql).fetchall()

    async def delivered(self, count: int, within_s: float, every_s: float = 0.1) -> float:
        """Wait until so many patches are delivered; how long that took."""
        began = self.now
        while self.rows("SELECT n FROM counters WHERE state = 'delivered'") < [(count,)]:
            assert self.now - began < within_s, f"not {count} delivered in {within_s} s"
            await asyncio.sleep(every_s)
        return self.now - began

    async def drained(self, within_s: float) -> float:
        """Wait until nothing is pending or suspect; how long that took."""
        began = self.now
        while await self.store.read(pending):
            assert self.now - began < within_s, f"not drained in {within_s} s"
            await asyncio.sleep(0.1)
        return self.now - began


@asynccontextmanager
async def on_stage(
    path: Path, vendor: Vendor, *, rate: float = 8.0, in_flight: int = 8, connect: Any = None
) -> AsyncIterator[Stage]:
    """Deliver what is in the database, for the length of the block."""
    loop = asyncio.get_running_loop()
    draw = random.Random(4).random
    wall = lambda: EPOCH + loop.time()  # noqa: E731
    connect = connect or connecting(Life(random.Random(5), 0.0))
    store = await Store.open(path, wall, connect=cast("Any", connect))
    await store.begin(2 * TIMEOUT_S, "boot", EPOCH)
    gate = Gate(
        Limits(rate, in_flight, BASE_S, CAP_S),
        loop.time,
        started=loop.time(),
        closed_for_s=await store.closed_for_s(),
        draw=draw,
        throttle=lambda _: Throttler(1_000_000),
    )
    policy = Policy(True, 20.0, Patience(BASE_S, CAP_S, 0.0, 2 * TIMEOUT_S))
    relay = Relay(store, vendor, gate, policy, wall=wall, draw=draw)
    fence = Fence(store, vendor, gate, relay, wall=wall)
    async with asyncio.TaskGroup() as tasks:
        relaying = tasks.create_task(relay.run())
        fencing = tasks.create_task(fence.run())
        yield Stage(path, vendor, store, gate, relay, fence)
        fencing.cancel()
        relay.stop()
        await relaying
    await store.close()
