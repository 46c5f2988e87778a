"""One history, played: producers, operators, kills and faults, then calm, then the reckoning."""

import asyncio
import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from asyncio_throttle.throttler import Throttler

from syncd.core.patch import Patch
from syncd.core.settlement import Patience
from syncd.fence import Fence
from syncd.gate import Gate, Limits
from syncd.relay import Policy, Relay
from syncd.selftest.plan import Plan
from syncd.selftest.reckoning import faults_found, pending
from syncd.selftest.store import Life, connecting
from syncd.selftest.time import Stuck, VirtualLoop
from syncd.selftest.vendor import EPOCH, TIMEOUT_S, ZOMBIE_S, Vendor
from syncd.store import Selection, Store, StoreUnavailable, Verb

BASE_S, CAP_S = 0.5, 60.0
SUSPECT_S = TIMEOUT_S + ZOMBIE_S
VERBS: tuple[Verb, ...] = ("retry", "discard", "hold", "release")


@dataclass(slots=True)
class Verdict:
    """What became of a history."""

    plan: Plan
    problems: list[str] = field(default_factory=list)
    """Broken promises; none is what one wants."""
    trace: str = ""
    """Hash of all that reached the vendor, and when."""
    virtual_s: float = 0.0
    requests: int = 0
    kills: int = 0
    delivered: int = 0

    def __str__(self) -> str:
        """The plan and what went wrong, as a bug report has it."""
        return "\n".join([f"seed {self.plan.seed}: {self.plan}", *self.problems])


def play(plan: Plan, folder: Path | None = None) -> Verdict:
    """Play a history in a folder of its own (in memory, where the machine has one)."""
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108
    home = Path(tempfile.mkdtemp(prefix="syncd-selftest-", dir=folder or place))
    loop = VirtualLoop()
    history = History(plan, home)
    try:
        loop.run_until_complete(history.play())
    except Stuck:
        history.verdict.problems.append("stuck: everybody waits for ever")
    finally:
        history.verdict.virtual_s = loop.time()
        _abandon(loop)
        shutil.rmtree(home, ignore_errors=True)
    return history.verdict


