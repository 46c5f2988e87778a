"""A vendor that means no good: raw bytes over a real socket, whatever HTTP says."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from syncd.api import Api, Endpoint

Answering = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def hostile(answering: Answering, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve on loopback: `answering` gets the head of each request, and writes what it likes.

    Yields the base URL.
    """
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = next(
                    (
                        int(line.partition(b":")[2])
                        for line in head.splitlines()
                        if line.lower().startswith(b"content-length:")
                    ),
                    0,
                )
                await reader.readexactly(size)
                await answering(head, writer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http{'s' if tls else ''}://localhost:{port}"
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


@contextmanager
def hostile_meanwhile(answering: Answering) -> Iterator[str]:
    """The same, for a test that is not asynchronous."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    serving = hostile(answering)
    url = asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result(10.0)
    try:
        yield url
    finally:
        asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result(10.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10.0)
        loop.close()


@asynccontextmanager
async def speaking_to(
    url: str, *, token: str = "sandbox-token", timeout_s: float = 5.0
) -> AsyncIterator[Api]:
    """Our client, pointed at it."""
    api = Api.open(Endpoint(url, None, None, timeout_s), lambda: token)
    try:
        yield api
    finally:
        await api.close()


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A well-formed answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body
