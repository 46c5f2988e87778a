"""What is read over the control socket: rows in parts as they are found, why and plan."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from syncd.core.sending import Live, Sending
from syncd.errors import SyncdError
from syncd.relay import Relay
from syncd.store import Query, Store, StoreMoved, plan, read, why

log = structlog.get_logger()

MAX_READERS = 8  # answers of many rows at once; each has a connection to the database
QUEUE_S = 4.0  # for one of them; the command waits for five
ALIVE_EVERY_S = 1.0  # an empty line tells a command that a search goes on
STALLED_S = 600.0  # that a reader may leave a part of an answer lying, as `less` does
NDJSON = "application/x-ndjson"


class Readers:
    """Answers who only looks: many rows in parts, and not too many such answers at once."""

    def __init__(
        self,
        store: Store,
        relay: Relay,
        sending: Callable[[], Sending],
        attended: Callable[[], Collection[int]],
    ) -> None:
        self._store = store
        self._relay = relay
        self._sending = sending
        self._attended = attended
        self._places = asyncio.Semaphore(MAX_READERS)

    def routes(self) -> list[web.RouteDef]:
        """Where each of them is asked for."""
        return [
            web.get("/read/why", self._why),
            web.get("/read/plan", self._plan),
            web.get("/read/{what}", self._read),
        ]

    async def _read(self, request: web.Request) -> web.StreamResponse:
        ask = request.query
        now = self._store.now()
        in_flight = self._relay.in_flight
        row: object
        match request.match_info["what"]:
            case "patches":
                wanted = {name: ask.get(name) for name in ("state", "run", "batch")}
                since = float(ask["since"]) if "since" in ask else None
                limit = _limit(ask.get("limit"), read.LIMIT)
                return await self._stream(
                    request,
                    lambda db: read.patches(
                        db, now, **wanted, since=since, limit=limit, in_flight=in_flight
                    ),
                )
            case "patch":
                patch_id = _whole(ask.get("id"), 0)
                row = _found(
                    await self._store.read(lambda db: read.patch(db, patch_id, now, in_flight)),
                    f"no patch {patch_id} in the outbox",
                )
            case "snapshot":
                run = ask.get("run", "")
                row = _found(
                    await self._store.read(lambda db: read.snapshot(db, run)),
                    f"no snapshot of {run}: nothing was delivered to it yet",
                )
            case "runs":
                where = [_pair(text) for text in ask.getall("where", [])]
                status, most = ask.get("status"), _limit(ask.get("limit"), None)
                return await self._stream(
                    request, lambda db: read.runs(db, status=status, where=where, limit=most)
                )
            case "batches":
                name, limit = ask.get("name"), _limit(ask.get("limit"), read.LIMIT)
                attended = frozenset(self._attended())
                return await self._stream(
                    request,
                    lambda db: read.batches(db, name=name, limit=limit, attended=attended),
                )
            case what:
                raise web.HTTPNotFound(text=f"nothing to read called {what}")
        return _line(row)

    async def _stream(self, request: web.Request, query: Query) -> web.StreamResponse:
        """However many rows, a part in memory at a time; the next one when the reader has it."""
        answer = web.StreamResponse(headers={"Content-Type": NDJSON})
        try:
            async with self._reading(), self._store.parts(query) as next_part:
                while part := await _told(next_part(), request, answer):
                    await _write(part, request, answer)
                await _write(b"", request, answer)
        except ConnectionError:
            pass  # the reader has seen enough
        except (SyncdError, TimeoutError) as error:
            if not answer.prepared:
                raise
            log.warning("control.cut", path=request.path, error=str(error) or "the reader stalls")
            _cut(request, answer)
        except BaseException:
            _cut(request, answer)
            raise
        return answer

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        try:
            await asyncio.wait_for(self._places.acquire(), QUEUE_S)
        except TimeoutError:
            raise web.HTTPServiceUnavailable(
                text=f"{MAX_READERS} commands read long answers at this moment: end one, or try"
                " again later"
            ) from None
        try:
            yield
        finally:
            self._places.release()

    async def _why(self, request: web.Request) -> web.Response:
        ask, now, live = request.query, self._store.now(), self._live()
        if (run := ask.get("run")) is not None:
            row = await self._store.read(lambda db: why.run(db, run, now, live))
        else:
            patch_id = _whole(ask.get("id"), 0)
            row = await self._store.read(lambda db: why.patch(db, patch_id, now, live))
        if row is None:
            what = f"no patch for run {run}" if run is not None else f"no patch {patch_id}"
            raise web.HTTPNotFound(text=f"{what} in the outbox")
        moved = await asyncio.to_thread(self._store.moved)
        row["daemon"]["moved"] = isinstance(moved, StoreMoved)
        return _line(row)

    async def _plan(self, request: web.Request) -> web.Response:
        now, live = self._store.now(), self._live()
        limit = min(_whole(request.query.get("limit"), plan.LIMIT), plan.MOST)
        rows = await self._store.read(lambda db: plan.plan(db, now, live, limit))
        body = b"".join(read.encode(row) + b"\n" for row in rows)
        return web.Response(body=body, content_type=NDJSON)

    def _live(self) -> Live:
        """What no row says."""
        relay = self._relay
        return Live(self._sending(), relay.policy.fold, relay.out, relay.alone_until)


def _line(row: object) -> web.Response:
    return web.Response(body=read.encode(row) + b"\n", content_type=NDJSON)


async def _told(part: Awaitable[bytes], request: web.Request, answer: web.StreamResponse) -> bytes:
    """A part, and signs of life as long as it takes to find it."""
    finding = asyncio.ensure_future(part)
    try:
        while not (await asyncio.wait({finding}, timeout=ALIVE_EVERY_S))[0]:
            await _write(b"\n", request, answer)
        return await finding
    finally:
        finding.cancel()


async def _write(part: bytes, request: web.Request, answer: web.StreamResponse) -> None:
    """The status goes out with the first part: what fails before still has one of its own."""
    async with asyncio.timeout(STALLED_S):
        if not answer.prepared:
            await answer.prepare(request)
        await answer.write(part)


def _cut(request: web.Request, answer: web.StreamResponse) -> None:
    """What has gone out must not be taken for the whole."""
    if answer.prepared and request.transport is not None:
        request.transport.abort()


def _found(row: object | None, otherwise: str) -> object:
    if row is None:
        raise web.HTTPNotFound(text=otherwise)
    return row


def _whole(text: str | None, default: int) -> int:
    return int(text) if text else default


def _limit(text: str | None, default: int | None) -> int | None:
    limit = int(text) if text else default
    if limit is not None and limit < 0:
        raise web.HTTPBadRequest(text=f"limit = {limit}: must be 0 or more")
    return limit


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise web.HTTPBadRequest(text=f"where = {text!r}: must be KEY=VALUE")
    return key, value
