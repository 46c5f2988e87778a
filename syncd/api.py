"""The vendor's API over HTTP: one request, one answer. It never decides, and it never retries.

Connections, TLS and the parser are aiohttp's, through its connector. Its ClientSession is not used:
redirects, cookies, proxies, authentication from the environment and tracing, each of which would
have to be switched off here, cost more than half of a request's processor time (`make bench`).
"""

import asyncio
import os
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from syncd import __version__
from syncd.core.answer import NoReply, NotSent, Reply
from syncd.core.redaction import Redaction

MAX_ANSWER_BYTES = 16 << 20
READ_AT_ONCE_BYTES = 64 << 10  # a longer one is looked through while others go on
MESSAGE_CHARACTERS = 240
KEEPALIVE_S = 15.0


Connected = Callable[[float], Awaitable[bool]]
"""Is told how many seconds it took to connect."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is and how it wants to be spoken to."""

    base_url: str
    """With the path prefix that the API generation has, without a slash at the end."""
    version: str | None
    """For the x-extend-api-version header; None sends none."""
    workspace_id: str | None
    timeout_s: float


class Api:
    """A client for one account. Answers and failures to get one are values, not exceptions.

    The token goes into one header of requests to `base_url` and nowhere else: redirects are not
    followed, proxies from the environment are not used, and an answer that shows it (the error page
    of somebody between), in whichever spelling, comes without it.
    """

    def __init__(
        self, connector: aiohttp.TCPConnector, endpoint: Endpoint, token: Callable[[], str]
    ) -> None:
        url = URL(endpoint.base_url, encoded=True)
        self._loop = asyncio.get_running_loop()
        self._connector = connector
        # To the connector a request says whom to connect to; it is the same one for all.
        self._peer = aiohttp.ClientRequest("POST", url, loop=self._loop)
        self._timeout_s = endpoint.timeout_s
        self._connect_timeout = aiohttp.ClientTimeout(connect=endpoint.timeout_s)
        self._path = f"{url.raw_path.rstrip('/')}/workflow_runs/"
        self._headers = _lines(
            ("Host", url.host_port_subcomponent),
            ("User-Agent", f"syncd/{__version__}"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "gzip, deflate"),
            ("Content-Type", "application/json"),
            ("x-extend-api-version", endpoint.version),
            ("x-extend-workspace-id", endpoint.workspace_id),
        )
        self._token = token
        self._credentials = _Credentials("")

    @classmethod
    def open(
        cls, endpoint: Endpoint, token: Callable[[], str], connected: Connected | None = None
    ) -> Self:
        """A client whose `close` must be awaited. `token` is asked before every request.

        `connected` is awaited between a new connection and the first request on it, with the
        seconds that it took to connect; False from it, and nothing is sent.
        """
        # The gate's window bounds what is in flight; a second bound would hide it.
        connector = _Connector(connected, limit=0, keepalive_timeout=KEEPALIVE_S)
        return cls(connector, endpoint, token)

    async def close(self) -> None:
        """Drop all connections."""
        await self._connector.close()

    async def update(self, run_id: str, body: bytes) -> Reply | NoReply | NotSent:
        """POST a patch to a run."""
        return await self._ask("POST", run_id, body)

    async def retrieve(self, run_id: str) -> Reply | NoReply | NotSent:
        """GET a run."""
        return await self._ask("GET", run_id, None)

    async def _ask(self, method: str, run_id: str, body: bytes | None) -> Reply | NoReply | NotSent:
        """The one way in for whatever is said here of an answer: without the token."""
        try:
            credentials = self._current_credentials()
        except ValueError as error:
            return _no_reply(error, self._timeout_s, sent=False)
        answer = await self._answer(method, run_id, body, credentials)
        if isinstance(answer, Reply) and len(answer.body) > READ_AT_ONCE_BYTES:
            return await asyncio.to_thread(credentials.removed_from, answer)
        return credentials.removed_from(answer)

    async def _answer(
        self, method: str, run_id: str, body: bytes | None, credentials: "_Credentials"
    ) -> Reply | NoReply | NotSent:
        deadline, cut = self._loop.time() + self._timeout_s, None
        try:
            request = self._request(method, run_id, body, credentials)
            connection, protocol = await self._connected()
            try:
                cut = _Cut(self._loop, deadline, protocol)
                answer = await _exchange(protocol, request, cut)
            except BaseException:
                connection.close()
                raise
            finally:
                if cut is not None:
                    cut.cancel()
            if isinstance(answer, NoReply):
                connection.close()
                return answer
            connection.release()
            # Where only the end of the connection ends an answer, the cut has ended it too soon.
            return _timed_out(self._timeout_s) if cut.made else answer
        except _Shut:
            return NotSent()
        except (
            TimeoutError,
            aiohttp.ClientError,
            HttpProcessingError,
            OSError,
            ValueError,
        ) as error:
            if cut is not None and cut.made:
                return _timed_out(self._timeout_s)
            return _no_reply(error, self._timeout_s, sent=cut is not None)

    async def _connected(self) -> tuple[Connection, ResponseHandler]:
        """A connection on which nothing is said but what we are about to ask for."""
        while True:
            connection = await self._connector.connect(self._peer, [], self._connect_timeout)
            if (protocol := connection.protocol) is not None and not protocol.should_close:
                return connection, protocol
            connection.close()

    def _current_credentials(self) -> "_Credentials":
        token = self._token()
        if token != self._credentials.token:
            self._credentials = _Credentials(token)
        return self._credentials

    def _request(
        self, method: str, run_id: str, body: bytes | None, credentials: "_Credentials"
    ) -> bytes:
        # The id is opaque: percent-encoded, so that it is one segment whatever it holds.
        line = f"{method} {self._path}{quote(run_id, safe='')} HTTP/1.1\r\n".encode("ascii")
        if body is None:
            return b"".join((line, self._headers, credentials.header, b"\r\n"))
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        return b"".join((line, self._headers, credentials.header, length, body))