class History:
    """The players of one history."""

    def __init__(self, plan: Plan, home: Path) -> None:
        self.plan = plan
        self.verdict = Verdict(plan)
        self.path = home / "syncd.db"
        self._hash = hashlib.blake2b(digest_size=16)
        self._chance = random.Random(f"history {plan.seed}")
        self.vendor = Vendor(plan, lambda line: self._hash.update(line.encode()))
        self.accepted: dict[int, Patch] = {}
        self._step_s = 0.0
        self._alive = asyncio.Event()
        self._healed = asyncio.Event()
        self._store: Store | None = None
        self._relay: Relay | None = None
        self._life: Life | None = None

    async def play(self) -> None:
        """Faults for `trouble_s`, then calm until everything has drained, then the reckoning."""
        loop = asyncio.get_running_loop()
        world = [loop.create_task(work) for work in self._world()]
        for kill in range(self.plan.kills):
            moment = self._chance.uniform(0, self.plan.trouble_s / self.plan.kills)
            await self._live(until=loop.time() + moment, kill=True, steps=self._steps())
            self.verdict.kills += 1
            del kill
        if self.plan.restart_for_calm:
            await self._live(until=max(self.plan.trouble_s, loop.time()), kill=False)
        healing = loop.create_task(self._heal(world))
        calm = max(self.plan.trouble_s, loop.time())
        await self._live(until=calm + self._bound_s(), kill=False, draining=True)
        await healing
        self._reckon(self._bound_s())

    async def _heal(self, world: list["asyncio.Task[None]"]) -> None:
        """The end of all trouble."""
        await asyncio.sleep(max(0.0, self.plan.trouble_s - asyncio.get_running_loop().time()))
        for task in world:
            task.cancel()
        self.vendor.faulty = self.vendor.outage = self.vendor.wrong_token = False
        self._healed.set()
        if self._life is not None:
            self._life.disk_faults = 0.0

    def _steps(self) -> int | None:
        """Some kills come at a moment of the clock, most between two steps of the store."""
        return None if self._chance.random() < 0.3 else self._chance.randrange(1, 200)

    def _wall(self) -> float:
        return EPOCH + asyncio.get_running_loop().time() + self._step_s

    async def _live(
        self, until: float, *, kill: bool, steps: int | None = None, draining: bool = False
    ) -> None:
        """One life of the daemon, until an instant, its kill, or (draining) the work is done."""
        loop = asyncio.get_running_loop()
        life = Life(self._chance, 0.0)
        store = await Store.open(self.path, self._wall, connect=cast("Any", connecting(life)))
        await store.begin(SUSPECT_S)
        limits = Limits(self.plan.rate, self.plan.max_in_flight, BASE_S, CAP_S)
        draw = self._chance.random
        gate = Gate(
            limits,
            loop.time,
            started=loop.time(),
            closed_for_s=await store.closed_for_s(),
            draw=draw,
            throttle=Throttler(1_000_000),
        )
        life.disk_faults = 0.0 if self._healed.is_set() else self.plan.disk_faults
        life.steps_to_live = steps
        policy = Policy(self.plan.fold, 5.0, Patience(BASE_S, CAP_S, 0.0, SUSPECT_S))
        relay = Relay(store, self.vendor, gate, policy, wall=self._wall, draw=draw)
        fence = Fence(store, self.vendor, gate, relay, wall=self._wall)
        self._store, self._relay, self._life = store, relay, life
        self._alive.set()
        tasks = [loop.create_task(relay.run()), loop.create_task(fence.run())]
        end = loop.create_task(self._end_of(life, until, store if draining else None))
        await asyncio.wait([*tasks, end], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                self.verdict.problems.append(f"the daemon fell over: {task.exception()!r}")
        if kill or draining:
            life.killed.set()
            if relay.unsettled:
                self.vendor.client_died()
        else:
            relay.stop()
            await asyncio.wait([tasks[0]], timeout=30.0)
            if not relay.cut:
                life.disk_faults, life.steps_to_live = 0.0, None
                await store.end()
            life.killed.set()
        self._store = self._relay = None
        self._alive.clear()
        for task in (*tasks, end):
            task.cancel()
        await asyncio.gather(*tasks, end, return_exceptions=True)
        self.verdict.delivered += relay.figures.delivered
        await store.close()

    async def _end_of(self, life: Life, until: float, store: Store | None) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until and not life.killed.is_set():
            if store is not None and self._healed.is_set() and await store.read(pending) == 0:
                return
            remaining = until - loop.time()
            try:
                async with asyncio.timeout(min(remaining, 1.0) if store else remaining):
                    await life.killed.wait()
            except TimeoutError:
                continue

    def _world(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on around the daemon."""
        plan = self.plan
        world = [self._produce()]
        if plan.outage:
            world.append(self._phase("outage"))
        if plan.wrong_token:
            world.append(self._phase("wrong_token"))
        world += [self._operate() for _ in range(plan.operators)]
        world += [self._step_clock() for _ in range(plan.clock_steps)]
        return world

    async def _phase(self, what: str) -> None:
        begin = self._chance.uniform(0, self.plan.trouble_s / 2)
        await asyncio.sleep(begin)
        setattr(self.vendor, what, True)
        await asyncio.sleep(self._chance.uniform(1.0, self.plan.trouble_s / 2))
        setattr(self.vendor, what, False)

    async def _produce(self) -> None:
        """Patches arrive as rows do: committed by another, noticed by the daemon if it is up."""
        for number in range(self.plan.patches):
            if self._chance.random() < 0.4:
                await asyncio.sleep(
                    self._chance.expovariate(self.plan.patches / self.plan.trouble_s)
                )
            await self._alive.wait()
            store, life = self._store, self._life
            assert store is not None
            patch = self._patch(number)
            try:
                taken = await store.accept([patch])
            except StoreUnavailable:
                continue
            assert taken.first_id is not None
            self.accepted[taken.first_id] = patch
            if life is self._life and self._relay is not None:
                self._relay.wake()

    def _patch(self, number: int) -> Patch:
        chance = self._chance
        run = chance.randrange(self.plan.runs)
        metadata: dict[str, Any] = {f"mark{number}": number}
        # Where operators may retry what was refused, values are plain: what a retried patch leaves
        # out is left out by key, which is less than a deep merge of objects would keep.
        plain = bool(self.plan.operators)
        values: list[Any] = [number, None, f"v{number}", True]
        if not plain:
            values += [{"a": number}, {"b": number, "a": None}, [number], {}]
        for key in chance.sample("kmn", chance.randrange(1, 3)):
            metadata[key] = chance.choice(values)
        if chance.random() < 0.04:
            metadata["poison"] = True
        return Patch(
            f"run_{run}",
            f"name {number}" if chance.random() < 0.3 else None,
            json.dumps(metadata),
            priority=chance.choice([0, 0, 0, 5, -3]),
        )

    async def _operate(self) -> None:
        """What `control` does for an operator."""
        await asyncio.sleep(self._chance.uniform(0, self.plan.trouble_s))
        store, relay = self._store, self._relay
        if store is None or relay is None:
            return
        verb = self._chance.choice(VERBS)
        run = f"run_{self._chance.randrange(self.plan.runs)}"
        try:
            async with relay.standing_still() as in_flight:
                await store.operate(verb, Selection(run=run), in_flight=in_flight)
        except StoreUnavailable:
            return

    async def _step_clock(self) -> None:
        """The system's clock jumps, and the daemon follows as `daemon` does."""
        await asyncio.sleep(self._chance.uniform(0, self.plan.trouble_s))
        step_s = self._chance.choice([-3600.0, 3600.0])
        store, relay = self._store, self._relay
        if store is None or relay is None:
            # Put forward while nobody runs, it makes due times come early, and nobody can know.
            self._step_s += min(step_s, 0.0)
            return
        try:
            await store.move_instants(step_s, lambda: self._follow(step_s))
        except StoreUnavailable:
            return
        relay.wake()

    def _follow(self, step_s: float) -> None:
        self._step_s += step_s

    def _bound_s(self) -> float:
        """How long the drain may take: every backoff at its longest, then all at the pace."""
        requests = 3 * len(self.accepted) + 20
        return 4 * CAP_S + SUSPECT_S + 60.0 + 3 * requests / min(self.plan.rate, 5.0)

    def _reckon(self, bound: float) -> None:
        verdict, vendor = self.verdict, self.vendor
        verdict.requests = vendor.requests
        verdict.trace = self._hash.hexdigest()
        verdict.problems += vendor.violations
        if vendor.peak > self.plan.max_in_flight:
            verdict.problems.append(f"{vendor.peak} requests at once, more than allowed")
        if vendor.refused_by_limit:
            verdict.problems.append(f"over the limit {vendor.refused_by_limit} times")
        verdict.problems += faults_found(self.path, self.accepted, vendor, self.plan, bound)


def _abandon(loop: VirtualLoop) -> None:
    """End what is left of a history, as the end of a process would."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with suppress(Stuck):
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
    loop.close()
