"""The control socket: live figures, the operator's verbs, and enqueue for who cannot open the file.

HTTP on a unix socket, for the `syncd` command only. Who may connect is the socket's mode.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import orjson
import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from syncd.core.patch import Invalid, Patch, parse
from syncd.core.sending import Live, Sending
from syncd.errors import SyncdError
from syncd.gate import Gate
from syncd.listener import Listener
from syncd.relay import Relay
from syncd.store import Place, Query, Selection, Store, StoreUnavailable, Verb, plan, read, why
from syncd.store.accept import CUT_OFF
from syncd.store.facts import PAUSED
from syncd.verbs import AtWork, operate

log = structlog.get_logger()

MAX_BODY_BYTES = 1 << 20
MAX_READERS = 8  # answers of many rows at once; each has a connection to the database
QUEUE_S = 4.0  # for one of them; the command waits for five
ALIVE_EVERY_S = 1.0  # an empty line tells a command that a search goes on
STALLED_S = 600.0  # that a reader may leave a part of an answer lying, as `less` does
LEAVE_S = 1.0  # that an answer has when the daemon stops
NDJSON = "application/x-ndjson"
VERBS = ("retry", "discard", "hold", "release")
Status = Callable[[], Awaitable[dict[str, Any]]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control:
    """Answers on the control socket: many rows in parts. No answer outlives the daemon's stop."""

    def __init__(
        self,
        store: Store,
        relay: Relay,
        gate: Gate,
        status: Status,
        sending: Callable[[], Sending],
    ) -> None:
        self._store = store
        self._relay = relay
        self._gate = gate
        self._status = status
        self._readers = asyncio.Semaphore(MAX_READERS)
        self._sending = sending
        self._at_work = AtWork()
        self.attended: set[int] = set()
        """Batches whose command is there and has not closed them."""

    async def listen(self, path: Path, stack: AsyncExitStack) -> None:
        """Listen until `stack` is closed. Raises SyncdError if the path is taken or not ours."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors])
        app.add_routes(
            [
                web.get("/status", self._get_status),
                web.get("/read/why", self._why),
                web.get("/read/plan", self._plan),
                web.get("/read/{what}", self._read),
                web.post("/enqueue", self._enqueue),
                web.post("/batches", self._open_batch),
                web.post("/batches/{id}/close", self._close_batch),
                web.post("/verbs/stop", self._stop_verb),
                web.post("/verbs/{verb}", self._operate),
                web.post("/pause", self._pause),
                web.post("/resume", self._resume),
            ]
        )
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=LEAVE_S)
        await runner.setup()
        stack.push_async_callback(self._at_work.ended)  # which the runner may not have waited for
        stack.push_async_callback(runner.cleanup)
        stack.callback(self._at_work.stop_all)
        self.listener = Listener(path, runner)
        await self.listener.begin()
        stack.callback(self.listener.end)

    async def _get_status(self, _: web.Request) -> web.Response:
        return _json(await self._status())

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
                    await self._store.read(lambda db: read.patch(db, patch_id, in_flight)),
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
                return await self._stream(
                    request, lambda db: read.batches(db, name=name, limit=limit)
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
            await asyncio.wait_for(self._readers.acquire(), QUEUE_S)
        except TimeoutError:
            raise web.HTTPServiceUnavailable(
                text=f"{MAX_READERS} commands read long answers at this moment: end one, or try"
                " again later"
            ) from None
        try:
            yield
        finally:
            self._readers.release()

    async def _why(self, request: web.Request) -> web.Response:
        ask, now, live = request.query, self._store.now(), self._live()
        if (run := ask.get("run")) is not None:
            row = await self._store.read(lambda db: why.run(db, run, now, live))
            return _line(_found(row, f"no patch for run {run}"))
        patch_id = _whole(ask.get("id"), 0)
        row = await self._store.read(lambda db: why.patch(db, patch_id, now, live))
        return _line(_found(row, f"no patch {patch_id} in the outbox"))

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

    async def _enqueue(self, request: web.Request) -> web.Response:
        patches: list[Patch] = []
        for number, line in enumerate((await request.read()).splitlines(), start=1):
            if not line.strip():
                continue
            patch = parse(line)
            if isinstance(patch, Invalid):
                raise web.HTTPBadRequest(text=f"line {number}: {patch.reason}")
            patches.append(patch)
        batch_id = _whole(request.query.get("batch_id"), 0)
        accepted = await self._store.accept(patches, Place(batch_id) if batch_id else None)
        self._relay.wake()
        return _json(accepted)

    async def _open_batch(self, request: web.Request) -> web.StreamResponse:
        """The command leaves its request open: if that ends before the batch, it was killed."""
        try:
            line = await request.content.readline()
        except LineTooLong:
            raise web.HTTPBadRequest(text="the first line is too long") from None
        name = str(_object_of(line).get("name") or "enqueue")
        batch_id = (await self._store.open_batch(name, "enqueue")).batch_id
        self.attended.add(batch_id)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            await answer.prepare(request)
            await answer.write(orjson.dumps({"batch_id": batch_id}) + b"\n")
            async for _ in request.content.iter_any():
                pass
        except ConnectionError:
            pass  # as it ends for everybody
        finally:
            await self._cut_off(batch_id)
        return answer

    async def _cut_off(self, batch_id: int) -> None:
        if batch_id not in self.attended:
            return
        self.attended.discard(batch_id)
        try:
            await self._store.close_batch(batch_id, refused=CUT_OFF)
        except StoreUnavailable as error:  # upkeep does it when nothing has come for a while
            log.warning("store.unavailable", doing="cut_off", error=str(error))

    async def _close_batch(self, request: web.Request) -> web.Response:
        how = await _object(request)
        rejected, refused = how.get("rejected"), how.get("refused")
        if not isinstance(refused, str | None):
            raise web.HTTPBadRequest(text="refused must be a text: why the rest does not come")
        if rejected is not None and (type(rejected) is not int or rejected < 0):
            raise web.HTTPBadRequest(text="rejected must be a whole number, 0 or more")
        batch_id = _whole(request.match_info["id"], 0)
        self.attended.discard(batch_id)
        return _json(await self._store.close_batch(batch_id, rejected, refused=refused))

    async def _operate(self, request: web.Request) -> web.Response:
        verb = request.match_info["verb"]
        if verb not in VERBS:
            raise web.HTTPNotFound(text=f"no verb {verb}")
        ask = await _object(request)
        selection = Selection(
            ids=tuple(int(patch_id) for patch_id in ask.get("ids") or ()),
            run=ask.get("run"),
            reason=ask.get("reason"),
            everything=bool(ask.get("all")),
        )
        # A handler goes on though its command has gone: that has to be looked at.
        with self._at_work.begun(ask.get("ticket"), lambda: request.transport is not None) as stop:
            done = await operate(
                self._store,
                self._relay,
                cast("Verb", verb),
                selection,
                force=bool(ask.get("force")),
                stopped=stop,
            )
        touched, sending = done.touched, self._sending()
        told: dict[str, object] = {"touched": touched.touched, "asked": done.asked}
        if touched.stopped:
            told["stopped"] = touched.stopped
        log.info("operator.verb", verb=verb, **told)
        return _json(
            {
                "touched": touched.touched,
                "in_flight": touched.in_flight,
                "superseded": touched.superseded,
                "unclear": touched.unclear,
                "waiting": touched.waiting,
                "left_out": {str(key): value for key, value in touched.left_out.items()},
                "stopped": touched.stopped,
                "wanted": done.wanted,
                "asked": done.asked,
                "asked_with": done.asked_with,
                "daemon": {
                    "state": sending.state,
                    "reason": sending.reason,
                    "probe": sending.probe,
                },
            }
        )

    async def _stop_verb(self, request: web.Request) -> web.Response:
        """The verb under that ticket answers after the step that it is in."""
        self._at_work.stop(str((await _object(request)).get("ticket")))
        return _json({})

    async def _pause(self, _: web.Request) -> web.Response:
        await self._store.remember(PAUSED, "by an operator")
        self._gate.pause()
        # In a file that was moved away it holds once that is back; until then no start knows of it.
        moved = await asyncio.to_thread(self._store.moved)
        not_kept = None if moved is None else str(moved)
        log.info("operator.pause", **({"not_kept": not_kept} if not_kept else {}))
        return _json({"paused": True, "not_kept": not_kept})

    async def _resume(self, _: web.Request) -> web.Response:
        await self._store.remember(PAUSED, None)
        self._gate.resume()
        self._relay.wake()
        log.info("operator.resume")
        return _json({"paused": False})


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure is one line of JSON."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _json({"error": error.text or error.reason}, status=error.status)
    except StoreUnavailable as error:
        return _json({"error": str(error)}, status=503)
    except (SyncdError, ValueError, TypeError, OverflowError) as error:
        return _json({"error": " ".join(str(error).split())}, status=400)
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("control.failed", path=request.path)
        return _json({"error": "syncd made a mistake: see its log"}, status=500)


async def _object(request: web.Request) -> dict[str, Any]:
    return _object_of(await request.read())


def _object_of(text: bytes) -> dict[str, Any]:
    body = orjson.loads(text or b"{}")
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body must be a JSON object")
    return body


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


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