class _Credentials:
    """The token, as it is sent and as it is left out of answers."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.header = _lines(("Authorization", f"Bearer {token}"))
        self._redaction = Redaction(token)

    def removed_from(self, answer: Reply | NoReply | NotSent) -> Reply | NoReply | NotSent:
        """The answer as it may be kept and shown."""
        match answer:
            case Reply():
                headers = (answer.retry_after, answer.request_id, answer.date)
                shown = f"{answer.retry_after} {answer.request_id} {answer.date}".encode()
                if not self._redaction.may_be_in(b" ".join((answer.body, shown))):
                    return answer
                left = tuple(text and self._redaction.of(text) for text in headers)
                return Reply(answer.status, self._redaction.of_bytes(answer.body), *left)
            case NoReply(cause, message, ambiguous):
                # Shortened last: half of a token would not be found.
                return NoReply(cause, self._redaction.of(message)[:MESSAGE_CHARACTERS], ambiguous)
            case NotSent():
                return answer


class _Cut:
    """Ends a connection at its request's deadline, and with it the wait of whoever reads there.

    A timer and a cancelled handle are a third of what `asyncio.timeout` costs, at every request.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, deadline: float, protocol: ResponseHandler
    ) -> None:
        self.made = False
        self._protocol = protocol
        self.content: aiohttp.StreamReader | None = None
        """The body, once its head is here."""
        self._timer = loop.call_at(deadline, self._make)

    def _make(self) -> None:
        self.made = True
        if self._protocol.transport is not None:
            self._protocol.transport.abort()
        # After a chunk that is none aiohttp has closed the connection, and told nobody who reads.
        self._protocol.set_exception(TimeoutError())
        if self.content is not None:
            self.content.set_exception(TimeoutError())

    def cancel(self) -> None:
        """The answer is here, or nobody waits for it any more."""
        self._timer.cancel()


class _Shut(Exception):
    """It is connected, and must not send."""


class _Connector(aiohttp.TCPConnector):
    """Tells of each new connection before the request goes out on it.

    aiohttp's tracing would do the same for a price at every request. What is overridden here is
    what aiohttp's own UnixConnector overrides.
    """

    def __init__(self, connected: Connected | None, **settings: Any) -> None:
        super().__init__(**settings)
        self._told = connected

    async def _create_connection(self, *asked: Any) -> Any:
        loop = asyncio.get_running_loop()
        began = loop.time()
        connection = await super()._create_connection(*asked)
        if self._told is not None:
            try:
                if not await self._told(loop.time() - began):
                    raise _Shut
            except BaseException:
                connection.close()
                raise
        return connection


async def _exchange(protocol: ResponseHandler, request: bytes, cut: _Cut) -> Reply | NoReply:
    """Send a request on a connection that is nobody else's, and read the answer to its end.

    After a NoReply or an error the connection is of no more use.
    """
    if protocol.transport is None:
        raise aiohttp.ServerDisconnectedError
    protocol.set_response_params(read_until_eof=True)
    protocol.transport.write(request)
    head, content = await protocol.read()
    while 100 <= head.code < 200:
        head, content = await protocol.read()
    if 300 <= head.code < 400:
        message = f"HTTP {head.code}: redirects are refused: check api.base_url"
        return NoReply("redirect", message, ambiguous=False)
    cut.content = content
    body = await _bounded(content)
    if body is None:
        message = f"an answer of over {MAX_ANSWER_BYTES} bytes"
        return NoReply("too_large", message, ambiguous=True)
    return Reply(
        head.code,
        body,
        _text(", ".join(head.headers.getall("Retry-After", ())) or None),
        _text(head.headers.get("x-extend-request-id")),
        _text(head.headers.get("Date")),
    )


