"""Figures for Prometheus, and an answer for whoever asks whether the daemon is well."""

import socket
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
from processes import PATIENCE_S, start_daemon, start_sandbox

from syncd import metrics
from syncd.store import StoreUnavailable


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def read(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def test_figures_and_health_are_served_where_the_settings_say(tmp_path: Path) -> None:
    """`control.metrics` names the address; without it nothing listens."""
    address = f"127.0.0.1:{free_port()}"
    with (
        start_sandbox(tmp_path) as sandbox,
        start_daemon(tmp_path, sandbox.url, control={"metrics": address}) as daemon,
    ):
        daemon.insert(("run_1", "x", None))
        assert daemon.syncd("wait", "--all", "--timeout", "10").returncode == 0

        figures = read(f"http://{address}/metrics")
        assert 'syncd_patches{state="delivered"} 1.0' in figures
        assert 'syncd_state{is="running"} 1.0' in figures
        assert 'syncd_breaker{is="closed"} 1.0' in figures
        assert read(f"http://{address}/healthz") == "running\n"


def test_an_address_that_is_taken_is_a_clear_refusal(tmp_path: Path) -> None:
    """The daemon does not start half."""
    with socket.socket() as taken, start_sandbox(tmp_path) as sandbox:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = start_daemon(tmp_path, sandbox.url)
        daemon.stop()
        daemon.configure(sandbox.url, control={"metrics": address})
        refused = daemon.syncd("run")

        assert refused.returncode == 1
        assert refused.stderr.strip().endswith("name a free address")
        assert address in refused.stderr


async def test_a_database_that_cannot_be_read_now_is_told() -> None:
    """A scraper sees why, and asks again."""

    async def status() -> dict[str, Any]:
        raise StoreUnavailable("syncd.db: disk I/O error: free space or mend the file system")

    port = free_port()
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as session:
        await metrics.listen(("127.0.0.1", port), status, stack)
        for path in ("metrics", "healthz"):
            async with session.get(f"http://127.0.0.1:{port}/{path}") as answer:
                assert answer.status == 503
                assert "free space" in await answer.text()
