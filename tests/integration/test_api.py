"""The client against real sockets: what it sends, what it takes for an answer, and what not."""

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sandboxed import sandboxed

from syncd import __version__, api
from syncd.api import Api, Connected, Endpoint
from syncd.core.answer import NoReply, Reply, run_in

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


# What it sends


async def test_an_update_is_a_post_of_just_these_bytes() -> None:
    body = '{"metadata":{"n":1.0e5,"é":-0}}'.encode()
    async with recording() as (url, seen), client(f"{url}/v1") as it:
        answer = await it.update("workflow_run_1", body)

    ((request, sent),) = seen
    assert (request.method, request.raw_path) == ("POST", "/v1/workflow_runs/workflow_run_1")
    assert sent == body
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Accept"] == "application/json"
    assert request.headers["User-Agent"] == f"syncd/{__version__}"
    assert isinstance(answer, Reply)
    assert (answer.status, answer.body) == (200, b'{"id":"r"}')


async def test_a_retrieval_is_a_get_without_a_body() -> None:
    async with recording() as (url, seen), client(url) as it:
        await it.retrieve("workflow_run_1")

    ((request, sent),) = seen
    assert (request.method, request.raw_path, sent) == ("GET", "/workflow_runs/workflow_run_1", b"")


@pytest.mark.parametrize(
    ("version", "workspace_id"),
    [(None, None), ("2026-02-09", None), ("2024-12-23", "ws_1"), (None, "ws_1")],
)
async def test_generation_and_workspace_are_headers_where_there_are_any(
    version: str | None, workspace_id: str | None
) -> None:
    async with (
        recording() as (url, seen),
        client(url, version=version, workspace_id=workspace_id) as it,
    ):
        await it.update("r", b"{}")

    headers = seen[0][0].headers
    assert headers.get("x-extend-api-version") == version
    assert headers.get("x-extend-workspace-id") == workspace_id


@pytest.mark.parametrize(
    ("run_id", "segment"),
    [
        ("a/b?c#d%2e ü", "a%2Fb%3Fc%23d%252e%20%C3%BC"),
        ("..a", "..a"),
        ("a b&c=d+e;f,g", "a%20b%26c%3Dd%2Be%3Bf%2Cg"),
        ("🙂", "%F0%9F%99%82"),
        ("@:$!'()*[]", "%40%3A%24%21%27%28%29%2A%5B%5D"),
        ("-_.~", "-_.~"),
        ("../../admin", "..%2F..%2Fadmin"),
    ],
)
async def test_a_run_id_is_one_segment_of_the_path_whatever_it_holds(
    run_id: str, segment: str
) -> None:
    async with recording() as (url, seen), client(f"{url}/v1") as it:
        await it.update(run_id, b"{}")

    assert seen[0][0].raw_path == f"/v1/workflow_runs/{segment}"


@pytest.mark.parametrize("run_id", ["a/b?c#d%2e ü", "workflow_run_1", "..x", "é" * 255])
@pytest.mark.parametrize("generation", ["v1", "2026-02-09"])
async def test_the_vendor_finds_the_run_that_is_meant(run_id: str, generation: str) -> None:
    version = None if generation == "v1" else generation
    async with (
        sandboxed(api=generation) as sandbox,
        client(
            f"{sandbox.url}{'' if version else '/v1'}", version=version, token="sandbox-token"
        ) as it,
    ):
        answer = await it.update(run_id, b'{"metadata":{"a":1}}')
        again = await it.retrieve(run_id)

        assert list(await sandbox.state()) == [run_id]
    for reply in (answer, again):
        assert isinstance(reply, Reply)
        run = run_in(reply.body)
        assert run is not None
        assert (run.id, run.metadata) == (run_id, '{"a":1}')


async def test_the_token_is_asked_for_before_every_request() -> None:
    tokens = iter(["first", "second"])
    async with recording() as (url, seen):
        it = Api.open(Endpoint(url, None, None, 5.0), lambda: next(tokens))
        await it.update("r", b"{}")
        await it.update("r", b"{}")
        await it.close()

    assert [request.headers["Authorization"] for request, _ in seen] == [
        *("Bearer first", "Bearer second"),
    ]


