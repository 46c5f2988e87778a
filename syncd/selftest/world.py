"""What goes on around the daemon: producers, rude and polite, operators, reloads, clocks."""

import asyncio
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from syncd.core.patch import Patch
from syncd.gate import Gate, Limits
from syncd.relay import Policy, Relay
from syncd.selftest.plan import HOUR_S, Plan
from syncd.selftest.store import Life
from syncd.selftest.vendor import EPOCH, Vendor
from syncd.selftest.witness import Witness
from syncd.store import Selection, Store, StoreUnavailable, Verb
from syncd.store.facts import PAUSED
from syncd.verbs import operate

T = TypeVar("T")

VERBS: tuple[Verb, ...] = ("retry", "discard", "hold", "release")
AGAIN_S = 1.0  # a producer's or an operator's patience before the next try
INSERT = (
    "INSERT INTO outbox (workflow_run_id, name, metadata, idempotency_key, priority)"
    " VALUES (?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Up:
    """A daemon that runs."""

    life: Life
    store: Store
    gate: Gate
    relay: Relay


class World:
    """Everything that happens to the daemon but for its death."""

    def __init__(self, plan: Plan, path: Path, limits: Limits, policy: Policy) -> None:
        self.plan = plan
        self.path = path
        self.limits = limits
        """The settings, as a daemon that starts now would read them."""
        self.policy = policy
        self.accepted: dict[str, Patch] = {}
        """By mark: what producers were told is safe."""
        self.met: Counter[str] = Counter()
        """What has happened, by name."""
        well = not plan.disk_faults and not plan.rude
        self.witness = Witness(
            path, self.wall, self._in_flight, self.accepted, rate=plan.rate, disk_is_well=well
        )
        self._chance = random.Random(f"world {plan.seed}")
        self.boot = 0
        """Which boot of the machine this is."""
        self._known_boot = 0
        self._step_s = 0.0
        self._unseen_s = 0.0
        """Steps of the clock since a daemon has last run."""
        self._up: Up | None = None
        self._came = asyncio.Event()
        self._died = asyncio.Event()
        self._gone = asyncio.Event()
        self._setting_the_clock = asyncio.Lock()
        self._db: sqlite3.Connection | None = None

    def wall(self) -> float:
        """The system's clock, as it happens to be set."""
        return EPOCH + asyncio.get_running_loop().time() + self._step_s

    @property
    def booted_at(self) -> float:
        """When the machine has booted, by the system's clock as it is set now."""
        return EPOCH + self._step_s

    def comes(self, up: Up) -> None:
        """A daemon runs."""
        self._up = up
        self.met["start"] += 1
        self._came.set()
        self._gone.clear()
        self._unseen_s = 0.0
        self._known_boot = self.boot

    def goes(self) -> None:
        """It runs no more."""
        self._up = None
        self._came.clear()
        self._died.set()
        self._gone.set()

    def close(self) -> None:
        """Nobody looks or hands in any more."""
        self.witness.close()
        if self._db is not None:
            self._db.close()

    def doings(self, vendor: Vendor) -> list[Coroutine[Any, Any, None]]:
        """All that is going on, each to be cancelled when the trouble ends."""
        plan = self.plan
        return [
            self._produce(),
            *[self._phase(vendor, "outage") for _ in range(plan.outage)],
            *[self._phase(vendor, "wrong_token") for _ in range(plan.wrong_token)],
            *[self._be_rude() for _ in range(plan.rude)],
            *[self._relent(vendor) for _ in range(plan.operators > 0)],
            *[self._operate() for _ in range(plan.operators)],
            *[self._pause() for _ in range(plan.pauses)],
            *[self._reload(vendor) for _ in range(plan.reloads)],
            *[self._step_clock() for _ in range(plan.clock_steps)],
        ]

    async def resume(self) -> None:
        """Whatever an operator has shut is open again."""
        while self.plan.pauses:
            up = await self._someone_up()
            with suppress(StoreUnavailable):
                if await _unless_killed(up, up.store.remember(PAUSED, None)):
                    up.gate.resume()
                    self.witness.closed_since = None
                    self.met["resume"] += 1
                    return
            await asyncio.sleep(AGAIN_S)

    def _in_flight(self) -> Collection[str]:
        return self._up.relay.busy if self._up is not None else ()

    async def _someone_up(self) -> Up:
        while self._up is None:
            await self._came.wait()
        return self._up

    async def _some_time(self) -> None:
        await asyncio.sleep(self._chance.uniform(0, self.plan.trouble_s))

    async def _phase(self, vendor: Vendor, what: str) -> None:
        """In a long history it lasts an hour or so."""
        half_s = self.plan.trouble_s / 2
        await asyncio.sleep(self._chance.uniform(0, half_s))
        setattr(vendor, what, True)
        self.met[what] += 1
        requests, anew = vendor.requests, self._begun_anew()
        lasts_s = self._chance.uniform(min(1.0, half_s), half_s)
        await asyncio.sleep(lasts_s)
        setattr(vendor, what, False)
        most = plenty(self.plan, lasts_s, self._begun_anew() - anew)
        self.witness.trouble_is_over(what, vendor.requests - requests, most)

    def _begun_anew(self) -> int:
        """How often the daemon has had a reason to try at once: operators, reloads, starts."""
        return sum(self.met[what] for what in ("start", "reload", "pause", "resume", "operation"))

    async def _relent(self, vendor: Vendor) -> None:
        """What was refused may be taken later, if an operator tries again."""
        await self._some_time()
        vendor.strict = False

    async def _produce(self) -> None:
        """Patches arrive; whoever is not told that his is safe hands it in again."""
        for number in range(self.plan.patches):
            if self._chance.random() < 0.4:
                await self._lull()
            patch = self._patch(number)
            while not await self._handed_in(patch):
                self.met["producers told to try again"] += 1
                await asyncio.sleep(AGAIN_S)
            self.accepted[f"mark{number}"] = patch

    async def _lull(self) -> None:
        """Nothing for a while; but some comes just after a death, when it is worst."""
        self._died.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(
                self._chance.expovariate(self.plan.patches / self.plan.trouble_s)
            ):
                await self._died.wait()

    async def _handed_in(self, patch: Patch) -> bool:
        if self.path.exists() and self._chance.random() < 0.5:
            return self._inserted(patch)
        up = await self._someone_up()
        try:
            if not await _unless_killed(up, up.store.accept([patch])):
                return False
        except StoreUnavailable:
            return False
        up.relay.wake()
        return True

    def _inserted(self, patch: Patch) -> bool:
        """As any program does it; the daemon may be down, and mostly notices if it is not."""
        row = (patch.workflow_run_id, patch.name, patch.metadata, patch.idempotency_key)
        try:
            self._db = self._db or _producer(self.path)
            self._db.execute(INSERT, (*row, patch.priority))
        except sqlite3.OperationalError:
            return False
        self.met["rows by SQL"] += 1
        if self._up is not None and self._chance.random() < 0.7:
            self._up.relay.wake()
        return True

    def _patch(self, number: int) -> Patch:
        chance = self._chance
        mark = f"mark{number}"
        run = chance.randrange(self.plan.runs)
        metadata: dict[str, Any] = {mark: number}
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
        name = f"name {number}" if chance.random() < 0.3 else None
        priority = chance.choice([0, 0, 0, 5, -3])
        return Patch(f"run_{run}", name, json.dumps(metadata), mark, priority)

    async def _be_rude(self) -> None:
        """A producer forgets to commit for a while: nobody else can write."""
        await self._some_time()
        await self._someone_up()
        with closing(_producer(self.path)) as db:
            with suppress(sqlite3.OperationalError):
                db.execute("BEGIN IMMEDIATE")
                self.met["locked by a producer"] += 1
            await asyncio.sleep(self._chance.uniform(0.1, 30.0))

    async def _operate(self) -> None:
        """What `control` does for an operator."""
        await self._some_time()
        up = await self._someone_up()
        verb = self._chance.choice(VERBS)
        run = f"run_{self._chance.randrange(self.plan.runs)}"

        self.met["operation"] += 1
        with suppress(StoreUnavailable):
            self.met[verb] += await _unless_killed(
                up, operate(up.store, up.relay, verb, Selection(run=run))
            )

    async def _pause(self) -> None:
        """Nothing goes for a while, whatever else happens."""
        await self._some_time()
        while True:
            up = await self._someone_up()
            with suppress(StoreUnavailable):
                if await _unless_killed(up, up.store.remember(PAUSED, "by an operator")):
                    break
            await asyncio.sleep(AGAIN_S)
        up.gate.pause()
        self.witness.closed_since = asyncio.get_running_loop().time()
        self.met["pause"] += 1
        await asyncio.sleep(self._chance.uniform(0.0, self.plan.trouble_s / 4))
        await self.resume()

    async def _reload(self, vendor: Vendor) -> None:
        """SIGHUP: other limits, for now, and folding or not."""
        await self._some_time()
        plan, chance = self.plan, self._chance
        self.limits = replace(
            self.limits,
            rate_per_s=plan.rate * chance.choice([0.5, 1.0]),
            max_in_flight=chance.randrange(1, plan.max_in_flight + 1),
        )
        self.policy = replace(self.policy, fold=chance.random() < 0.8)
        self.met["reload"] += 1
        vendor.allow(self.limits.rate_per_s)
        if self._up is not None:
            self._up.gate.limit(self.limits)
            self._up.relay.policy = self.policy
            self._up.gate.hurry()

    async def _step_clock(self) -> None:
        """The system's clock jumps by an hour, and the daemon follows, or finds it so."""
        step_s = self._chance.choice([-HOUR_S, HOUR_S])
        if self._chance.random() < 0.5:
            await self._some_time()
        else:
            await self._gone_while_runs_wait()
        async with self._setting_the_clock:
            await self._set_clock(step_s)

    async def _gone_while_runs_wait(self) -> None:
        """Where a step hurts: something is to be tried again later, and nobody runs."""
        await self._gone.wait()
        while not self.witness.runs_that_wait():
            await self._came.wait()
            await self._gone.wait()

    async def _set_clock(self, step_s: float) -> None:
        while True:
            up = self._up
            if up is None:
                if self._chance.random() < 0.3:
                    self.boot += 1
                    self.met["boot"] += 1
                if self.boot != self._known_boot:
                    # Of steps forward beside a boot nobody can know: due times come early.
                    step_s = min(step_s, -self._unseen_s)
                if not self._unseen_s:
                    self.witness.clock_steps()
                self._step_s += step_s
                self._unseen_s += step_s
                self.met["clock step while nobody runs"] += 1
                return
            with suppress(StoreUnavailable):
                if await _unless_killed(
                    up,
                    up.store.move_instants(self.booted_at + step_s, step_s, self._follow(step_s)),
                ):
                    up.relay.wake()
                    self.met["clock step"] += 1
                return
            await asyncio.sleep(AGAIN_S)

    def _follow(self, step_s: float) -> Callable[[], None]:
        def follow() -> None:
            self._step_s += step_s

        return follow


def plenty(plan: Plan, lasts_s: float, anew: int) -> float:
    """As many requests as nobody would call hammering, for a time in which none succeeds.

    Each beginning until the breaker opens, then a doubling backoff up to its cap. The breaker wants
    failures of three runs: where fewer are tried, each has its own backoff.
    """
    beginning = 30 + 2 * plan.max_in_flight
    return (1 + anew) * beginning + 3 * (15 + lasts_s / 20)


async def _unless_killed(up: Up, work: Coroutine[Any, Any, object]) -> bool:
    """Whether the daemon has done it; if it dies meanwhile, nobody knows whether it has."""
    doing = asyncio.ensure_future(work)
    dying = asyncio.ensure_future(up.life.killed.wait())
    try:
        await asyncio.wait({doing, dying}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return False
        await doing
        return True
    finally:
        doing.cancel()
        dying.cancel()


def _producer(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=0, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    return db
