"""A million lines from a file into the outbox, with every index that delivery needs."""

import csv
import itertools
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from syncd.store.facts import PAUSED, set_fact
from tests.benchmarks import machine, stand
from tests.benchmarks.figure import Figure, figure
from tests.benchmarks.rows import Row, rows
from tests.benchmarks.scale import Scale
from tests.processes import Daemon

TENTHS = 10
NOWHERE = "http://127.0.0.1:9/v1"  # nothing is sent: the daemon is paused
EVERY_S = 0.05


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """Rows a second of each tenth of the file, as it goes in; and what else feels of it."""
    work = rows(scale.million)
    for kind, write in (("jsonl", jsonl), ("csv", as_csv)):
        with paused(folder / kind) as daemon:
            taken = take(daemon, f"large.{kind}", write, work)
            yield figure(
                f"intake: {kind}, {scale.million:,} lines",
                "rows/s",
                taken.per_s,
                ("≥", 100_000),
                f"{taken.seconds:.1f} s in all",
            )
            yield figure(f"intake: {kind}, cpu", "µs/row", taken.cpu_us)
            yield figure(f"intake: {kind}, peak memory", "MiB", taken.peak_mib, ("<", 150))
    with paused(folder / "busy") as daemon, Producer(daemon.database) as producer:
        taken = take(daemon, "large.jsonl", jsonl, work[: scale.million // 4])
    yield figure(
        "intake: another producer's wait",
        "s",
        producer.waits,
        note=f"longest {max(producer.waits):.3f} of {len(producer.waits)}; "
        f"{taken.rows / taken.seconds:,.0f} rows/s beside it",
    )
    yield figure("intake: another producer's longest wait", "s", max(producer.waits), ("<", 0.5))


class Taken:
    """What it took to take a file in."""

    def __init__(self, rows: int, instants: list[float], cpu_s: float, peak_mib: float) -> None:
        self.rows = rows
        self.seconds = instants[-1] - instants[0]
        self.per_s = [rows / TENTHS / (b - a) for a, b in itertools.pairwise(instants)]
        self.cpu_us = 1e6 * cpu_s / rows
        self.peak_mib = peak_mib


def paused(folder: Path) -> Daemon:
    """A daemon that takes in, and sends nothing."""
    daemon = Daemon(folder, NOWHERE, delivery=dict(stand.FAST), log={"level": "warning"})
    stand.create(daemon.database)
    with closing(sqlite3.connect(daemon.database)) as db, db:
        set_fact(db, PAUSED, "true")
    return daemon.start()


def take(
    daemon: Daemon, name: str, write: Callable[[Path, list[Row]], None], work: list[Row]
) -> Taken:
    """Drop a file and watch it go in."""
    draft = daemon.spool / "incoming" / f".{name}.tmp"
    draft.parent.mkdir(parents=True, exist_ok=True)
    write(draft, work)
    before = machine.used(daemon.pid)
    instants = [time.monotonic()]
    draft.rename(draft.with_name(name))
    instants.extend(
        stand.wait_for(daemon.database, "pending", len(work) * tenth // TENTHS)
        for tenth in range(1, TENTHS + 1)
    )
    cpu = machine.used(daemon.pid).since(before)
    return Taken(len(work), instants, cpu.whole, machine.peak_mib(daemon.pid))


def jsonl(path: Path, work: list[Row]) -> None:
    """The patches as JSON, one a line."""
    with path.open("w") as file:
        file.writelines(
            f'{{"workflow_run_id":"{run}","name":"{name}","metadata":{metadata}}}\n'
            for run, name, metadata in work
        )


def as_csv(path: Path, work: list[Row]) -> None:
    """The same patches as CSV, a column for each key."""
    keys = list(json.loads(work[0][2]))
    plain = ("internal_id", "customer", "currency", "batch")
    titles = [f"metadata.{key}" if key in plain else f"metadata:json.{key}" for key in keys]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["workflow_run_id", "name", *titles])
        for run, name, metadata in work:
            values = json.loads(metadata).items()
            cells = [value if key in plain else json.dumps(value) for key, value in values]
            writer.writerow([run, name, *cells])


class Producer:
    """Somebody else who INSERTs now and then, and has to wait for the database."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.waits: list[float] = []

    def _run(self) -> None:
        with closing(sqlite3.connect(self._database, timeout=30, isolation_level=None)) as db:
            while not self._stop.wait(EVERY_S):
                began = time.monotonic()
                db.execute("INSERT INTO outbox (workflow_run_id, name) VALUES ('run_other', 'x')")
                self.waits.append(time.monotonic() - began)

    def __enter__(self) -> "Producer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
