"""A vendor so cheap that it is not what is measured: HTTP by hand, one answer, a sliding second.

`python -m tests.benchmarks.vendor` prints the port it listens on, on loopback, and serves until it
is ended; with a file of a certificate and its key it prints a second port, for https. A POST to
`…/workflow_runs/ID` is answered with the same WorkflowRun each time, under the id that was asked
for. `/_bench/reset?limit=N&latency_s=S&connect_s=S&trace=1` begins new books, and `/_bench/books`
shows them. It speaks to well-behaved clients only: no chunked bodies, plain ids.
"""

import asyncio
import ssl
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import orjson

from syncd.sandbox.bodies import workflow_run
from tests.benchmarks.loop import run

WINDOW_S = 1.0
_LENGTH = b"content-length:"
_RUN = b"/workflow_runs/"
_MARK = "workflow_run_0000000000000001"  # one of those whose sandbox answer is a long one
_METADATA = orjson.dumps({f"key_{number}": f"value {number} " * 4 for number in range(14)})


def _answer(status: bytes, body: bytes, more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
    return head % (status, more, len(body)) + body


def _template() -> tuple[bytes, bytes]:
    """What stands before and after the id in the answer's body."""
    body = workflow_run("v1", _MARK, "benchmark", _METADATA)
    before, after = body.split(f'"id":"{_MARK}"'.encode(), 1)
    return before + b'"id":"', b'"' + after


_BEFORE, _AFTER = _template()
_CONFIRMED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_REFUSED = _answer(
    b"429 Too Many Requests",
    b'{"code":"RATE_LIMIT_EXCEEDED","message":"too many requests"}',
    b"Retry-After: 1\r\n",
)
ANSWER_BYTES = len(_BEFORE) + len(_MARK) + len(_AFTER)


@dataclass(slots=True)
class Books:
    """What came in. Instants are of CLOCK_MONOTONIC, which all processes share."""

    limit: float = 0.0
    """Requests in any sliding second; 0: as many as you like."""
    latency_s: float = 0.0
    connect_s: float = 0.0
    """That each handshake takes, on the port for https."""
    trace: bool = False
    requests: int = 0
    refused: int = 0
    first_at: float | None = None
    last_at: float | None = None
    cpu_s: float = 0.0
    """Of this process, since it began."""
    arrivals: dict[str, float] = field(default_factory=dict)
    """The first request to each run, if `trace` is set."""


class Vendor:
    """The books, and the judgement."""

    def __init__(self) -> None:
        self.books = Books()
        self._window: deque[float] = deque()

    def reset(self, query: dict[str, str]) -> None:
        self.books = Books(
            limit=float(query.get("limit", 0)),
            latency_s=float(query.get("latency_s", 0)),
            connect_s=float(query.get("connect_s", 0)),
            trace="trace" in query,
        )
        self._window.clear()

    def take(self, run: bytes) -> bytes:
        """The answer to a request for a run."""
        books, now = self.books, time.monotonic()
        books.requests += 1
        if books.first_at is None:
            books.first_at = now
        books.last_at = now
        if books.trace:
            books.arrivals.setdefault(run.decode(), now)
        if books.limit and self._is_too_many(now):
            books.refused += 1
            return _REFUSED
        return b"".join(
            (_CONFIRMED % (len(_BEFORE) + len(run) + len(_AFTER)), _BEFORE, run, _AFTER)
        )

    def command(self, target: str) -> bytes:
        """The answer to one of the benchmark's own requests."""
        parts = urlsplit(target)
        if parts.path == "/_bench/reset":
            self.reset(dict(parse_qsl(parts.query)))
        self.books.cpu_s = time.process_time()
        return _answer(b"200 OK", orjson.dumps(asdict(self.books)))

    def _is_too_many(self, now: float) -> bool:
        while self._window and self._window[0] <= now - WINDOW_S:
            self._window.popleft()
        if len(self._window) >= self.books.limit:
            return True
        self._window.append(now)
        return False


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._unread = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is another
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        data = self._unread + data if self._unread else data
        # Of a connection that has just been encrypted the first request may come before this.
        while (transport := self._transport) and (end := data.find(b"\r\n\r\n")) >= 0:
            after = end + 4 + _length(data[:end])
            if len(data) < after:
                break
            self._answer(transport, data[: data.find(b" HTTP/", 0, end)])
            data = data[after:]
        self._unread = data

    def _answer(self, transport: asyncio.Transport, line: bytes) -> None:
        """Answer a request, of which this is the method and the target."""
        at = line.find(_RUN)
        if at < 0:
            transport.write(self._vendor.command(line.split(b" ", 1)[1].decode()))
            return
        answer, latency_s = self._vendor.take(line[at + len(_RUN) :]), self._vendor.books.latency_s
        if latency_s:
            asyncio.get_running_loop().call_later(latency_s, transport.write, answer)
        else:
            transport.write(answer)


class Handshake(asyncio.Protocol):
    """A connection that is slow to be encrypted, as one over the sea is."""

    def __init__(self, vendor: Vendor, tls: ssl.SSLContext) -> None:
        self._vendor = vendor
        self._tls = tls
        self._begun: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        transport.pause_reading()
        self._begun = asyncio.get_running_loop().create_task(self._shake(transport))

    async def _shake(self, transport: asyncio.Transport) -> None:
        await asyncio.sleep(self._vendor.books.connect_s)
        connection = Connection(self._vendor)
        encrypted = await asyncio.get_running_loop().start_tls(
            transport, connection, self._tls, server_side=True
        )
        if encrypted is not None:
            connection.connection_made(encrypted)


def _length(head: bytes) -> int:
    """The size of the body that a request's head announces."""
    lowered = head.lower()
    at = lowered.find(_LENGTH)
    if at < 0:
        return 0
    return int(lowered[at + len(_LENGTH) :].split(b"\r\n", 1)[0])


async def main(certificate: str | None) -> None:
    """Serve on a free port of loopback, or two."""
    loop, vendor = asyncio.get_running_loop(), Vendor()
    plain = await loop.create_server(lambda: Connection(vendor), "127.0.0.1", 0)
    ports = [plain.sockets[0].getsockname()[1]]
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        slow = await loop.create_server(lambda: Handshake(vendor, tls), "127.0.0.1", 0)
        ports.append(slow.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await plain.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1]))  # uvloop 0.23's start_tls waits for ever after a pause
    else:
        run(main(None))
