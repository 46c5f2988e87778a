"""One history, played: a daemon that lives and dies among faults, then calm, then the reckoning."""

import asyncio
import hashlib
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from asyncio_throttle.throttler import Throttler

from syncd.core.answer import NoReply, Reply
from syncd.core.settlement import Patience
from syncd.fence import SHARE, Fence
from syncd.gate import Gate, Limits
from syncd.relay import Policy, Relay
from syncd.selftest.plan import Plan
from syncd.selftest.reckoning import faults_found, outbox_of, pending
from syncd.selftest.store import Life, connecting
from syncd.selftest.time import Stuck, VirtualLoop
from syncd.selftest.vendor import TIMEOUT_S, ZOMBIE_S, Vendor
from syncd.selftest.world import Up, World
from syncd.store import Store, StoreUnavailable
from syncd.store.facts import PAUSED, fact

BASE_S, CAP_S = 0.5, 60.0
SUSPECT_S = TIMEOUT_S + ZOMBIE_S


class Death(StrEnum):
    """How a life of the daemon ends."""

    KILL = "killed"
    KILL_AT_START = "killed at its start"
    KILL_AT_STOP = "killed at its stop"
    STOP = "stopped in order"


DEATHS = (*[Death.KILL] * 4, Death.KILL_AT_START, Death.KILL_AT_STOP, Death.STOP)
SLOW_LOOK_S = 30.0  # the relay's, in case a wake-up was lost


@dataclass(slots=True)
class Verdict:
    """What became of a history."""

    plan: Plan
    problems: list[str] = field(default_factory=list)
    """Broken promises; none is what one wants."""
    trace: str = ""
    """Hash of all that reached the vendor, and when, and of what the outbox says at the end."""
    virtual_s: float = 0.0
    requests: int = 0
    kills: int = 0
    delivered: int = 0
    met: Counter[str] = field(default_factory=Counter)
    """What has really happened, by name."""

    def __str__(self) -> str:
        """The plan and what went wrong, as a bug report has it."""
        return "\n".join([f"seed {self.plan.seed}: {self.plan}", *self.problems])


def play(plan: Plan, folder: Path | None = None) -> Verdict:
    """Play a history in a folder of its own (in memory, where the machine has one)."""
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108
    home = Path(tempfile.mkdtemp(prefix="syncd-selftest-", dir=folder or place))
    loop = VirtualLoop()
    history = History(plan, home, loop)
    try:
        loop.run_until_complete(history.play())
    except Stuck:
        history.verdict.problems.append("stuck: everybody waits for ever")
    finally:
        history.verdict.virtual_s = loop.time()
        _abandon(loop)
        history.world.close()
        shutil.rmtree(home, ignore_errors=True)
    return history.verdict


class Line:
    """A daemon's way to the vendor: the dead send nothing."""

    def __init__(self, vendor: Vendor, life: Life, sent: Callable[[], None]) -> None:
        self._vendor = vendor
        self._life = life
        self._sent = sent

    async def update(self, run_id: str, body: bytes) -> Reply | NoReply:
        """POST the body to the run."""
        await self._leave()
        return await self._vendor.update(run_id, body)

    async def retrieve(self, run_id: str) -> Reply | NoReply:
        """GET the run."""
        await self._leave()
        return await self._vendor.retrieve(run_id)

    async def _leave(self) -> None:
        if self._life.killed.is_set():
            await asyncio.get_running_loop().create_future()
        self._sent()


