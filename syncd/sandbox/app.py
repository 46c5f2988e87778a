"""The sandbox as an HTTP server: the vendor's two endpoints, its faults, and its own books."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address
from random import Random

import msgspec
import orjson
from aiohttp import web

from syncd.sandbox import state_file
from syncd.sandbox.books import KEPT_BYTES, Books, Visit
from syncd.sandbox.faults import marked, parse_faults
from syncd.sandbox.limit import SlidingSecond, admit, retry_after_header
from syncd.sandbox.refusals import Refusal, refusal
from syncd.sandbox.runs import Runs
from syncd.sandbox.settings import SandboxSettings
from syncd.sandbox.vendor import Answer, Vendor

_BODY_BYTES = 1_048_576
_BODY_TIMEOUT_S = 30.0
_SAVE_EVERY_S = 1.0
_STOP_S = 0.1  # what requests in hand get to end by themselves; aiohttp's own patience is a minute


async def serve(settings: SandboxSettings, ready: Callable[[str], None]) -> None:
    """Serve until cancelled; `ready` gets the URL (`http://127.0.0.1:43121`) once it listens.

    Every generation is served below the URL and below URL + `/v1` alike; a client of `v1` is given
    URL + `/v1` for its base, as that generation's own address ends so. Cancelled, it stops within
    a fraction of a second, hung requests included, and saves its state. ValueError for a state
    file that is none, OSError where the address is taken.
    """
    sandbox = Sandbox(settings)
    runner = web.AppRunner(
        sandbox.application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_STOP_S,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        ready(_url(runner))
        while True:
            await asyncio.sleep(_SAVE_EVERY_S)
            with suppress(OSError):  # tried again in a second, and told by the last try
                sandbox.save()
    finally:
        try:
            await runner.cleanup()
        finally:
            sandbox.save()


class Sandbox:
    """One stand-in: its runs, its limit, its chance and its books."""

    def __init__(self, settings: SandboxSettings) -> None:
        path = settings.state_file
        self._runs = Runs(state_file.load(path) if path else {})
        self._vendor = Vendor(settings, self._runs)
        self._faults = parse_faults(settings.faults)
        self._chance = Random(settings.seed)
        self._reads = SlidingSecond()
        self._writes = SlidingSecond() if settings.rate_per_category else self._reads
        self._books = Books(time.monotonic(), datetime.now(UTC))
        self._saved = 0

    @property
    def settings(self) -> SandboxSettings:
        """What holds now; the token, the faults, the rate and the latency may change."""
        return self._vendor.settings

    def application(self) -> web.Application:
        """The routes of all generations and of the books."""
        app = web.Application(client_max_size=_BODY_BYTES)
        for prefix in ("", "/v1"):
            app.router.add_get(f"{prefix}/workflow_runs/{{id}}", self._serve_run, allow_head=False)
            app.router.add_post(f"{prefix}/workflow_runs/{{id}}", self._serve_run)
        app.router.add_get("/_sandbox/state", self._serve_state)
        app.router.add_get("/_sandbox/stats", self._serve_stats)
        app.router.add_get("/_sandbox/requests", self._serve_requests)
        app.router.add_post("/_sandbox/settings", self._serve_settings)
        app.router.add_route("*", "/{anything:.*}", self._serve_nothing)
        return app

    def save(self) -> None:
        """Write the state file, where there is one and something changed."""
        changes = self._runs.changes
        if self.settings.state_file and changes != self._saved:
            state_file.save(self.settings.state_file, self._runs)
            self._saved = changes

    async def _serve_run(self, request: web.Request) -> web.Response:
        run_id, now = request.match_info["id"], time.monotonic()
        visit = Visit(run_id, request.method, now, request.transport)
        self._books.arrive(visit)
        try:
            second = self._reads if visit.method == "GET" else self._writes
            admitted = admit(second, self.settings.rate, now)
            body = await _read(request)
            visit.body = b"" if isinstance(body, Refusal) else body[:KEPT_BYTES]
            if admitted:
                answer = self._decide(visit, request.headers, body)
            else:
                answer = self._refuse_for_rate(second.room_in_s(now, self.settings.rate))
                self._books.refused_by_limit += 1
            return await self._end(request, visit, answer)
        finally:
            self._books.leave(visit)

    def _decide(
        self, visit: Visit, headers: Mapping[str, str], body: bytes | Refusal
    ) -> Answer | None:
        """What the request comes to, applied when this returns; None where no answer was meant."""
        objection = self._vendor.objection(headers)
        if objection is not None:
            return self._vendor.refuse(objection)
        if isinstance(body, Refusal):
            return self._vendor.refuse(body)
        fault = marked(visit.run_id) or self._faults.draw(self._chance)
        if fault is None:
            return self._attend(visit, body)
        self._books.fault(visit, fault)
        match fault:
            case "slow" | "drop_after":
                return self._attend(visit, body)
            case "drop" | "hang":
                return None
            case "zombie":
                loop = asyncio.get_running_loop()
                loop.call_later(self._faults.zombie_s, self._attend, visit, body)
                return None
            case "garbage":
                return Answer(200, _GARBAGE, {"Content-Type": "text/html"})
            case "false":
                return Answer(200, _FALSE)
            case "wrong_id":
                return self._vendor.show(f"{visit.run_id}_other")
            case "429":
                return self._refuse_for_rate(1.0)
            case status:
                return self._vendor.refuse(refusal(int(status)))

    def _attend(self, visit: Visit, body: bytes) -> Answer:
        if visit.method == "GET":
            return self._vendor.retrieve(visit.run_id)
        answer = self._vendor.update(visit.run_id, body)
        if answer.applied:
            self._books.apply(visit)
        return answer

    def _refuse_for_rate(self, wait_s: float) -> Answer:
        header = retry_after_header(self.settings.retry_after, wait_s, time.time())
        return self._vendor.refuse(refusal(429), header)

    async def _end(self, request: web.Request, visit: Visit, answer: Answer | None) -> web.Response:
        """Answer, late where that is meant; or cut the connection; or wait for the client to go."""
        if visit.fault == "hang":
            await asyncio.get_running_loop().create_future()  # ends with the client or the sandbox
        late_s = self._faults.slow_s if visit.fault == "slow" else 0.0
        if wait_s := self.settings.latency_s + late_s:
            await asyncio.sleep(wait_s)
        # Before the client can know: its next request must not find this one in the books.
        self._books.leave(visit)
        if answer is None or visit.fault == "drop_after":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        self._books.answer(visit, answer.status)
        headers = {"Content-Type": "application/json", **answer.headers}
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    async def _serve_state(self, request: web.Request) -> web.Response:
        _only_from_loopback(request)
        return _json(state_file.dump(self._runs))

    async def _serve_stats(self, request: web.Request) -> web.Response:
        _only_from_loopback(request)
        return _json(orjson.dumps(self._books.stats()))

    async def _serve_requests(self, request: web.Request) -> web.Response:
        _only_from_loopback(request)
        return _json(orjson.dumps(self._books.visits(request.query.get("run"))))

    async def _serve_settings(self, request: web.Request) -> web.Response:
        _only_from_loopback(request)
        body = await _read(request)
        try:
            if isinstance(body, Refusal):
                raise ValueError(body.message)
            changes = msgspec.structs.asdict(_CHANGES.decode(body))
            given = {name: new for name, new in changes.items() if new is not msgspec.UNSET}
            self._vendor.settings = replace(self.settings, **given)
        except ValueError as error:  # msgspec's errors are ValueErrors too
            return _json(orjson.dumps({"error": str(error)}), status=400)
        self._faults = parse_faults(self.settings.faults)
        shown = {name: getattr(self.settings, name) for name in ("faults", "rate", "latency_s")}
        return _json(orjson.dumps(shown))

    async def _serve_nothing(self, request: web.Request) -> web.Response:
        answer = self._vendor.refuse(refusal(404, f"No such endpoint: {request.method}."))
        return _json(answer.body, status=answer.status)


class _Changes(msgspec.Struct, forbid_unknown_fields=True):
    token: str | msgspec.UnsetType = msgspec.UNSET
    faults: str | msgspec.UnsetType = msgspec.UNSET
    rate: int | msgspec.UnsetType = msgspec.UNSET
    latency_s: float | msgspec.UnsetType = msgspec.UNSET


_CHANGES = msgspec.json.Decoder(_Changes)
_GARBAGE = b"<html><body><h1>200 OK, but not from whom you think</h1></body></html>"
_FALSE = orjson.dumps({"success": False, "error": "The workflow run could not be updated."})


async def _read(request: web.Request) -> bytes | Refusal:
    """The whole body, or the refusal of one that is too large or does not come."""
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        return refusal(413, f"The body is larger than {_BODY_BYTES} bytes.")
    except TimeoutError:
        return refusal(408, f"The body did not come within {_BODY_TIMEOUT_S:g} s.")


def _only_from_loopback(request: web.Request) -> None:
    """The books ask for no bearer, so they are for this machine alone, whatever `host` says."""
    peer = ip_address(request.remote or "::")
    if isinstance(peer, IPv6Address):
        peer = peer.ipv4_mapped or peer
    if not peer.is_loopback:
        raise web.HTTPForbidden(text="the sandbox's books are for loopback only")


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


def _url(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
