"""`make soak`: an hour of steady work and bursts, and what it does to the daemon, as a picture.

Patches are INSERTed all the time, a file of them is dropped every minute, somebody asks for the
status; the vendor takes its time. Every second one urgent patch goes through, and is timed from
its INSERT to its delivery on disk. Figures and picture go into --folder.
"""

import argparse
import csv
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from tests.benchmarks import intake, machine, stand
from tests.benchmarks.figure import Figure, figure
from tests.benchmarks.record import Record
from tests.benchmarks.rows import Row, rows, run_ids
from tests.processes import Daemon

RUNS = 20_000
STEADY_PER_S = 200
BURST = 6_000
BURST_EVERY_S = 60.0
STATUS_EVERY_S = 20.0
SAMPLE_S = 1.0
RATE_PER_S = 1_000.0
LATENCY_S = 0.02
URGENT = 9
OWN_DESCRIPTORS = 32  # three times database and log, locks, sockets, watches, pipes: 29 when idle
WAL_MIB = 80  # journal_size_limit is 64 MiB; a checkpoint may have to wait for a reader


@dataclass(frozen=True, slots=True)
class Sample:
    """How the daemon stood at one instant."""

    at_s: float
    rss_mib: float
    wal_mib: float
    database_mib: float
    descriptors: int
    waiting: int
    latency_ms: float


def main() -> int:
    """Soak, print the figures, draw the picture. 1 if it broke off."""
    asked = _arguments()
    asked.folder.mkdir(parents=True, exist_ok=True)
    record = Record(asked.compare)
    with record.part("soak"), tempfile.TemporaryDirectory(prefix="syncd-soak-") as folder:
        samples = _soak(Path(folder), 60 * asked.minutes)
        _keep(samples, asked.folder / "soak.csv")
        for it in _figures(samples):
            record.add(it)
        print(_drawn(samples, asked.folder / "soak.png"))
    return record.close(asked.folder / "soak.json", minutes=asked.minutes)


def _soak(folder: Path, seconds: float) -> list[Sample]:
    stop = threading.Event()
    samples: list[Sample] = []
    with (
        stand.vendor(latency_s=LATENCY_S) as vendor,
        stand.daemon(folder, vendor.url, rate_per_s=RATE_PER_S, fold=True) as daemon,
    ):
        stand.warm_up(daemon)
        others = [
            threading.Thread(target=work, args=(daemon, stop)) for work in (_feed, _drop, _ask)
        ]
        for other in others:
            other.start()
        try:
            began = time.monotonic()
            with closing(sqlite3.connect(daemon.database, timeout=30, isolation_level=None)) as db:
                while (at := time.monotonic() - began) < seconds:
                    samples.append(_sample(daemon, db, at))
                    time.sleep(max(0.0, began + at + SAMPLE_S - time.monotonic()))
        finally:
            stop.set()
            for other in others:
                other.join()
        _all_is_delivered(daemon)
    return samples


