"""The vendor's API over HTTP: one request, one answer. It never decides, and it never retries."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from syncd import __version__
from syncd.core.answer import NoReply, Reply

MAX_ANSWER_BYTES = 16 << 20
CHUNK_BYTES = 256 << 10
KEEPALIVE_S = 15.0


Connected = Callable[[float], Awaitable[None]]
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
    of somebody between) comes without it.
    """

    def __init__(
        self, session: aiohttp.ClientSession, endpoint: Endpoint, token: Callable[[], str]
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._token = token
        self._timeout = aiohttp.ClientTimeout(total=endpoint.timeout_s)

    @classmethod
    def open(
        cls, endpoint: Endpoint, token: Callable[[], str], connected: Connected | None = None
    ) -> Self:
        """A client whose `close` must be awaited. `token` is asked before every request.

        `connected` is awaited between a new connection and the first request on it.
        """
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"syncd/{__version__}",
        }
        if endpoint.version:
            headers["x-extend-api-version"] = endpoint.version
        if endpoint.workspace_id:
            headers["x-extend-workspace-id"] = endpoint.workspace_id
        session = aiohttp.ClientSession(
            # The gate's window bounds what is in flight; a second bound would hide it.
            connector=_Connector(connected, limit=0, keepalive_timeout=KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            trust_env=False,
            auto_decompress=True,
        )
        return cls(session, endpoint, token)

    async def close(self) -> None:
        """Drop all connections."""
        await self._session.close()

    async def update(self, run_id: str, body: bytes) -> Reply | NoReply:
        """POST a patch to a run."""
        return await self._ask("POST", run_id, body)

    async def retrieve(self, run_id: str) -> Reply | NoReply:
        """GET a run."""
        return await self._ask("GET", run_id, None)

    async def _ask(self, method: str, run_id: str, body: bytes | None) -> Reply | NoReply:
        # The id is opaque: percent-encoded, so that it is one segment whatever it holds.
        path = quote(run_id, safe="")
        url = URL(f"{self._endpoint.base_url}/workflow_runs/{path}", encoded=True)
        token = self._token()
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers={"Authorization": f"Bearer {token}"},
                allow_redirects=False,
                timeout=self._timeout,
            ) as answer:
                if 300 <= answer.status < 400:
                    return NoReply(
                        "redirect",
                        f"HTTP {answer.status}: redirects are refused: check api.base_url",
                        ambiguous=False,
                    )
                content = await _bounded(answer.content)
                if content is None:
                    return NoReply(
                        "too_large", f"an answer of over {MAX_ANSWER_BYTES} bytes", ambiguous=True
                    )
                request_id = _header(answer, "x-extend-request-id")
                return Reply(
                    answer.status,
                    content.replace(token.encode(), b"<token>"),
                    _header(answer, "Retry-After"),
                    None if request_id is None else request_id.replace(token, "<token>"),
                    _header(answer, "Date"),
                )
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            return _no_reply(error, self._endpoint.timeout_s)


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
                await self._told(loop.time() - began)
            except BaseException:
                connection.close()
                raise
        return connection


def _header(answer: aiohttp.ClientResponse, name: str) -> str | None:
    """A header as text that can be written down: aiohttp keeps odd bytes as half surrogates."""
    value = answer.headers.get(name)
    return None if value is None else value.encode(errors="backslashreplace").decode()


async def _bounded(content: aiohttp.StreamReader) -> bytes | None:
    """The whole body, or None if it is larger than we are ready to hold."""
    chunks, size = [], 0
    async for chunk in content.iter_chunked(CHUNK_BYTES):
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _no_reply(error: BaseException, timeout_s: float) -> NoReply:
    """The failure as a value: its cause, and whether the request may have been applied.

    Nothing was applied where no connection came about. The message never holds a header.
    """
    match error:
        case aiohttp.ConnectionTimeoutError():
            return NoReply("connect", f"no connection in {timeout_s:g} s", ambiguous=False)
        case TimeoutError():
            return NoReply("timeout", f"no answer in {timeout_s:g} s", ambiguous=True)
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return NoReply("tls", f"TLS failed: {_plain(error)}", ambiguous=False)
        case aiohttp.ClientConnectorDNSError():
            return NoReply("dns", f"the host has no address: {_plain(error)}", ambiguous=False)
        case aiohttp.ClientConnectorError():
            return NoReply("connect", f"no connection: {_plain(error)}", ambiguous=False)
        case aiohttp.InvalidURL():
            return NoReply("url", f"not a URL: {_plain(error)}", ambiguous=False)
        case aiohttp.ClientPayloadError():
            return NoReply("cut", "the connection broke inside the answer", ambiguous=True)
        case aiohttp.ServerConnectionError() | ssl.SSLError() | OSError():
            return NoReply("reset", f"the connection broke: {_plain(error)}", ambiguous=True)
        case _:
            return NoReply("protocol", f"not HTTP: {_plain(error)}", ambiguous=True)


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
