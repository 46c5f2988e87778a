"""The relay at work in this process, against a sandbox: store, gate, client and all."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import feed
from oracle import Wanted, differing, one_by_one
from sandboxed import Sandboxed
from stores import rows

from syncd.api import Api, Endpoint
from syncd.core.patch import Patch
from syncd.core.settlement import Patience
from syncd.gate import Gate, Limits
from syncd.relay import Policy, Relay
from syncd.store import Store

TIMEOUT_S = 20.0  # for what takes a second or two


@dataclass(slots=True)
class Delivering:
    """A relay that runs, and what it works with."""

    store: Store
    relay: Relay
    gate: Gate
    sandbox: Sandboxed
    token: list[str]
    """The one in use; put another into its place."""
    accepted: list[tuple[str, str | None, str | None]]

    async def accept(self, *patches: Patch) -> None:
        """Accept patches as one chunk, in order."""
        await self.store.accept(patches)
        self.accepted += [(p.workflow_run_id, p.name, p.metadata) for p in patches]
        self.relay.wake()

    async def until(
        self, condition: Callable[[dict[str, int]], bool], within_s: float = TIMEOUT_S
    ) -> dict[str, int]:
        """Wait for the counters to be so; looks at every commit."""
        try:
            async with asyncio.timeout(within_s):
                async for _ in self.store.changes():
                    found = self.counters()
                    if condition(found):
                        return found
        except TimeoutError:
            raise AssertionError(f"{self.counters()} {self.gate.figures()}") from None
        raise AssertionError("the store has stopped to change")

    async def drained(self) -> dict[str, int]:
        """Wait until nothing is pending any more."""
        return await self.until(lambda counters: counters["pending"] == 0)

    async def until_requests(self, number: int) -> None:
        """Wait until the relay has had so many answers."""
        await self.when(lambda: self.relay.figures.requests >= number)

    async def when(self, condition: Callable[[], object]) -> None:
        """Wait for something that nobody announces."""
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    def counters(self) -> dict[str, int]:
        return dict(rows(self.store.path, "SELECT state, n FROM counters"))

    def states(self, run: str) -> list[str]:
        """The states of a run's patches, oldest first."""
        found = rows(
            self.store.path, "SELECT state FROM outbox WHERE workflow_run_id = ? ORDER BY id", run
        )
        return [state for (state,) in found]

    async def wrong_runs(self) -> dict[str, Any]:
        """Where the sandbox does not hold what one-by-one application gives."""
        wanted: Wanted = one_by_one(self.accepted)
        return differing(wanted, await self.sandbox.state())


@asynccontextmanager
async def delivering(
    path: Path,
    sandbox: Sandboxed,
    *,
    rate: float = 2_000.0,
    in_flight: int = 16,
    fold: bool = True,
    timeout_s: float = 2.0,
    base_s: float = 0.02,
    cap_s: float = 0.2,
    max_age_s: float = 0.0,
    watching: bool = True,
    stores: type[Store] = Store,
) -> AsyncIterator[Delivering]:
    """Deliver while the block runs, woken by every commit as the daemon is."""
    api_version = None if sandbox.settings.api == "v1" else sandbox.settings.api
    base_url = f"{sandbox.url}/v1" if api_version is None else sandbox.url
    token = [sandbox.settings.token]
    limits = Limits(rate, in_flight, base_s, cap_s)
    policy = Policy(fold, 5.0, Patience(base_s, cap_s, max_age_s))
    async with AsyncExitStack() as stack:
        store = await stores.open(path, time.time)
        stack.push_async_callback(store.close)
        api = Api.open(Endpoint(base_url, api_version, None, timeout_s), lambda: token[0])
        stack.push_async_callback(api.close)
        gate = Gate(limits, time.monotonic, started=time.monotonic() - 10.0)
        relay = Relay(store, api, gate, policy)

        async def watch() -> None:
            async for _ in store.changes():
                relay.wake()

        running = asyncio.create_task(relay.run())
        stack.push_async_callback(_stopped, relay, running)
        if watching:
            stack.push_async_callback(_cancelled, asyncio.create_task(watch()))
        yield Delivering(store, relay, gate, sandbox, token, [])


async def _stopped(relay: Relay, running: asyncio.Task[None]) -> None:
    relay.stop()
    await running


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def patches(made: Iterable[tuple[str, str | None, str | None]]) -> list[Patch]:
    return [Patch(run, name, metadata) for run, name, metadata in made]


def some(count: int, runs: int, seed: int = 1, tag: str = "t") -> list[Patch]:
    return patches(feed.as_rows(feed.patches(count, runs, seed, tag)))


def patch(run: str, number: int, **more: Any) -> Patch:
    return Patch(run, None, json.dumps({"n": number} | more))


async def of(sandbox: Sandboxed, run: str) -> list[dict[str, Any]]:
    """The bodies of the requests for a run, in their order."""
    return [json.loads(request["body"]) for request in await sandbox.requests(run)]