def _feed(daemon: Daemon, stop: threading.Event) -> None:
    """A producer that never rests."""
    left = _endless()
    while not stop.wait(0.1):
        stand.insert(daemon.database, [next(left) for _ in range(STEADY_PER_S // 10)])


def _drop(daemon: Daemon, stop: threading.Event) -> None:
    """A file every minute."""
    left, number = _endless(), 0
    while not stop.wait(BURST_EVERY_S if number else BURST_EVERY_S / 4):
        draft = daemon.spool / "incoming" / ".burst.tmp"
        intake.jsonl(draft, [next(left) for _ in range(BURST)])
        draft.rename(draft.with_name(f"burst-{number}.jsonl"))
        number += 1


def _ask(daemon: Daemon, stop: threading.Event) -> None:
    """Somebody who looks."""
    while not stop.wait(STATUS_EVERY_S):
        daemon.syncd("status", "--json")


def _endless() -> Iterator[Row]:
    runs = run_ids(RUNS)
    while True:
        yield from rows(RUNS, runs)


def _sample(daemon: Daemon, db: sqlite3.Connection, at: float) -> Sample:
    began = time.monotonic()
    (urgent,) = db.execute(
        "INSERT INTO outbox (workflow_run_id, name, priority) VALUES ('workflow_run_urgent', ?, ?)"
        " RETURNING id",
        (str(at), URGENT),
    ).fetchone()
    while db.execute("SELECT state FROM outbox WHERE id = ?", (urgent,)).fetchone()[0] == "pending":
        if time.monotonic() > began + stand.PATIENCE_S:
            raise TimeoutError(f"an urgent patch is not delivered after {stand.PATIENCE_S} s")
        time.sleep(0.002)
    latency_ms = 1e3 * (time.monotonic() - began)
    (waiting,) = db.execute("SELECT n FROM counters WHERE state = 'pending'").fetchone()
    wal = Path(f"{daemon.database}-wal")
    return Sample(
        round(at, 2),
        machine.rss_mib(daemon.pid),
        wal.stat().st_size / 2**20,
        daemon.database.stat().st_size / 2**20,
        len(os.listdir(f"/proc/{daemon.pid}/fd")),
        waiting,
        latency_ms,
    )


def _all_is_delivered(daemon: Daemon) -> None:
    until = time.monotonic() + stand.PATIENCE_S
    while stand.count(daemon.database, "pending"):
        if time.monotonic() > until:
            raise TimeoutError("what was handed in is not delivered")
        time.sleep(0.1)
    if dead := stand.count(daemon.database, "dead"):
        raise AssertionError(f"{dead} patches are dead")


def _figures(samples: Sequence[Sample]) -> Iterator[Figure]:
    """What grew, held against what it was once it had settled in."""
    fifth = max(1, len(samples) // 5)
    middle, late = samples[2 * fifth : 3 * fifth], samples[-fifth:]
    waits = sorted(it.latency_ms for it in samples)
    yield figure("soak: memory", "MiB", [it.rss_mib for it in samples])
    yield figure(
        "soak: memory, last fifth of the middle one",
        "ratio",
        median(it.rss_mib for it in late) / median(it.rss_mib for it in middle),
        ("≤", 1.1),
    )
    yield figure("soak: WAL, largest", "MiB", max(it.wal_mib for it in samples), ("≤", WAL_MIB))
    yield figure("soak: database at the end", "MiB", samples[-1].database_mib)
    most = max(it.descriptors for it in samples)
    yield figure("soak: most file descriptors", "", most, ("≤", stand.IN_FLIGHT + OWN_DESCRIPTORS))
    yield figure("soak: INSERT to delivered, urgent, p50", "ms", waits)
    yield figure(
        "soak: INSERT to delivered, urgent, p99", "ms", waits[round(0.99 * len(waits)) - 1]
    )
    yield figure("soak: most waiting", "patches", max(it.waiting for it in samples))


def _keep(samples: Sequence[Sample], file: Path) -> None:
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, [it.name for it in fields(Sample)])
        writer.writeheader()
        writer.writerows(asdict(it) for it in samples)


def _drawn(samples: Sequence[Sample], file: Path) -> str:
    """The picture, a row for each thing that was watched. Returns what came of it."""
    try:
        import matplotlib
    except ImportError:
        return "no picture: matplotlib is not installed; soak.csv has the samples"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows_of = (
        ("rss_mib", "memory, MiB"),
        ("wal_mib", "WAL, MiB"),
        ("database_mib", "database, MiB"),
        ("descriptors", "descriptors"),
        ("latency_ms", "urgent, ms"),
        ("waiting", "waiting"),
    )
    minutes = [it.at_s / 60 for it in samples]
    picture, axes = pyplot.subplots(len(rows_of), sharex=True, figsize=(10, 12))
    for axis, (name, title) in zip(axes, rows_of, strict=True):
        axis.plot(minutes, [getattr(it, name) for it in samples], linewidth=0.8)
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes")
    picture.tight_layout()
    picture.savefig(file, dpi=100)
    return f"drawn: {file}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, default=stand.ROOT / "build" / "soak")
    parser.add_argument("--compare", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
