"""The vendor, scripted: fails as planned, applies as told, and watches what it is sent."""

import asyncio
import json
import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from syncd.core.answer import NoReply, Reply
from syncd.selftest.merge import MODELS, Object, applied
from syncd.selftest.plan import HOUR_S, Plan

TIMEOUT_S = 10.0
ZOMBIE_S = 2 * TIMEOUT_S  # no request lives longer than this after it was given up
NOTICE_S = 1.2  # of a lower limit: a second of requests may have left, and be on their way
JITTER_S = 0.004  # of travel; less than the pace leaves room for
CROSS_S = 0.3  # after a 429, whoever comes mostly gets one too
EPOCH = 1_700_000_000.0

# The three forms that HTTP allows.
DATES = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y")


def format_date(instant: float, form: str) -> str:
    """An instant (seconds since the epoch) as an HTTP date."""
    return datetime.fromtimestamp(instant, UTC).strftime(form)


Answer = tuple[Reply | NoReply, float | None]
"""What is answered, and for how many seconds of silence it asks; None: too fast, it just says."""


@dataclass(slots=True)
class Stored:
    """What the vendor has stored for one run, under each reading of a merge."""

    name: str | None = None
    metadata: dict[str, Object] = field(default_factory=lambda: {model: {} for model in MODELS})


class Watcher(Protocol):
    """Who judges what is sent, at the moment in which it leaves."""

    def leaves(self, run_id: str, body: bytes | None) -> None:
        """A request leaves for the run; no body if it reads the run back."""

    def asked_for_silence(self, seconds: float) -> None:
        """An answer has brought a Retry-After."""

    def throttled(self) -> None:
        """An answer says: too fast; but not for how long to wait."""