async def test_neither_cookies_nor_proxies_of_the_environment_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    cookie = {"Set-Cookie": "session=1"}
    async with recording(headers=cookie) as (url, seen), client(url) as it:
        await it.update("r", b"{}")
        await it.update("r", b"{}")

    assert len(seen) == 2
    assert "Cookie" not in seen[1][0].headers


async def test_connections_are_used_again() -> None:
    connections = 0
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                writer.write(head)

    async with talking(talk) as url, client(url) as it:
        answers = [await it.update("r", b"{}") for _ in range(5)]

    assert all(isinstance(answer, Reply) for answer in answers)
    assert connections == 1


HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
STRAY = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"unasked'


async def test_what_nobody_has_asked_for_is_nobodys_answer() -> None:
    """A server that answers twice: whoever comes next on that connection would get the second."""
    stray = asyncio.Event()
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n{}")
            writer.write(HELLO)
            await stray.wait()
            writer.write(STRAY)
            await reader.readuntil(b"\r\n\r\n{}")

    async with talking(talk) as url, client(url) as it:
        first = await it.update("r", b"{}")
        stray.set()
        ((idle, _),) = next(iter(it._connector._conns.values()))
        async with asyncio.timeout(5.0):
            while not idle.should_close:  # noqa: ASYNC110
                await asyncio.sleep(0)
        second = await it.update("r", b"{}")

    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert (first.body, second.body) == (b"{}", b"{}")
    assert connections == 2


async def test_two_answers_at_once_are_the_last_on_their_connection() -> None:
    async with talking(saying(HELLO + STRAY, then_hold=True)) as url, client(url) as it:
        answers = [await it.update("r", b"{}") for _ in range(2)]

    assert [answer.body for answer in answers if isinstance(answer, Reply)] == [b"{}", b"{}"]


# What it takes for an answer


@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n",
    ],
)
async def test_what_is_said_before_the_answer_is_not_the_answer(before: bytes) -> None:
    async with talking(saying(before, HELLO)) as url, client(url) as it:
        reply = await it.update("r", b"{}")

    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (200, b"{}")


async def test_an_answer_that_ends_with_its_connection_is_whole() -> None:
    async with talking(saying(b"HTTP/1.1 200 OK\r\n\r\n{", b"}")) as url, client(url) as it:
        reply = await it.update("r", b"{}")

    assert isinstance(reply, Reply)
    assert reply.body == b"{}"


async def test_an_answer_that_the_timeout_ends_is_not_whole() -> None:
    """Cut off at the deadline it looks like one that ends with its connection."""
    refused = await no_reply(saying(b"HTTP/1.1 200 OK\r\n\r\n{}", then_hold=True), timeout_s=0.1)

    assert (refused.cause, refused.ambiguous) == ("timeout", True)


async def test_a_connection_that_does_not_come_about_in_time_is_not_ambiguous() -> None:
    """A backlog that is full: the handshake is never answered."""
    with socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())
        port = full.getsockname()[1]
        async with client(f"http://127.0.0.1:{port}", timeout_s=0.2) as it:
            refused = await it.update("r", b"{}")

    assert isinstance(refused, NoReply)
    assert (refused.cause, refused.ambiguous) == ("connect", False)
    assert "0.2 s" in refused.message


async def test_what_the_headers_tell_is_kept() -> None:
    answer = {
        "status": 429,
        "body": b'{"code":"RATE_LIMIT_EXCEEDED"}',
        "headers": {"Retry-After": "7", "x-extend-request-id": "req_1"},
    }
    async with recording(**answer) as (url, _), client(url) as it:
        reply = await it.update("r", b"{}")

    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (429, b'{"code":"RATE_LIMIT_EXCEEDED"}')
    assert (reply.retry_after, reply.request_id) == ("7", "req_1")
    assert reply.date is not None