async def _bounded(content: aiohttp.StreamReader) -> bytes | None:
    """The whole body, or None if it is larger than we are ready to hold."""
    body = await content.readany()
    if not content.at_eof():
        chunks, size = [body], len(body)
        while not content.at_eof() and size <= MAX_ANSWER_BYTES:
            chunks.append(await content.readany())
            size += len(chunks[-1])
        body = b"".join(chunks)
    return body if len(body) <= MAX_ANSWER_BYTES else None


def _lines(*headers: tuple[str, str | None]) -> bytes:
    """Header lines, without those that have no value. Raises ValueError for one that fits none."""
    lines = []
    for name, value in headers:
        if value is not None:
            if not (value.isascii() and value.isprintable()):
                raise ValueError(f"{name}: not what a header may hold")
            lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("ascii")


def _text(value: str | None) -> str | None:
    """A header as text that can be written down: aiohttp keeps odd bytes as half surrogates."""
    return None if value is None else value.encode(errors="backslashreplace").decode()


def _timed_out(timeout_s: float) -> NoReply:
    return NoReply("timeout", f"no answer in {timeout_s:g} s", ambiguous=True)


def _no_reply(error: BaseException, timeout_s: float, *, sent: bool) -> NoReply:
    """The failure as a value: its cause, and whether the request may have been applied.

    Nothing was applied where no connection came about. The message never holds a header.
    """
    match error:
        case TimeoutError() if not sent:
            return NoReply("connect", f"no connection in {timeout_s:g} s", ambiguous=False)
        case aiohttp.ClientConnectorCertificateError(certificate_error=cause):
            return NoReply("tls", f"TLS failed: {_unreached(error, cause)}", ambiguous=False)
        case aiohttp.ClientConnectorSSLError(os_error=cause):
            return NoReply("tls", f"TLS failed: {_unreached(error, cause)}", ambiguous=False)
        case aiohttp.ClientConnectorDNSError(os_error=cause):
            message = f"the host has no address: {_unreached(error, cause)}"
            return NoReply("dns", message, ambiguous=False)
        case aiohttp.ClientConnectorError(os_error=cause):
            return NoReply("connect", f"no connection: {_unreached(error, cause)}", ambiguous=False)
        case ValueError() if not sent:
            return NoReply("request", f"cannot be sent: {_plain(error)}", ambiguous=False)
        case aiohttp.ClientPayloadError():
            return NoReply("cut", "the connection broke inside the answer", ambiguous=True)
        case aiohttp.ServerConnectionError() | ssl.SSLError() | OSError():
            return NoReply("reset", f"the connection broke: {_plain(error)}", ambiguous=True)
        case _:
            said = _QUOTED.split(_plain(error), maxsplit=1)[0]
            return NoReply("protocol", f"not HTTP: {said}", ambiguous=True)


def _unreached(
    error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError, cause: Exception
) -> str:
    """Where and why. aiohttp's own text is of its settings: `ssl:default`, whatever is used."""
    host = str(error.host)
    return f"{f'[{host}]' if ':' in host else host}:{error.port}: {_reason(cause)}"


def _reason(cause: Exception) -> str:
    match cause:
        case ssl.SSLError():  # whose number is OpenSSL's, and text also names a line of C
            return _OF_OPENSSL.sub("", _plain(cause))
        case ConnectionResetError(errno=None):
            return "closed before TLS was agreed upon"
        case OSError(errno=int(number)) if number > 0:
            # asyncio puts a sentence of its own, without the reason, in the place of the system's.
            return os.strerror(number)
        case OSError(strerror=str(text)):
            return text
        case _:
            return _plain(cause)


# What the parser shows of an answer it has shortened itself, and what came in pieces is not whole.
_QUOTED = re.compile(r""":? b?['"]""")
_OF_OPENSSL = re.compile(r"^\[[^\]]*\] | \(_ssl\.c:\d+\)$")


def _plain(error: BaseException) -> str:
    # aiohttp's parser puts a status of ours in front, as if it were a server's.
    text = error.message if isinstance(error, HttpProcessingError) else str(error)
    return " ".join(text.split()) or type(error).__name__