class Vendor:
    """One account's API. Requests go on at the vendor's even when the client is gone."""

    def __init__(self, plan: Plan, trace: Callable[[str], None], watcher: Watcher) -> None:
        self._plan = plan
        self._chance = random.Random(f"vendor {plan.seed}")
        self._trace = trace
        self._watcher = watcher
        self.reading = self._chance.choice(MODELS)
        """The reading of a merge that its answers show."""
        self.runs: dict[str, Stored] = defaultdict(Stored)
        self.violations: list[str] = []
        self.requests = 0
        self.refused_by_limit = 0
        self.met: Counter[str] = Counter()
        """Faults so far, by kind."""
        self.applied_marks: set[str] = set()
        """Marks of patches that have ever been applied."""
        self.strict = True
        """What is poison is refused."""
        self.faulty = True
        self.outage = False
        self.wrong_token = False
        self._cursed = frozenset(f"run_{number}" for number in range(plan.cursed))
        self._arrivals: deque[float] = deque()
        self._rates: deque[tuple[float, float]] = deque([(-math.inf, plan.rate)])
        """What the account may send a second, and since when; the last is in force."""
        self._out: dict[str, int] = defaultdict(int)
        self._tasks: set[asyncio.Task[None]] = set()
        self._cross_until = 0.0
        self._deaths = 0
        self.peak = 0

    async def update(self, run_id: str, body: bytes) -> Reply | NoReply:
        """What the relay calls. The client may be cancelled; the request goes on."""
        return await self._request(run_id, body)

    async def retrieve(self, run_id: str) -> Reply | NoReply:
        """What the fence calls."""
        return await self._request(run_id, None)

    def allow(self, rate: float) -> None:
        """The account has another limit from now on, and the daemon is told so."""
        self._rates.append((asyncio.get_running_loop().time(), rate))

    def client_died(self) -> None:
        """Of what is on its way some arrives late: it is in the hands of others."""
        self._deaths += 1

    async def _request(self, run_id: str, body: bytes | None) -> Reply | NoReply:
        loop = asyncio.get_running_loop()
        self.requests += 1
        self._watcher.leaves(run_id, body)
        self._out[run_id] += 1
        if self._out[run_id] > 1:
            self.violations.append(f"{loop.time():.3f}: two requests out for {run_id}")
        self.peak = max(self.peak, sum(self._out.values()))
        answer: asyncio.Future[Answer] = loop.create_future()
        task = loop.create_task(self._serve(run_id, body, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            reply, silence_s = await answer
        finally:
            self._out[run_id] -= 1
        if silence_s is None:
            self._watcher.throttled()
        elif silence_s:
            self._watcher.asked_for_silence(silence_s)
        return reply

    async def _serve(
        self,
        run_id: str,
        body: bytes | None,
        answer: "asyncio.Future[Answer]",
    ) -> None:
        loop, chance = asyncio.get_running_loop(), self._chance
        deaths = self._deaths
        await asyncio.sleep(0.02 + chance.uniform(0, JITTER_S))
        over = self._over_limit(loop.time())
        fault = self._fault(run_id)
        self._trace(f"{loop.time():.4f} {run_id} {body!r} {fault} {over}")
        if over:
            self.refused_by_limit += 1
            fault = "429"
        if fault:
            self.met[fault] += 1
        await asyncio.sleep(chance.uniform(0.0, 0.1))
        if deaths < self._deaths and chance.random() < 0.8:
            self.met["late after a kill"] += 1
            await asyncio.sleep(chance.uniform(0.0, ZOMBIE_S - 1.0))
            fault = "lost" if fault == "zombie" else fault  # it is late enough as it is
        reply = await self._outcome(fault, run_id, body)
        await asyncio.sleep(chance.uniform(0.0, 0.1))
        if not answer.done():
            answer.set_result(reply if isinstance(reply, tuple) else (reply, 0.0))

    def _over_limit(self, now: float) -> bool:
        while self._arrivals and now - self._arrivals[0] >= 1.0:
            self._arrivals.popleft()
        self._arrivals.append(now)
        while len(self._rates) > 1 and self._rates[1][0] < now - NOTICE_S:
            self._rates.popleft()
        return len(self._arrivals) > max(rate for _, rate in self._rates)

    def _fault(self, run_id: str) -> str:
        if self.wrong_token:
            return "401"
        if self.outage:
            return self._chance.choice(["5xx", "timeout", "refused"])
        if not self.faulty:
            return ""
        if run_id in self._cursed:
            return "cursed"
        now = asyncio.get_running_loop().time()
        if now < self._cross_until and self._chance.random() < 0.7:
            return "429"
        draw = self._chance.random()
        for kind, probability in self._plan.faults.items():
            draw -= probability
            if draw < 0:
                if kind.startswith("429"):
                    self._cross_until = now + CROSS_S
                return kind
        return ""

    async def _outcome(
        self, fault: str, run_id: str, body: bytes | None
    ) -> Reply | NoReply | Answer:
        loop, chance = asyncio.get_running_loop(), self._chance
        match fault:
            case "" | "slow":
                if fault:
                    await asyncio.sleep(chance.uniform(0.5, TIMEOUT_S - 1.0))
                return self._answer(run_id, body)
            case "lost":
                self._answer(run_id, body)
                return NoReply("reset", "the connection broke", ambiguous=True)
            case "zombie":
                late = chance.uniform(0.0, TIMEOUT_S + ZOMBIE_S - 1.0)
                loop.call_later(late, self._answer, run_id, body)
                await asyncio.sleep(TIMEOUT_S)
                return NoReply("timeout", "no answer", ambiguous=True)
            case "timeout":
                await asyncio.sleep(TIMEOUT_S)
                return NoReply("timeout", "no answer", ambiguous=True)
            case "dns" | "tls" | "refused":
                return NoReply(fault, "no connection", ambiguous=False)
            case "garbage":
                return Reply(200, b"<html>")
            case "false":
                return Reply(200, b'{"success":false,"error":"not now"}')
            case "wrong_id":
                return Reply(200, b'{"object":"workflow_run","id":"another","metadata":{}}')
            case "401":
                return Reply(401, b'{"success":false,"error":"bad token"}')
            case "5xx" | "cursed":
                return Reply(chance.choice([500, 502, 503, 504, 520]), b"down")
            case _:
                return self._later(fault)

    def _later(self, fault: str) -> Answer:
        """An answer that asks for patience, and for how many seconds; None: it does not say."""
        chance = self._chance
        now = EPOCH + asyncio.get_running_loop().time()
        seconds = float(chance.randrange(1, 5))
        asked: float | None = seconds
        header: str | None = f"{seconds:.0f}"
        match fault:
            case "429_long":
                asked = float(chance.randrange(60, 600))
                header = f"{asked:.0f}"
            case "429_date":
                header = format_date(now + seconds, chance.choice(DATES))
                asked = seconds - 1.0  # a date has no fractions
            case "429_zero":
                header, asked = chance.choice(["0", format_date(now - HOUR_S, DATES[0])]), 0.0
            case "429_garbled":
                header, asked = chance.choice(["soon", "-3", "1.5", "", "1e3"]), None
            case "429_silent":
                header, asked = None, None
            case _:
                pass
        date = format_date(now, DATES[0]) if fault in {"429_date", "429_zero"} else None
        return Reply(int(fault[:3]), b'{"error":"not now"}', header, date=date), asked

    def _answer(self, run_id: str, body: bytes | None) -> Reply:
        """Apply the body, if there is one, and answer with the run."""
        stored = self.runs[run_id]
        if body is not None:
            patch = json.loads(body)
            metadata = patch.get("metadata", {})
            if "poison" in metadata and self.strict:
                return Reply(
                    422, b'{"code":"INVALID_REQUEST","message":"poison","retryable":false}'
                )
            stored.name = patch.get("name", stored.name)
            for model in MODELS:
                stored.metadata[model] = applied(model, stored.metadata[model], metadata)
            self.applied_marks.update(key for key in metadata if key.startswith("mark"))
        run: dict[str, Any] = {
            "object": "workflow_run",
            "id": run_id,
            "status": "PROCESSED",
            "name": stored.name,
            "metadata": stored.metadata[self.reading],
        }
        return Reply(200, json.dumps(run).encode())