async def test_an_answer_that_shows_the_token_comes_without_it() -> None:
    """The error page of a proxy may repeat the request's headers."""
    page = f"<html>Authorization: Bearer {TOKEN}</html>".encode()
    echo = {"x-extend-request-id": f"req {TOKEN}"}
    async with recording(status=502, body=page, headers=echo) as (url, _), client(url) as it:
        reply = await it.update("r", b"{}")

    assert isinstance(reply, Reply)
    assert b"Bearer" in reply.body
    assert TOKEN not in repr(reply)


async def test_a_compressed_answer_is_unpacked() -> None:
    packed = gzip.compress(b'{"id":"r"}')
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    async with talking(saying(head.encode(), packed)) as url, client(url) as it:
        reply = await it.update("r", b"{}")

    assert isinstance(reply, Reply)
    assert reply.body == b'{"id":"r"}'


async def test_an_answer_up_to_the_bound_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_ANSWER_BYTES", 100_000)
    for size in (100_000, 100_001):
        async with recording(body=b"x" * size) as (url, _), client(url) as it:
            reply = await it.update("r", b"{}")
        assert isinstance(reply, Reply if size == 100_000 else NoReply)


# What it does not


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_refused_and_the_token_goes_nowhere(status: int) -> None:
    async with recording() as (elsewhere, strangers):
        there = {"Location": f"{elsewhere}/catch"}
        async with recording(status=status, headers=there) as (url, seen), client(url) as it:
            refused = await it.update("r", b"{}")

    assert isinstance(refused, NoReply)
    assert (refused.cause, refused.ambiguous) == ("redirect", False)
    assert f"HTTP {status}" in refused.message
    assert len(seen) == 1
    assert strangers == []


async def test_an_answer_larger_than_the_bound_is_left_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It never ends: who tried to read it whole would never be done."""
    monkeypatch.setattr(api, "MAX_ANSWER_BYTES", 1 << 20)

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()

    refused = await no_reply(endless)

    assert (refused.cause, refused.ambiguous) == ("too_large", True)


async def test_a_small_answer_that_unpacks_to_a_large_one_is_left_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api, "MAX_ANSWER_BYTES", 1 << 20)
    bomb = gzip.compress(b"x" * (8 << 20))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"

    refused = await no_reply(saying(head.encode(), bomb))

    assert refused.cause == "too_large"


async def test_an_answer_that_trickles_in_ends_with_the_timeout() -> None:
    """Each byte comes well within the timeout, the answer does not."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError):
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02)

    began = time.monotonic()
    refused = await no_reply(trickle, timeout_s=0.3)

    assert (refused.cause, refused.ambiguous) == ("timeout", True)
    assert "0.3 s" in refused.message
    assert time.monotonic() - began < 10.0, "each byte has begun it anew"


async def test_a_server_that_says_nothing_is_a_timeout() -> None:
    refused = await no_reply(saying(then_hold=True), timeout_s=0.1)

    assert (refused.cause, refused.ambiguous) == ("timeout", True)


