"""A sandbox in this process for the length of a test, on a free port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from syncd.sandbox import SandboxSettings, serve


@dataclass(frozen=True, slots=True)
class Sandboxed:
    """A running sandbox: where it listens, and its books."""

    url: str  # a client of `v1` is given url + "/v1"
    settings: SandboxSettings
    session: aiohttp.ClientSession  # without credentials

    @property
    def headers(self) -> dict[str, str]:
        """What a request needs to be let in."""
        bearer = {"Authorization": f"Bearer {self.settings.token}"}
        api = self.settings.api
        return bearer if api == "v1" else {**bearer, "x-extend-api-version": api}

    async def state(self) -> dict[str, dict[str, Any]]:
        """The runs, by id, each with its name and metadata."""
        async with self.session.get(f"{self.url}/_sandbox/state") as reply:
            return (await reply.json())["runs"]

    async def stats(self) -> dict[str, Any]:
        """The counts."""
        async with self.session.get(f"{self.url}/_sandbox/stats") as reply:
            return await reply.json()

    async def requests(self, run_id: str | None = None) -> list[dict[str, Any]]:
        """The requests received, of one run or of all."""
        query = {} if run_id is None else {"run": run_id}
        async with self.session.get(f"{self.url}/_sandbox/requests", params=query) as reply:
            return await reply.json()

    async def change(self, **settings: object) -> None:
        """Other faults, another rate, latency or token, from now on."""
        async with self.session.post(f"{self.url}/_sandbox/settings", json=settings) as reply:
            assert reply.status == 200, await reply.text()


@asynccontextmanager
async def sandboxed(**settings: Any) -> AsyncIterator[Sandboxed]:
    """Serve a sandbox with these settings while the block runs."""
    chosen = SandboxSettings(**settings)
    listening = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(chosen, listening.set_result))
    try:
        await asyncio.wait({listening, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        async with aiohttp.ClientSession() as session:
            yield Sandboxed(listening.result(), chosen, session)
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
