"""Figures for Prometheus at /metrics, and /healthz for whoever asks whether the daemon is well."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from syncd.errors import SyncdError

Status = Callable[[], Awaitable[dict[str, Any]]]
STATES = ("running", "paused", "blocked", "waiting", "draining")
BREAKER = ("closed", "half-open", "open")


async def listen(address: tuple[str, int], status: Status, stack: AsyncExitStack) -> None:
    """Serve until `stack` is closed. Raises SyncdError if the address cannot be had."""

    async def metrics(_: web.Request) -> web.Response:
        registry = CollectorRegistry()
        registry.register(_Snapshot(await status()))
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def healthz(_: web.Request) -> web.Response:
        daemon = (await status())["daemon"]
        # Waiting for the API, or for an operator, is no illness of the daemon.
        well = daemon["state"] != "draining"
        text = f"{daemon['state']}: {daemon['reason']}" if daemon["reason"] else daemon["state"]
        return web.Response(text=text + "\n", status=200 if well else 503)

    @web.middleware
    async def told(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except SyncdError as error:  # the disk, mostly: it may pass
            return web.Response(text=f"{error}\n", status=503)

    app = web.Application(middlewares=[told])
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    host, port = address
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise SyncdError(
            f"control.metrics = {host}:{port}: {error.strerror}: name a free address"
        ) from error


class _Snapshot(Collector):
    """One status, as metric families."""

    def __init__(self, status: dict[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[GaugeMetricFamily]:
        status, gate = self._status, self._status["gate"]
        patches = GaugeMetricFamily("syncd_patches", "Patches by state", labels=["state"])
        for state, count in status["outbox"].items():
            if state != "oldest_pending_s":
                patches.add_metric([state], count)
        yield patches
        yield _one_of("syncd_state", "The daemon's state", STATES, status["daemon"]["state"])
        yield _one_of("syncd_breaker", "The breaker's position", BREAKER, gate["breaker"])
        for name, text, value in (
            ("oldest_pending_seconds", "Age of the oldest", status["outbox"]["oldest_pending_s"]),
            ("snapshots", "Cached WorkflowRuns", status["snapshots"]["count"]),
            ("rate_per_second", "Requests a second in use", gate["rate_per_s"]),
            ("limit_per_second", "Requests a second at most", gate["limit_per_s"]),
            ("window", "Requests in flight at most, now", gate["window"]),
            ("delivered_per_second", "Over 1 min", status["throughput"]["delivered_per_s_1m"]),
            ("requests_per_second", "Over 1 min", status["throughput"]["requests_per_s_1m"]),
            ("eta_seconds", "Until nothing waits", status["eta_s"]),
            ("spool_waiting", "Files in incoming/", status["spool"]["waiting"]),
            ("spool_rejected", "Files in rejected/", status["spool"]["rejected"]),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"syncd_{name}", text, value=value)


def _one_of(name: str, text: str, choices: tuple[str, ...], value: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["is"])
    for choice in choices:
        family.add_metric([choice], float(choice == value))
    return family
