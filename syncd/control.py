"""The control socket: live figures, the operator's verbs, and enqueue for who cannot open the file.

HTTP on a unix socket, for the `syncd` command only. Who may connect is the socket's mode.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import orjson
import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from syncd.core.patch import Invalid, Patch, parse
from syncd.core.sending import Sending
from syncd.errors import SyncdError
from syncd.gate import Gate
from syncd.listener import Listener
from syncd.readers import Readers
from syncd.relay import Relay
from syncd.store import Place, Selection, Store, StoreUnavailable, Verb
from syncd.store.accept import CUT_OFF
from syncd.store.facts import PAUSED
from syncd.verbs import AtWork, operate

log = structlog.get_logger()

MAX_BODY_BYTES = 1 << 20
LEAVE_S = 1.0  # that an answer has when the daemon stops
VERBS = ("retry", "discard", "hold", "release")
Status = Callable[[], Awaitable[dict[str, Any]]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control:
    """Answers on the control socket. No answer outlives the daemon's stop."""

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
        self._readers = Readers(store, relay, sending, lambda: self.attended)
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
                *self._readers.routes(),
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

    async def _enqueue(self, request: web.Request) -> web.Response:
        patches: list[Patch] = []
        for number, line in enumerate((await request.read()).splitlines(), start=1):
            if not line.strip():
                continue
            patch = parse(line)
            if isinstance(patch, Invalid):
                raise web.HTTPBadRequest(text=f"line {number}: {patch.reason}")
            patches.append(patch)
        batch_id = int(request.query.get("batch_id") or 0)
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
        batch_id = int(request.match_info["id"])
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
                "newer_in_flight": touched.newer_in_flight,
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
