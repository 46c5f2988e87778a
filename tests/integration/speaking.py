"""Our client, and servers on loopback that say what a test has them say."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from syncd.api import Api, Connected, Endpoint
from syncd.core.answer import NoReply

TOKEN = "a-token-that-nobody-may-see"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def client(
    base_url: str,
    *,
    version: str | None = None,
    workspace_id: str | None = None,
    timeout_s: float = 5.0,
    token: str = TOKEN,
    connected: Connected | None = None,
) -> AsyncIterator[Api]:
    """A client for the length of the block."""
    it = Api.open(Endpoint(base_url, version, workspace_id, timeout_s), lambda: token, connected)
    try:
        yield it
    finally:
        await it.close()


@asynccontextmanager
async def talking(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that says what `talk` writes; its URL."""
    talks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await talk(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def saying(*parts: bytes, then_hold: bool = False) -> Talk:
    """Read the request's head, write these bytes, and hang up (or hold the line)."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
            if then_hold:
                await asyncio.get_running_loop().create_future()

    return talk


@asynccontextmanager
async def recording(**answer: Any) -> AsyncIterator[tuple[str, list[Any]]]:
    """An HTTP server that keeps the requests it gets, and always answers the same."""
    seen: list[tuple[web.BaseRequest, bytes]] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        seen.append((request, await request.read()))
        return web.Response(**({"body": b'{"id":"r"}'} | answer))

    server = web.Server(handle)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}", seen
    finally:
        await runner.cleanup()


async def no_reply(talk: Talk, timeout_s: float = 5.0) -> NoReply:
    """What is made of a server's behaviour; the token is never in it."""
    async with talking(talk) as url, client(url, timeout_s=timeout_s) as it:
        answer = await it.update("r", b"{}")
    assert isinstance(answer, NoReply), answer
    assert TOKEN not in repr(answer)
    assert "\n" not in answer.message
    return answer
