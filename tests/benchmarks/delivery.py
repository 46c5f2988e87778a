"""End to end: a row in, confirmed, its snapshot committed; beside a bare loop that only posts.

On a machine that does other things too, a daemon with three threads loses more than a loop with one
does. So the ratio is there twice: as the clock says, and with the time left out that the thread of
the event loop has waited for a core. With nothing else running the two agree.
"""

from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import machine, stand
from tests.benchmarks.figure import Figure, figure, ratios
from tests.benchmarks.rows import Row, rows, run_ids
from tests.benchmarks.scale import Scale
from tests.benchmarks.vendor import ANSWER_BYTES

ROUNDS = 5
PER_RUN = 20


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """Requests a second, and what they cost, in alternating runs."""
    count = scale.patches
    runs: dict[str, list[Delivered]] = {"distinct": [], "shared": []}
    bare: list[dict[str, float]] = []
    with stand.vendor() as vendor:
        for number in range(ROUNDS):
            bare.append(stand.bare(vendor.url, count))
            distinct = rows(count, seed=number)
            shared = rows(count, run_ids(count // PER_RUN, seed=number))
            for name, work in (("distinct", distinct), ("shared", shared)):
                runs[name].append(deliver(folder / f"{name}{number}", vendor, work))
    alone = [count / one["seconds"] for one in bare]
    ours = [one.per_s for one in runs["distinct"]]
    again = [one.per_s for one in runs["shared"]]
    yield figure("delivery: bare loop", "1/s", alone, note=f"answers of {ANSWER_BYTES:,} bytes")
    yield figure("delivery: end to end and durable", "1/s", ours)
    yield figure("delivery: of the bare loop", "ratio", ratios(ours, alone), ("≥", 0.85))
    yield figure(
        "delivery: of the bare loop, waits for a core left out",
        "ratio",
        ratios(
            [one.undisturbed_per_s for one in runs["distinct"]],
            [count / (one["seconds"] - one["waited_s"]) for one in bare],
        ),
        ("≥", 0.85),
    )
    yield figure(
        f"delivery: of the bare loop, {PER_RUN} patches a run", "ratio", ratios(again, alone)
    )
    yield figure("cpu: bare loop", "µs/patch", [1e6 * one["cpu_s"] / count for one in bare])
    yield from _parts(runs["distinct"])
    yield figure(
        "delivery: vendor's share of a core", "ratio", [d.vendor_core for d in runs["distinct"]]
    )
    yield figure("memory: peak while delivering", "MiB", [d.peak_mib for d in runs["distinct"]])


class Delivered:
    """One daemon's run over a set of patches."""

    def __init__(
        self, count: int, seconds: float, cpu: machine.Used, vendor_s: float, peak_mib: float
    ) -> None:
        self.count = count
        self.per_s = count / seconds
        self.undisturbed_per_s = count / (seconds - cpu.waited)
        self.vendor_core = vendor_s / seconds
        self.peak_mib = peak_mib
        self.cpu_us = 1e6 * cpu.whole / count
        self.threads_us = [1e6 * used / count for used in cpu.threads.values()]


def deliver(folder: Path, vendor: stand.Vendor, work: list[Row]) -> Delivered:
    """Start a daemon on what is in `folder`, give it patches, and wait until all are confirmed.

    As with the bare loop, what is measured begins warm: the second that belongs to whoever sent
    before has passed, and the window is open.
    """
    with stand.daemon(folder, vendor.url) as daemon:
        behind = stand.warm_up(daemon)
        before, vendor_s = machine.used(daemon.pid), vendor.reset()["cpu_s"]
        began = stand.insert(daemon.database, work)
        ended = stand.wait_for(daemon.database, "delivered", behind + len(work))
        cpu = machine.used(daemon.pid).since(before)
        vendor_s = vendor.books()["cpu_s"] - vendor_s
        return Delivered(len(work), ended - began, cpu, vendor_s, machine.peak_mib(daemon.pid))


def _parts(runs: list[Delivered]) -> Iterator[Figure]:
    """The processor time of a patch by thread: the event loop's, the writer's, the reader's."""
    yield figure("cpu: daemon", "µs/patch", [run.cpu_us for run in runs])
    names = ("event loop", "store's writer", "store's reader")
    for number, name in enumerate(names):
        yield figure(
            f"cpu: daemon, {name}",
            "µs/patch",
            [run.threads_us[number] for run in runs if len(run.threads_us) > number],
        )
