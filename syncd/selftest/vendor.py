"""The vendor, scripted: fails as planned, applies as told, and watches what it is sent."""

import asyncio
import json
import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from syncd.core.answer import NoReply, Reply
from syncd.selftest.merge import MODELS, Object, applied
from syncd.selftest.plan import Plan

TIMEOUT_S = 10.0
ZOMBIE_S = 2 * TIMEOUT_S  # no request lives longer than this after it was given up
JITTER_S = 0.004  # of travel; less than the pace leaves room for
EPOCH = 1_700_000_000.0


@dataclass(slots=True)
class Held:
    """What the vendor holds for one run, under each reading of a merge."""

    name: str | None = None
    metadata: dict[str, Object] = field(default_factory=lambda: {model: {} for model in MODELS})


class Vendor:
    """One account's API. Requests go on at the vendor's even when the client is gone."""

    def __init__(self, plan: Plan, trace: Callable[[str], None]) -> None:
        self._plan = plan
        self._chance = random.Random(f"vendor {plan.seed}")
        self._trace = trace
        self.reading = self._chance.choice(MODELS)
        """The reading of a merge that its answers show."""
        self.runs: dict[str, Held] = defaultdict(Held)
        self.violations: list[str] = []
        self.requests = 0
        self.refused_by_limit = 0
        self.applied_marks: set[str] = set()
        """Marks of patches that have ever been applied."""
        self.faulty = True
        self.outage = False
        self.wrong_token = False
        self._arrivals: deque[float] = deque()
        self._out: dict[str, int] = defaultdict(int)
        self._not_before = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self.peak = 0
        self.forbidden: str | None = None

    async def update(self, run_id: str, body: bytes) -> Reply | NoReply:
        """What the relay calls. The client may be cancelled; the request goes on."""
        return await self._request(run_id, body)

    async def retrieve(self, run_id: str) -> Reply | NoReply:
        """What the fence calls."""
        return await self._request(run_id, None)

    async def _request(self, run_id: str, body: bytes | None) -> Reply | NoReply:
        loop = asyncio.get_running_loop()
        self.requests += 1
        if loop.time() < self._not_before - 0.001:
            self.violations.append(f"{loop.time():.3f}: a request before Retry-After is over")
        if self.forbidden is not None:
            self.violations.append(f"{loop.time():.3f}: a request while {self.forbidden}")
        self._out[run_id] += 1
        if self._out[run_id] > 1:
            self.violations.append(f"{loop.time():.3f}: two requests out for {run_id}")
        self.peak = max(self.peak, sum(self._out.values()))
        answer: asyncio.Future[Reply | NoReply] = loop.create_future()
        task = loop.create_task(self._serve(run_id, body, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            reply = await answer
        finally:
            self._out[run_id] -= 1
        if isinstance(reply, Reply) and reply.retry_after is not None:
            self._obey(reply.retry_after)
        return reply

    def client_died(self) -> None:
        """A Retry-After may have died with the client, before it could be written down."""
        self._not_before = 0.0

    def _obey(self, retry_after: str) -> None:
        now = asyncio.get_running_loop().time()
        if retry_after.isdigit():
            self._not_before = max(self._not_before, now + float(retry_after))

    async def _serve(
        self, run_id: str, body: bytes | None, answer: "asyncio.Future[Reply | NoReply]"
    ) -> None:
        loop, chance = asyncio.get_running_loop(), self._chance
        await asyncio.sleep(0.02 + chance.uniform(0, JITTER_S))
        over = self._over_limit(loop.time())
        fault = self._fault()
        self._trace(f"{loop.time():.4f} {run_id} {body!r} {fault} {over}")
        if over:
            self.refused_by_limit += 1
            fault = "429"
        reply = await self._outcome(fault, run_id, body)
        await asyncio.sleep(chance.uniform(0.0, 0.2))
        if not answer.done():
            answer.set_result(reply)

    def _over_limit(self, now: float) -> bool:
        while self._arrivals and now - self._arrivals[0] >= 1.0:
            self._arrivals.popleft()
        self._arrivals.append(now)
        return len(self._arrivals) > self._plan.rate

    def _fault(self) -> str:
        if self.wrong_token:
            return "401"
        if self.outage:
            return self._chance.choice(["503", "timeout", "refused"])
        if not self.faulty:
            return ""
        draw = self._chance.random()
        for kind, probability in self._plan.faults.items():
            draw -= probability
            if draw < 0:
                return kind
        return ""

    async def _outcome(self, fault: str, run_id: str, body: bytes | None) -> Reply | NoReply:
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
            case _:
                return self._later(fault)

    def _later(self, fault: str) -> Reply:
        status = int(fault[:3])
        seconds = str(self._chance.randrange(1, 5))
        match fault:
            case "429" | "503_later":
                header: str | None = seconds
            case "429_date":
                now = EPOCH + asyncio.get_running_loop().time()
                date = datetime.fromtimestamp(now, UTC)
                until = datetime.fromtimestamp(now + float(seconds), UTC)
                return Reply(
                    status,
                    b"{}",
                    format_datetime(until, usegmt=True),
                    date=format_datetime(date, usegmt=True),
                )
            case "429_garbled":
                header = "soon"
            case _:
                header = None
        return Reply(status, b'{"error":"not now"}', header)

    def _answer(self, run_id: str, body: bytes | None) -> Reply:
        """Apply the body, if there is one, and answer with the run."""
        held = self.runs[run_id]
        if body is not None:
            patch = json.loads(body)
            metadata = patch.get("metadata", {})
            if "poison" in metadata:
                return Reply(
                    422, b'{"code":"INVALID_REQUEST","message":"poison","retryable":false}'
                )
            held.name = patch.get("name", held.name)
            for model in MODELS:
                held.metadata[model] = applied(model, held.metadata[model], metadata)
            self.applied_marks.update(key for key in metadata if key.startswith("mark"))
        run: dict[str, Any] = {
            "object": "workflow_run",
            "id": run_id,
            "status": "PROCESSED",
            "name": held.name,
            "metadata": held.metadata[self.reading],
        }
        return Reply(200, json.dumps(run).encode())
