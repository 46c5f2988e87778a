"""A million patches wait: how soon something goes out, how soon one can look, how much it holds."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from syncd.store.facts import PAUSED, set_fact
from tests.benchmarks import machine, stand
from tests.benchmarks.figure import Figure, figure
from tests.benchmarks.rows import rows
from tests.benchmarks.scale import Scale
from tests.processes import Daemon, environment

STARTS = 5
LOOKS = 7


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """Start on the backlog a few times, look at it, then deliver a part of it."""
    with stand.vendor() as vendor, stand.daemon(folder, vendor.url, start=False) as daemon:
        stand.create(daemon.database)
        stand.insert(daemon.database, rows(scale.million))
        first = [_first_request(daemon, vendor) for _ in range(STARTS)]
        yield figure(
            f"waiting: {scale.million:,}, start to first request",
            "s",
            [until for until, _ in first],
            ("<", 1.0),
        )
        yield figure("waiting: start to ready", "s", [ready for _, ready in first])
        down = [_status_s(daemon, 3) for _ in range(LOOKS)]
        _pause(daemon, paused=True)
        daemon.start()
        up = [_status_s(daemon, 0) for _ in range(LOOKS)]
        daemon.stop()
        yield figure("waiting: status, daemon up", "s", up, ("<", 0.25))
        yield figure("waiting: status, daemon down", "s", down, ("<", 0.25))
        _pause(daemon, paused=False)
        yield from _delivering(daemon, scale)


def _first_request(daemon: Daemon, vendor: stand.Vendor) -> tuple[float, float]:
    """Seconds from the process's start to the first request, and to readiness."""
    vendor.reset()
    began = time.monotonic()
    daemon.start()
    ready = time.monotonic() - began
    while (at := vendor.books()["first_at"]) is None:
        time.sleep(0.05)
    daemon.stop()
    return at - began, ready


def _status_s(daemon: Daemon, expected: int) -> float:
    """Seconds that `syncd status` takes, from the shell's point of view.

    Its output is read, as that ends with it: a mere wait with a timeout looks every 50 ms.
    """
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "syncd", "status"],
        env=environment(daemon.folder, **daemon.environment),
        stdout=subprocess.PIPE,
        check=False,
        timeout=20,
    )
    if done.returncode != expected:
        raise RuntimeError(f"status ended with {done.returncode}, not {expected}")
    return time.monotonic() - began


def _delivering(daemon: Daemon, scale: Scale) -> Iterator[Figure]:
    """The memory and the cost of a patch while so many wait."""
    delivered = daemon.rows("SELECT n FROM counters WHERE state = 'delivered'")[0][0]
    daemon.start()
    before = machine.used(daemon.pid)
    stand.wait_for(daemon.database, "delivered", delivered + scale.patches)
    cpu = machine.used(daemon.pid).since(before)
    done = daemon.rows("SELECT n FROM counters WHERE state = 'delivered'")[0][0] - delivered
    yield figure("waiting: peak memory", "MiB", machine.peak_mib(daemon.pid), ("<", 120))
    yield figure("waiting: cpu while delivering", "µs/patch", 1e6 * cpu.whole / done)


def _pause(daemon: Daemon, *, paused: bool) -> None:
    with closing(sqlite3.connect(daemon.database)) as db, db:
        set_fact(db, PAUSED, "true" if paused else None)
