"""From another process's INSERT to the request on the wire, while nothing else goes on."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from tests.benchmarks import machine, stand
from tests.benchmarks.figure import Figure, figure
from tests.benchmarks.rows import rows
from tests.benchmarks.scale import Scale

DAEMONS = 4  # in turn, so that each is idle for longer than it stays alert
IDLE_AFTER_S = 1.2
SETTLED_S = 3.0


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """Every INSERT's way to the wire; then the processor time of a daemon without work."""
    waits: list[float] = []
    with ExitStack() as stack:
        vendor = stack.enter_context(stand.vendor(trace=1))
        databases = []
        for number in range(DAEMONS):
            daemon = stack.enter_context(stand.daemon(folder / str(number), vendor.url))
            connection = sqlite3.connect(daemon.database, timeout=30, isolation_level=None)
            databases.append(stack.enter_context(closing(connection)))
        time.sleep(SETTLED_S)
        for number, row in enumerate(rows(DAEMONS * scale.inserts)):
            began = time.monotonic()
            databases[number % DAEMONS].execute(
                "INSERT INTO outbox (workflow_run_id, name, metadata) VALUES (?, ?, ?)", row
            )
            time.sleep(IDLE_AFTER_S / DAEMONS)
            arrived = vendor.books()["arrivals"].get(row[0])
            waits.append(1e3 * ((arrived or time.monotonic()) - began))
    yield figure("latency: INSERT to wire, p50", "ms", waits, ("<", 10))
    yield figure("latency: INSERT to wire, p99", "ms", _p99(waits), ("<", 50))
    with stand.vendor() as vendor, stand.daemon(folder / "idle", vendor.url) as daemon:
        time.sleep(SETTLED_S)
        before = machine.used(daemon.pid)
        time.sleep(scale.idle_s)
        cpu = machine.used(daemon.pid).since(before)
        share = sum(cpu.threads.values()) / scale.idle_s
    yield figure("idle: cpu", "% core", 100 * share, ("<", 0.2))


def _p99(waits: list[float]) -> float:
    return sorted(waits)[round(0.99 * (len(waits) - 1))]
