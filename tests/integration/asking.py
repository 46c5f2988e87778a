"""A client on the control socket, and what is behind it."""

import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from delivering import Delivering

from syncd.control import Control
from syncd.core.sending import Sending
from syncd.listener import Listener


@dataclass(slots=True)
class Asking:
    """A client on the control socket, and what is behind it."""

    it: Delivering
    path: Path
    session: aiohttp.ClientSession
    listener: Listener

    async def ask(self, method: str, what: str, body: object = None) -> tuple[int, Any]:
        """The status and the decoded answer: an object, or the list of lines."""
        if body is not None:
            body = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self.session.request(method, f"http://syncd{what}", data=body) as reply:
            text = await reply.text()
            if reply.content_type == "application/x-ndjson":
                return reply.status, [json.loads(line) for line in text.splitlines()]
            return reply.status, json.loads(text)

    async def get(self, what: str) -> Any:
        status, answer = await self.ask("GET", what)
        assert status == 200, answer
        return answer

    async def post(self, what: str, body: object = None) -> Any:
        status, answer = await self.ask("POST", what, body)
        assert status == 200, answer
        return answer

    async def refused(self, method: str, what: str, body: object = None) -> tuple[int, str]:
        status, answer = await self.ask(method, what, body)
        assert answer.keys() == {"error"}
        assert "\n" not in answer["error"]
        return status, answer["error"]


def sending() -> Sending:
    """How sending stands, unless a test has it otherwise."""
    return Sending("running", requests_per_s=8.0)


@asynccontextmanager
async def listening(
    path: Path, it: Delivering, sending: Callable[[], Sending] = sending
) -> AsyncIterator[Asking]:
    """A control socket for the length of the block."""

    async def status() -> dict[str, Any]:
        return {"asked": "and answered"}

    async with AsyncExitStack() as stack:
        here = Control(it.store, it.relay, it.gate, status, sending)
        await here.listen(path, stack)
        connector = aiohttp.UnixConnector(path=str(path))
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Asking(it, path, session, here.listener)