class History:
    """The daemon's lives in one history."""

    def __init__(self, plan: Plan, home: Path, loop: VirtualLoop) -> None:
        self.plan = plan
        self.verdict = Verdict(plan)
        self.path = home / "syncd.db"
        self._loop = loop
        self._hash = hashlib.blake2b(digest_size=16)
        self._chance = random.Random(f"history {plan.seed}")
        limits = Limits(plan.rate, plan.max_in_flight, BASE_S, CAP_S)
        policy = Policy(plan.fold, plan.drain_s, Patience(BASE_S, CAP_S, 0.0, SUSPECT_S))
        self.world = World(plan, self.path, limits, policy)
        self.vendor = Vendor(
            plan, lambda line: self._hash.update(line.encode()), self.world.witness
        )
        self._healed = asyncio.Event()
        self._life: Life | None = None

    async def play(self) -> None:
        """Faults for `trouble_s`, then calm until everything has drained, then the reckoning."""
        loop, plan = self._loop, self.plan
        doings = [loop.create_task(work) for work in self.world.doings(self.vendor)]
        for _ in range(plan.deaths):
            await self._live(loop.time() + self._span_s(), self._chance.choice(DEATHS))
            await asyncio.sleep(self._chance.choice([0.0, 0.0, 1.0, 20.0]) * self._chance.random())
        if plan.restart_for_calm:
            await self._live(max(plan.trouble_s, loop.time()), Death.STOP)
        healing = loop.create_task(self._heal(doings))
        await self._live(None, Death.STOP)
        await healing
        self._reckon()

    async def _heal(self, doings: list["asyncio.Task[None]"]) -> None:
        """The end of all trouble."""
        await asyncio.sleep(max(0.0, self.plan.trouble_s - self._loop.time()))
        for task in doings:
            task.cancel()
        await asyncio.wait(doings)
        for task in doings:
            if not task.cancelled() and task.exception() is not None:
                raise task.exception() or AssertionError
        self.vendor.faulty = self.vendor.outage = self.vendor.wrong_token = False
        if self._life is not None:
            self._life.disk_faults = 0.0
        await self.world.resume()
        self._healed.set()

    def _span_s(self) -> float:
        return self._chance.uniform(0, self.plan.trouble_s / self.plan.deaths)

    async def _live(self, until: float | None, death: Death) -> None:
        """One life of the daemon, until an instant or a kill; None: until the work is done."""
        loop, world = self._loop, self.world
        self.verdict.kills += death is not Death.STOP
        started = await self._start(death)
        if started is None:
            return
        life, up, fence = started
        world.comes(up)
        tasks = [loop.create_task(up.relay.run()), loop.create_task(fence.run())]
        end = loop.create_task(self._end_of(life, until, up.store))
        await asyncio.wait([*tasks, end], return_when=asyncio.FIRST_COMPLETED)
        loop.spare()
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                self.verdict.problems.append(f"the daemon fell over: {task.exception()!r}")
        if death in (Death.STOP, Death.KILL_AT_STOP):
            await self._stop(up, tasks[0], death)
        life.kill()
        world.witness.died(unsettled=bool(up.relay.unsettled or self.plan.disk_faults))
        self.vendor.client_died()
        world.goes()
        for task in (*tasks, end):
            task.cancel()
        await asyncio.gather(*tasks, end, return_exceptions=True)
        self.verdict.met += life.met
        self.verdict.delivered += up.relay.figures.delivered
        await up.store.close()

    async def _start(self, death: Death) -> tuple[Life, Up, Fence] | None:
        """What the composition root does; where it gives up, systemd starts it again.

        None if it is killed on the way.
        """
        started = self._loop.time()
        while True:
            faults = self.plan.disk_faults if self.vendor.faulty else 0.0
            self._life = life = Life(self._chance, faults)
            if death is Death.KILL_AT_START:
                life.steps_to_live = self._chance.randrange(1, 10)
            building = self._loop.create_task(self._build(life, death, started))
            try:
                if await life.outlives(building):
                    return building.result()
                self.verdict.met[death] += 1
                return None
            except StoreUnavailable:
                await asyncio.sleep(1.0)
            finally:
                self.verdict.met += life.met

    async def _build(self, life: Life, death: Death, started: float) -> tuple[Life, Up, Fence]:
        world, wall, draw = self.world, self.world.wall, self._chance.random
        store = await Store.open(self.path, wall, connect=cast("Any", connecting(life)))
        try:
            await store.begin(SUSPECT_S, f"boot {world.boot}", world.booted_at)
            gate = Gate(
                world.limits,
                self._loop.time,
                started=started,
                closed_for_s=await store.closed_for_s(),
                draw=draw,
                throttle=lambda _: Throttler(1_000_000),
            )
            if await store.read(lambda db: fact(db, PAUSED)) is not None:
                gate.pause()
        except BaseException:
            await store.close()
            raise
        life.met.clear()
        match death:
            case Death.KILL:
                sent = self._kill(life)
            case Death.STOP | Death.KILL_AT_STOP:
                sent = self._after_requests(life.called.set)
            case Death.KILL_AT_START:
                sent = lambda: None  # noqa: E731
        line = Line(self.vendor, life, sent)
        relay = Relay(store, line, gate, world.policy, wall=wall, draw=draw)
        fence = Fence(store, line, gate, relay, wall=wall)
        return life, Up(life, store, gate, relay), fence

    async def _stop(self, up: Up, relaying: "asyncio.Task[None]", death: Death) -> None:
        """What the composition root does at a SIGTERM, unless it is killed over it."""
        if death is Death.KILL_AT_STOP:
            up.life.steps_to_live = self._chance.randrange(1, 12)
            self._loop.call_later(self._chance.uniform(0.0, self.plan.drain_s), up.life.kill)
        ending = self._loop.create_task(self._end(up, relaying))
        if not await up.life.outlives(ending):
            self.verdict.met[death] += 1

    async def _end(self, up: Up, relaying: "asyncio.Task[None]") -> None:
        up.relay.stop()
        await asyncio.wait([relaying], timeout=30.0)
        if relaying.done() and not up.relay.cut:
            with suppress(StoreUnavailable):
                await up.store.end()

    def _kill(self, life: Life) -> Callable[[], None]:
        """Choose a kill: at an instant, between two steps of the store, or at any await of a
        request, from its start to its answer on disk. Returns what counts requests."""
        kind, chance = self._chance.random(), self._chance
        if kind < 0.3:
            life.steps_to_live = chance.randrange(1, 200)
        return (lambda: None) if kind < 0.4 else self._after_requests(life.kill)

    def _after_requests(self, strike: Callable[[], None]) -> Callable[[], None]:
        """Strike while some request is on its way, or its answer. Returns what counts requests."""
        chance = self._chance
        sent, fatal = Counter[str](), chance.randrange(1, 12)
        turns = chance.randrange(chance.choice([4, 60]))

        def count() -> None:
            sent["requests"] += 1
            if sent["requests"] == fatal:
                self._loop.strike_in(turns, strike)

        return count

    async def _end_of(self, life: Life, until: float | None, store: Store) -> None:
        if until is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, until - self._loop.time())):
                    await life.called.wait()
            return
        await self._healed.wait()
        healed_at = self._loop.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._bound_s()) as bound:
                while await store.read(lambda db: pending(db) > 0):
                    # What was on its way then may ask for silence still.
                    quiet_at = max(healed_at, self.world.witness.silent_until)
                    bound.reschedule(quiet_at + self._bound_s())
                    await asyncio.sleep(1.0)

    def _bound_s(self) -> float:
        """How long the drain may take, once no silence is asked for: every backoff at its longest,
        then all at the pace."""
        requests = 3 * len(self.world.accepted) + 20
        waits_s = 4 * CAP_S + SUSPECT_S + SLOW_LOOK_S
        waits_s += 3 * self.plan.runs / (SHARE * self.plan.rate / 2)
        return waits_s + 3 * requests / min(self.plan.rate / 2, 5.0)

    def _reckon(self) -> None:
        verdict, vendor = self.verdict, self.vendor
        verdict.requests = vendor.requests
        self._hash.update(outbox_of(self.path).encode())
        verdict.trace = self._hash.hexdigest()
        verdict.met += vendor.met + self.world.met
        verdict.problems += vendor.violations + self.world.witness.violations
        if vendor.peak > self.plan.max_in_flight:
            verdict.problems.append(f"{vendor.peak} requests at once, more than allowed")
        if vendor.refused_by_limit:
            verdict.problems.append(f"over the limit {vendor.refused_by_limit} times")
        verdict.problems += faults_found(self.path, self.world.accepted, vendor, self.plan)


def _abandon(loop: VirtualLoop) -> None:
    """End what is left of a history, as the end of a process would."""
    loop.spare()
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with suppress(Stuck):
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
    loop.close()