async def test_a_connection_that_breaks_inside_the_answer_may_have_been_applied() -> None:
    refused = await no_reply(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"))

    assert (refused.cause, refused.ambiguous) == ("cut", True)


async def test_a_connection_that_breaks_before_the_answer_may_have_been_applied() -> None:
    refused = await no_reply(saying())

    assert (refused.cause, refused.ambiguous) == ("reset", True)


@pytest.mark.parametrize(
    "garbage",
    [
        b"220 smtp.example.com ESMTP\r\n",
        b"\x00\x01\x02\x03" * 100,
        b"HTTP/1.1 banana\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: banana\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nxxxxx",
    ],
)
async def test_what_is_not_http_is_no_answer_and_may_have_been_applied(garbage: bytes) -> None:
    refused = await no_reply(saying(garbage, then_hold=True), timeout_s=1.0)

    assert refused.cause in {"protocol", "cut"}
    assert refused.ambiguous


async def test_no_connection_is_not_ambiguous() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with client(url) as it:
            refused = await it.update("r", b"{}")

    assert isinstance(refused, NoReply)
    assert (refused.cause, refused.ambiguous) == ("connect", False)
    assert "127.0.0.1" in refused.message


async def test_a_host_without_an_address_is_not_ambiguous() -> None:
    async with client("http://no-such-host.invalid") as it:
        refused = await it.update("r", b"{}")

    assert isinstance(refused, NoReply)
    assert refused.cause in {"dns", "connect"}
    assert refused.ambiguous is False


async def test_bytes_of_a_header_that_are_no_text_can_be_written_down() -> None:
    """aiohttp keeps them as half surrogates, which neither SQLite nor a log takes."""
    head = b"HTTP/1.1 500 E\r\nx-extend-request-id: a\xffb\r\nRetry-After: \xfe\r\nDate: \xfd\r\n"
    talk = saying(head + b"Content-Length: 0\r\n\r\n", then_hold=True)

    async with talking(talk) as url, client(url) as it:
        reply = await it.update("r", b"{}")

    assert isinstance(reply, Reply)
    assert reply.request_id == r"a\udcffb"
    for text in (reply.request_id, reply.retry_after, reply.date):
        assert text is not None
        assert text.encode()


async def test_whoever_had_to_connect_asks_before_anything_is_sent() -> None:
    """Once for each connection: what goes on an open one has nothing to ask."""
    told: list[float] = []
    sent_before: list[int] = []

    async with recording() as (url, seen):

        async def connected(took_s: float) -> None:
            told.append(took_s)
            sent_before.append(len(seen))

        async with client(url, connected=connected) as it:
            await it.update("a", b"{}")
            await it.update("b", b"{}")

    assert sent_before == [0]
    assert 0.0 <= told[0] < 5.0
    assert len(seen) == 2


async def test_a_request_that_ends_while_it_asks_leaves_no_connection_behind() -> None:
    heard = asyncio.get_running_loop().create_future()
    asks = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.read())

    async def connected(took_s: float) -> None:
        asks.set()
        await asyncio.get_running_loop().create_future()

    async with talking(listen) as url, client(url, connected=connected) as it:
        asking = asyncio.create_task(it.update("r", b"{}"))
        async with asyncio.timeout(5.0):
            await asks.wait()
            asking.cancel()
            assert await heard == b""


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's side of TLS with a certificate that nobody vouches for."""
    if shutil.which("openssl") is None:
        pytest.skip("makes its certificate with openssl, which is not here")
    folder: Path = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_a_certificate_that_nobody_vouches_for_is_refused_before_the_token_is_sent(
    self_signed: ssl.SSLContext,
) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1_000))

    async with talking(listen, self_signed) as url, client(url) as it:
        refused = await it.update("r", b"{}")

    assert isinstance(refused, NoReply)
    assert (refused.cause, refused.ambiguous) == ("tls", False)
    assert b"".join(heard) == b""


async def test_a_plain_server_on_a_tls_port_is_refused() -> None:
    async with (
        talking(lambda reader, writer: reader.read(1)) as url,
        client(url.replace("http:", "https:")) as it,
    ):
        refused = await it.update("r", b"{}")

    assert isinstance(refused, NoReply)
    assert refused.cause in {"tls", "connect", "reset"}


async def test_a_token_that_fits_no_header_is_no_answer_and_not_told() -> None:
    async with recording() as (url, seen), client(url, token="bad\r\nX-Evil: 1") as it:
        refused = await it.update("r", b"{}")

    assert isinstance(refused, NoReply)
    assert "Evil" not in repr(refused)
    assert seen == []


async def test_cancelled_it_lets_go_of_the_connection() -> None:
    gone = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await reader.read()
        gone.set()

    arrived = asyncio.Event()
    async with talking(wait) as url, client(url) as it, asyncio.timeout(5):
        asking = asyncio.create_task(it.update("r", b""))
        await arrived.wait()
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await gone.wait()

    assert asking.cancelled()
