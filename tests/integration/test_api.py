"""The client against real sockets: what it sends, and how it connects."""

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from sandboxed import sandboxed
from speaking import TOKEN, client, recording, talking

from syncd import __version__
from syncd.api import Api, Endpoint
from syncd.core.answer import NoReply, NotSent, Reply, run_in

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


# How it connects


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


async def test_no_connection_is_not_ambiguous() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with client(url) as it:
            refused = await it.update("r", b"{}")

    assert isinstance(refused, NoReply)
    assert (refused.cause, refused.ambiguous) == ("connect", False)
    assert refused.message == f"no connection: {url.removeprefix('http://')}: Connection refused"


async def test_a_host_without_an_address_is_not_ambiguous() -> None:
    async with client("http://no-such-host.invalid") as it:
        refused = await it.update("r", b"{}")

    assert isinstance(refused, NoReply)
    assert refused.cause in {"dns", "connect"}
    assert "no-such-host.invalid:80: " in refused.message
    assert "ssl" not in refused.message
    assert refused.ambiguous is False


async def test_whoever_had_to_connect_asks_before_anything_is_sent() -> None:
    """Once for each connection: what goes on an open one has nothing to ask."""
    told: list[float] = []
    sent_before: list[int] = []

    async with recording() as (url, seen):

        async def connected(took_s: float) -> bool:
            told.append(took_s)
            sent_before.append(len(seen))
            return True

        async with client(url, connected=connected) as it:
            await it.update("a", b"{}")
            await it.update("b", b"{}")

    assert sent_before == [0]
    assert 0.0 <= told[0] < 5.0
    assert len(seen) == 2


async def test_whoever_is_told_no_sends_nothing_and_leaves_no_connection_behind() -> None:
    heard = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.read())

    async def connected(took_s: float) -> bool:
        return False

    async with talking(listen) as url, client(url, connected=connected) as it:
        async with asyncio.timeout(5.0):
            assert await it.update("r", b"{}") == NotSent()
            assert await heard == b""


async def test_a_request_that_ends_while_it_asks_leaves_no_connection_behind() -> None:
    heard = asyncio.get_running_loop().create_future()
    asks = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.read())

    async def connected(took_s: float) -> bool:
        asks.set()
        return await asyncio.get_running_loop().create_future()

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
    why = "certificate verify failed: self.signed certificate"
    assert re.fullmatch(f"TLS failed: {url.removeprefix('https://')}: {why}", refused.message)
    assert b"".join(heard) == b""


async def test_a_plain_server_on_a_tls_port_is_refused() -> None:
    async with (
        talking(lambda reader, writer: reader.read(1)) as url,
        client(url.replace("http:", "https:")) as it,
    ):
        refused = await it.update("r", b"{}")

    assert isinstance(refused, NoReply)
    assert refused.cause in {"tls", "connect", "reset"}


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "TLS failed: {}: [a-z ]+"),
        (b"", "no connection: {}: closed before TLS was agreed upon"),
    ],
)
async def test_where_no_tls_is_spoken_place_and_reason_are_told(says: bytes, told: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10_000)
        writer.write(says)
        writer.write_eof()
        await reader.read()

    async with talking(answer) as url, client(url.replace("http:", "https:")) as it:
        refused = await it.update("r", b"{}")

    assert isinstance(refused, NoReply)
    assert re.fullmatch(told.format(url.removeprefix("http://")), refused.message)
    assert refused.ambiguous is False


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
