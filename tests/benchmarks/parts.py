"""Where a patch's processor time goes, by part: what py-spy sees, where py-spy is installed."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import machine, stand
from tests.benchmarks.figure import Figure, figure
from tests.benchmarks.record import NotHere
from tests.benchmarks.rows import rows
from tests.benchmarks.scale import Scale

# The innermost frame of these decides; whatever else is there belongs to the part that called it.
PARTS = {
    "syncd/store/": "store",
    "aiosqlite/": "store",
    "syncd/relay": "relay, lanes, settler",
    "syncd/attempt": "relay, lanes, settler",
    "syncd/lanes": "relay, lanes, settler",
    "syncd/settler": "relay, lanes, settler",
    "syncd/gate": "gate",
    "asyncio_throttle/": "gate",
    "syncd/core/pace": "gate",
    "syncd/core/window": "gate",
    "syncd/core/breaker": "gate",
    "syncd/core/": "core: fold, classify, schedule",
    "aiohttp/": "HTTP client",
    "yarl/": "HTTP client",
    "multidict/": "HTTP client",
    "syncd/api": "HTTP client",
    "structlog/": "log",
}
LOOP = "event loop, and what is in C below it"
RATE = "500"


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """Samples that hold the interpreter's lock, as shares of the processor time of a patch."""
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if spy is None:
        raise NotHere("py-spy is not installed; `cpu:` has the split by thread")
    out = folder / "stacks"
    with stand.vendor() as vendor, stand.daemon(folder, vendor.url) as daemon:
        before = machine.used(daemon.pid)
        command = [spy, "record", "--pid", str(daemon.pid), "--output", str(out)]
        with subprocess.Popen(
            # Stopping it for each sample would stop it in its system calls, and find it there.
            [*command, "--format", "raw", "--gil", "--nonblocking", "--rate", RATE],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as recording:
            stand.insert(daemon.database, rows(scale.patches))
            stand.wait_for(daemon.database, "delivered", scale.patches)
            cpu = machine.used(daemon.pid).since(before)
            recording.send_signal(signal.SIGINT)
    samples: Counter[str] = Counter()
    for line in out.read_text().splitlines():
        stack, _, seen = line.rpartition(" ")
        samples[_part(stack.split(";"))] += int(seen)
    patch_us = 1e6 * cpu.whole / scale.patches
    for part, count in samples.most_common():
        share = count / samples.total()
        yield figure(f"parts: {part}", "%", 100 * share, note=f"≈ {share * patch_us:.0f} µs")


def _part(stack: list[str]) -> str:
    for frame in reversed(stack):
        for place, part in PARTS.items():
            if place in frame:
                return part
    return LOOP
