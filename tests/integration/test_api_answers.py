"""The client against real sockets: what it takes for an answer, and what not."""

import asyncio
import gzip
import time
from contextlib import suppress

import pytest
from speaking import TOKEN, client, no_reply, recording, saying, talking

from syncd import api
from syncd.core.answer import NoReply, Reply

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


async def test_of_a_header_that_comes_twice_both_values_are_kept() -> None:
    head = b"HTTP/1.1 429 X\r\nRetry-After: 2\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n"
    async with talking(saying(head)) as url, client(url) as it:
        reply = await it.update("r", b"{}")

    assert isinstance(reply, Reply)
    assert reply.retry_after == "2, 9"


async def test_an_answer_that_shows_the_token_comes_without_it() -> None:
    """The error page of a proxy may repeat the request's headers."""
    page = f"<html>Authorization: Bearer {TOKEN}</html>".encode()
    echo = {"x-extend-request-id": f"req {TOKEN}"}
    async with recording(status=502, body=page, headers=echo) as (url, _), client(url) as it:
        reply = await it.update("r", b"{}")

    assert isinstance(reply, Reply)
    assert b"Bearer" in reply.body
    assert TOKEN not in repr(reply)


async def test_a_header_alone_that_shows_the_token_comes_without_it() -> None:
    async with recording(headers={"x-extend-request-id": TOKEN}) as (url, _), client(url) as it:
        reply = await it.update("r", b"{}")

    assert isinstance(reply, Reply)
    assert (reply.body, reply.request_id) == (b'{"id":"r"}', "<token>")


@pytest.mark.parametrize(
    "head",
    [
        "{} 200 OK",
        "HTTP/1.1 {} OK",
        "HTTP/1.1 200 OK\r\n{}",
        "HTTP/1.1 200 OK\r\nAuthorization : Bearer {}",
        "HTTP/1.1 200 OK\r\nContent-Length: {}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nX-Echo: \0Bearer {}",
        f"HTTP/1.1 200 OK\r\nX-Echo: {400 * TOKEN}",
    ],
)
async def test_of_what_is_not_http_nothing_is_quoted(head: str) -> None:
    """The parser quotes it, but shortens what it quotes: half of the token would be kept."""
    refused = await no_reply(saying(f"{head.format(TOKEN)}\r\n\r\n".encode()))

    assert refused.message.startswith("not HTTP: ")
    assert len(refused.message) > len("not HTTP: ")
    assert TOKEN[:6] not in refused.message


@pytest.mark.parametrize("size", [0, 100_000])
async def test_an_answer_comes_without_the_token_however_it_is_written_there(size: int) -> None:
    escaped = "".join(f"\\u{ord(one):04x}" for one in TOKEN)
    body = f'{{"id":"r","name":"{escaped}","x":"{"y" * size}"}}'.encode()
    echo = {"x-extend-request-id": TOKEN.replace("-", "%2D"), "Retry-After": f"after {TOKEN}"}
    async with recording(body=body, headers=echo) as (url, _), client(url) as it:
        reply = await it.update("r", b"{}")

    assert isinstance(reply, Reply)
    assert reply.body == b'{"id":"r","name":"<token>","x":"%b"}' % (b"y" * size)
    assert (reply.request_id, reply.retry_after) == ("<token>", "after <token>")


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


# What is none


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


async def test_a_chunk_that_is_none_ends_with_the_timeout() -> None:
    """Its head and a good chunk have arrived before: nobody else would end the wait."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        await writer.drain()
        for _ in range(5):  # turns of the loop, in which the client reads: the rest comes apart
            await asyncio.sleep(0)
        writer.write(b"zz\r\n")
        await writer.drain()
        await reader.read()

    async with talking(talk) as url, client(url, timeout_s=0.5) as api, asyncio.timeout(5.0):
        answer = await api.update("run", b"{}")

    assert isinstance(answer, NoReply)
    assert answer.ambiguous
